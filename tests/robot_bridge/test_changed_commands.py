"""What the filter changes outside of episodes is on record too: counted always, said once a second."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from takeover.data.schema import EpisodeKind, HoldReason, Mode, SafetyBit, SafetyLimits
from takeover.robot_bridge import changed_commands
from takeover.robot_bridge.changed_commands import ChangedCommands
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.robots.base import FloatArray, Reading
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.safety import SafetyResult, SafetyState

from .by_hand import SECOND, ByHand, by_hand

ASKED, APPLIED = np.array([4.0, 0.0]), np.array([0.25, 0.0])


class Traveller(SimRobot):
    """Far from its start pose, and careless: asks for four times full scale."""

    def start_action(self, reading: Reading, seed: int) -> FloatArray | None:
        return np.array([4.0, 0.0, 0.0, 0.0])


def result(bits: SafetyBit) -> SafetyResult:
    return SafetyResult(APPLIED, bits, SafetyState())


def test_every_change_is_counted_and_one_a_second_is_said() -> None:
    changed, both = ChangedCommands(), SafetyBit.RANGE | SafetyBit.SLOW_MODE
    assert changed.note(ASKED, result(SafetyBit.NONE), 0) == ""
    assert changed.note(ASKED, result(both), 0) == "range, slow_mode: asked [4, 0], applied [0.25, 0]"
    assert [changed.note(ASKED, result(both), at) for at in (1, SECOND // 2, SECOND - 1)] == ["", "", ""]
    again = changed.note(ASKED, result(SafetyBit.SPEED), SECOND)
    assert again == "speed: asked [4, 0], applied [0.25, 0]; 4 changed since the last such event"
    assert changed.note(ASKED, result(SafetyBit.SPEED), 3 * SECOND) == "speed: asked [4, 0], applied [0.25, 0]"
    changed.count(SafetyBit.FORCE)
    assert changed.counts == {"range": 4, "slow_mode": 4, "speed": 2, "force": 1}


def travelling(folder: Path, **config: Any) -> Any:
    return by_hand(folder, robot=Traveller("peg-insert"), **config)


def begin(hand: ByHand) -> None:
    hand.control.book.start_block(EpisodeKind.POLICY, 0)
    hand.control.begin_reset()
    hand.tick(3)
    assert hand.mode is Mode.RESETTING


def test_on_the_way_to_a_start_pose(tmp_path: Path) -> None:
    with travelling(tmp_path) as hand:
        begin(hand)
        (event,) = hand.events("command_changed")
        assert event.text.startswith("range")
        assert "asked [4, 0, 0, 0], applied [0." in event.text
        assert SafetyBit(int(event.value)) & SafetyBit.RANGE
        assert (event.episode_id, event.seq) == ("", hand.control.seq)
        assert hand.control.changed.counts["range"] == 3
        assert hand.steps == []


def test_held_on_the_way_and_standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed_commands, "NOTE_NS", 0)
    with travelling(tmp_path, limits=SafetyLimits(max_acceleration_m_s2=0.1)) as hand:
        begin(hand)
        hand.tick(5)
        before = len(hand.events("command_changed"))
        hand.control.change(ModeEvent.HOLD, HoldReason.OPERATOR)
        hand.tick()
        held = hand.events("command_changed")[before:]
        assert [event.text.partition(":")[0] for event in held] == ["acceleration"], "zero was asked, it had to slow down first"
        assert hand.control.changed.counts["acceleration"] >= 6
        hand.control.change(ModeEvent.STAND_BY)
        counted = hand.control.changed.counts["acceleration"]
        hand.control.safety_state = SafetyState(velocity=(0.2, 0.0, 0.0))
        hand.tick()
        assert hand.mode is Mode.READY
        assert hand.control.changed.counts["acceleration"] == counted + 1
        assert "asked [0, 0, 0, 0]" in hand.events("command_changed")[-1].text
        assert hand.steps == []


def test_recorded_steps_say_it_themselves(tmp_path: Path) -> None:
    with by_hand(tmp_path) as hand:
        hand.run()
        hand.answers = [[1.2, 0.0, 0.0, 0.0]]
        hand.tick(3)
        assert hand.events("command_changed") == []
        assert hand.control.changed.counts["range"] >= 2
        assert any(step.safety_bits & SafetyBit.RANGE for step in hand.steps)
