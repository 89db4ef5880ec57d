"""What an episode's file cannot hold is refused when it arrives, with sender, field, value and limit; what it can hold passes."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from takeover.data.schema import Command, Event, PolicyAction
from takeover.robot_bridge.protocol import Push
from takeover.robot_bridge.recordable import MAX_DEVICE_ID, MAX_HASH, MAX_SCORE_NAME, MAX_SCORES, MAX_VERSION

from .by_hand import ByHand, by_hand

NAN, INF = math.nan, math.inf
NAMES = f"1 to {MAX_SCORE_NAME} characters"


@pytest.fixture
def hand(tmp_path: Path) -> Iterator[ByHand]:
    with by_hand(tmp_path) as made:
        yield made


def answer(hand: ByHand, **changes: Any) -> PolicyAction:
    seq = hand.control.seq
    fields = {"session": hand.io.session, "from_seq": seq, "actions": [[0.0] * 4], "valid_until_seq": seq, "policy_version": 1}
    return PolicyAction(**(fields | changes))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"policy_version": 2**63}, f"policy_version of the answer {2**63}: cannot be recorded: 0 to {MAX_VERSION}"),
        ({"policy_version": 2**31}, f"policy_version of the answer {2**31}: "),
        ({"policy_version": -1}, "policy_version of the answer -1: "),
        ({"reward_version": 2**63}, f"reward_version of the answer {2**63}: cannot be recorded: 0 to {MAX_VERSION}"),
        ({"reward_version": -1}, "reward_version of the answer -1: "),
        ({"policy_sha256": "x" * (MAX_HASH + 1)}, f"at most {MAX_HASH} characters"),
        ({"policy_sha256": "a\0b"}, "none of them NUL"),
        ({"spread": NAN}, "spread of the answer nan: cannot be recorded: a finite number"),
        ({"spread": -INF}, "spread of the answer -inf: "),
        ({"scores": {"": 0.0}}, f"name in scores of the answer '': cannot be recorded: {NAMES}"),
        ({"scores": {".": 0.0}}, "name in scores of the answer '.': "),
        ({"scores": {"..": 0.0}}, "name in scores of the answer '..': "),
        ({"scores": {"a_b": 1.0, "a/b": 2.0}}, "name in scores of the answer 'a/b': "),
        ({"scores": {"a\0b": 0.0}}, "name in scores of the answer 'a\\x00b': "),
        ({"scores": {"x" * (MAX_SCORE_NAME + 1): 0.0}}, NAMES),
        ({"scores": {str(i): 0.0 for i in range(MAX_SCORES + 1)}}, f"scores of the answer {MAX_SCORES + 1}: "),
        ({"scores": {"a": 1.0, "b": NAN}}, "scores of the answer {'b': nan}: cannot be recorded: finite numbers"),
        ({"scores": {"b": INF}}, "scores of the answer {'b': inf}: "),
    ],
)
def test_an_answer_that_no_file_can_hold_is_refused(hand: ByHand, change: dict[str, Any], why: str) -> None:
    hand.run()
    hand.tick(5)
    hand.io.inbox.chunk = None
    with Push[Any](hand.bridge._endpoints, "policy_action", PolicyAction) as push:
        assert push.send(answer(hand, **change), 2.0)
        assert hand.pump_until(lambda: hand.io.refused_commands or hand.io.inbox.chunk)
        assert hand.io.refused_commands == 1
        assert hand.io.inbox.chunk is None, "nothing of it is used or recorded"
        (told,) = hand.events("command_refused")
        assert told.text.startswith("actor: ")
        assert why in told.text
        assert push.send(answer(hand), 2.0)
        assert hand.pump_until(lambda: hand.io.inbox.chunk), "the next one counts"


def test_what_is_just_allowed_passes(hand: ByHand) -> None:
    hand.run()
    hand.tick(5)
    hand.io.inbox.chunk = None
    scores = {"x" * MAX_SCORE_NAME: -1e300, "a b": 0.0, "...": 1.0, "Ä": 2.0} | {str(i): 0.0 for i in range(MAX_SCORES - 4)}
    most = {"policy_version": MAX_VERSION, "reward_version": MAX_VERSION, "policy_sha256": "x" * MAX_HASH, "spread": 1e308}
    with Push[Any](hand.bridge._endpoints, "policy_action", PolicyAction) as push:
        for changes in ({"scores": scores} | most, {"policy_version": 0, "reward_version": 0}):
            hand.io.inbox.chunk = None
            assert push.send(answer(hand, **changes), 2.0)
            assert hand.pump_until(lambda: hand.io.inbox.chunk or hand.io.refused_commands)
            assert hand.io.refused_commands == 0


@pytest.mark.parametrize("name", ["x" * (MAX_DEVICE_ID + 1), "pad\0"])
def test_a_device_that_no_file_can_name_drives_nothing(hand: ByHand, name: str) -> None:
    hand.run()
    hand.tick(5)
    with Push[Any](hand.bridge._endpoints, "command", Command) as push:
        assert push.send(hand.command(device_id=name), 2.0)
        assert hand.pump_until(lambda: hand.io.refused_commands or hand.io.inbox.command.command.device_id == name)
        (told,) = hand.events("command_refused")
        assert f"at most {MAX_DEVICE_ID} characters, none of them NUL" in told.text
        assert "device_id of the command" in told.text
        assert push.send(hand.command(device_id="x" * MAX_DEVICE_ID), 2.0)
        assert hand.pump_until(lambda: len(hand.io.inbox.command.command.device_id) == MAX_DEVICE_ID)
        assert hand.io.refused_commands == 1


@pytest.mark.parametrize("value", [NAN, INF])
def test_an_event_whose_number_is_none_is_refused(hand: ByHand, value: float) -> None:
    def note(value: float) -> Event:
        return Event(session="", rec_seq=-1, kind="note", t_ns=0, wall_ns=0, source="desk", value=value)

    with Push[Any](hand.bridge._endpoints, "event", Event) as push:
        assert push.send(note(value), 2.0)
        assert hand.pump_until(lambda: hand.io.refused_commands or hand.events("note"))
        assert (hand.io.refused_commands, hand.events("note")) == (1, [])
        assert f"value of the event {value}: cannot be recorded: a finite number" in hand.events("command_refused")[0].text
        assert push.send(note(2.5), 2.0)
        assert hand.pump_until(lambda: hand.events("note"))
        assert hand.events("note")[0].value == 2.5
