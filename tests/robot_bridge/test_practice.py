"""Nobody there: the policy drives only in practice that says so, slower, within tighter limits, and not for ever."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.data import audit
from takeover.data.schema import EpisodeKind, HoldReason, Mode, Outcome, RobotSpec, SafetyLimits, Start
from takeover.robot_bridge.control_state import practice_limits
from takeover.robot_bridge.robots.sim import SimRobot

from .station import Station, eventually, station
from .test_realtime import Scene


def alone(made: Station) -> Any:
    """Recorder and actor; an operator who asks and then holds nothing."""
    recorder, actor, operator = made.recorder(), made.actor(), made.operator()
    assert eventually(lambda: not made.state().gate["recorder"] and not made.state().gate["policy"])
    return recorder, actor, operator


def practise(operator: Any, failures: int = 2, **more: Any) -> str:
    fields = {"sender": "console", "kind": EpisodeKind.POLICY, "unattended": True, "max_failures": failures}
    return str(operator.ask(Start(**(fields | more))).error)


def test_practice_is_slow_and_ends_after_its_failures(tmp_path: Path) -> None:
    with station(tmp_path) as made:
        recorder, actor, operator = alone(made)
        actor.act = lambda _: [1.0, 0.0, 0.0, 0.0]
        assert practise(operator) == ""
        state = made.until_mode(Mode.POLICY)
        assert state.unattended
        assert (state.failures, state.max_failures) == (0, 2)
        assert state.speed_scale == 0.25
        assert state.commander == ""
        made.until(lambda s: s.episode_step > 3)
        actor.silent = True  # nobody resumes: aborted, twice
        made.until(lambda s: s.mode is Mode.READY and not s.block_running, 15.0)
        assert eventually(lambda: [end.outcome for end in recorder.ends] == [Outcome.ABORTED] * 2)
        assert all(start.unattended for start in recorder.starts)
        driven = [step for step in recorder.steps if step.mode is Mode.POLICY and any(step.action)]
        assert driven
        assert max(abs(step.action[0]) for step in driven) <= 0.25 * 3**0.5 + 1e-9, "a quarter of full scale, along the diagonal"
        assert eventually(lambda: {"unattended_started", "practice_stopped"} <= {event.kind for event in recorder.events})
        assert "unattended_started" in [entry["what"] for entry in audit.entries(tmp_path)]
        actor.silent = False


def test_a_person_who_takes_over_ends_it(tmp_path: Path) -> None:
    with station(tmp_path) as made:
        scene = Scene(made)
        assert eventually(lambda: not made.state().gate["recorder"] and not made.state().gate["policy"])
        assert practise(scene.operator) == ""
        scene.until_mode(Mode.POLICY)
        scene.take_over()
        state = made.until(lambda s: s.human_steps > 3)
        assert not state.unattended
        assert state.speed_scale == 1.0
        scene.neutral()
        scene.until_mode(Mode.POLICY)
        assert eventually(lambda: "unattended_ended" in [event.kind for event in scene.recorder.events])
        scene.operator.sending = False
        scene.until_hold(HoldReason.LEASE_LAPSED)  # attended from then on


def test_without_saying_so_nobody_there_nobody_drives(tmp_path: Path) -> None:
    with station(tmp_path, operator="none") as made:
        recorder, _, operator = alone(made)
        assert operator.ask(Start(sender="console", kind=EpisodeKind.POLICY)).error == ""
        assert eventually(lambda: HoldReason.NOT_PRESENT in [step.hold_reason for step in recorder.steps])
        assert all(not any(step.action) for step in recorder.steps)


@pytest.mark.parametrize(
    ("change", "more", "why"),
    [
        ({}, {"max_failures": 0}, "a budget of 1 to 1000"),
        ({}, {"kind": EpisodeKind.DEMONSTRATION}, "demonstrations need a person"),
        ({"has_watchdog": False}, {}, "needs a watchdog"),
        ({"can_reset": False, "simulated": False}, {}, "an automatic reset and a task that judges its own outcome"),
    ],
)
def test_what_practice_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, more: Any, why: str) -> None:
    whole = SimRobot.spec.fget  # type: ignore[attr-defined]

    def lesser(robot: SimRobot) -> RobotSpec:
        return msgspec.structs.replace(whole(robot), **change)

    monkeypatch.setattr(SimRobot, "spec", property(lesser))
    with station(tmp_path, line_of_sight="yes") as made:
        _, _, operator = alone(made)
        assert why in practise(operator, **more)
        assert made.state().mode is Mode.READY


def test_its_limits_are_tighter_and_still_limits() -> None:
    limits = practice_limits(SafetyLimits())
    assert limits.max_force_n == SafetyLimits().max_force_n / 2
    assert limits.clamps_to_hold == 2
    lowest = SafetyLimits(max_force_n=1.0, max_gripper_force_n=1.0, clamps_to_hold=1, mistakes_per_episode=1)
    assert practice_limits(lowest) == lowest
