"""Action chunks: actors slower than the control period that answer many actions at once."""

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from takeover.data.schema import HoldReason, Mode, Observation, PolicyAction, SafetyBit, Source, Step
from takeover.robot_bridge import chunks
from takeover.robot_bridge.chunks import AnswerLatency
from takeover.robot_bridge.protocol import Endpoints, Push, Subscriber

from .station import Peer, Station, eventually, station
from .test_realtime import Scene

ROWS = 50
Rows = Callable[[Observation], list[list[float]]]


def answer(from_seq: int, rows: list[list[float]], valid_for: int = ROWS) -> PolicyAction:
    return PolicyAction(session="s", from_seq=from_seq, actions=rows, valid_until_seq=from_seq + valid_for - 1, policy_version=1)


def wave(seq: int) -> list[float]:
    """A smooth motion that is a function of the step it is meant for: which row drove can be read from the action."""
    return [0.4 * math.sin(seq / 10.0), 0.4 * math.cos(seq / 10.0), 0.0, 0.0]


class ChunkActor:
    """Answers the newest observation after ``delay_s`` with ``rows(observation)``."""

    def __init__(self, endpoints: Endpoints, rows: Rows, delay_s: float = 0.3) -> None:
        self.rows = rows
        self.delay_s = delay_s
        self.silent = False
        self.valid_for = ROWS
        self._endpoints = endpoints
        self.peer = Peer(self._run)

    def _run(self, stopping: threading.Event) -> None:
        with (
            Subscriber[Observation](self._endpoints, "observation", Observation) as observations,
            Push[PolicyAction](self._endpoints, "policy_action", PolicyAction) as answers,
        ):
            while not stopping.is_set():
                observation = observations.receive(0.05)
                if observation is None or self.silent:
                    continue
                stopping.wait(self.delay_s)
                answers.send(
                    PolicyAction(
                        session=observation.session,
                        from_seq=observation.seq,
                        actions=self.rows(observation),
                        valid_until_seq=observation.seq + self.valid_for - 1,
                        policy_version=1,
                    )
                )


class ChunkScene(Scene):
    """As `Scene`, with a slow actor."""

    def __init__(self, made: Station, rows: Rows | None = None) -> None:
        self.station = made
        self.recorder = made.recorder()
        self.chunks = ChunkActor(made.endpoints, rows or (lambda seen: [wave(seen.seq + i) for i in range(ROWS)]))
        made.closers.append(self.chunks.peer.stop)
        self.operator = made.operator()
        assert self.operator.take_lease().error == ""

    def policy_steps(self) -> list[Step]:
        return [step for step in self.recorder.steps if step.source == [Source.POLICY]]


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[ChunkScene]:
    with station(tmp_path) as made:
        scene = ChunkScene(made)
        assert eventually(lambda: made.state().policy_latency_ms > 250)
        yield scene


def test_a_chunk_is_looked_up_by_step() -> None:
    chunk = chunks.received(answer(10, [[float(i)] for i in range(5)], valid_for=20), 1, 0)
    assert [chunk.choice(seq).action for seq in (10, 12, 14, 17)] == [0.0, 2.0, 4.0, 4.0]
    assert [chunk.choice(seq).planned for seq in (10, 11, 17)] == [False, True, True]
    assert not chunk.covers(9, 0, 3)
    assert chunk.covers(10, 10, 3)
    assert chunk.covers(17, 0, 3), "the last row is repeated three times"
    assert not chunk.covers(18, 0, 3)
    assert not chunk.covers(12, 11, 3), "made before the flush"
    assert [chunk.choice(seq, plan=3).action for seq in (11, 12, 13, 15)] == [1.0, 2.0, 2.0, 2.0], "of a long one the last that counts"
    assert chunk.covers(15, 0, 3, plan=3)
    assert not chunk.covers(16, 0, 3, plan=3)
    short = chunks.received(answer(10, [[0.0]] * 5, valid_for=2), 1, 0)
    assert short.covers(11, 0, 3)
    assert not short.covers(12, 0, 3), "the actor itself says until when"


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "0 rows"),
        ([[0.0, 0.0]] * 1025, "1025 rows"),
        ([[0.0, 0.0], [0.0]], "shape of row 1"),
        ([[0.0, 0.0], [0.0, math.nan]], "row 1, component 1 is not finite"),
        ([[math.inf, 0.0]], "row 0, component 0 is not finite"),
    ],
)
def test_one_bad_row_refuses_the_whole_chunk(rows: list[list[float]], why: str) -> None:
    chunk = chunks.received(answer(0, rows), 2, 0)
    assert why in chunk.fault
    assert chunk.choice(0).action is None
    assert chunk.choice(0).fault == chunk.fault
    assert chunk.covers(500, 0, 3), "until it is replaced"


def test_patience_is_measured_and_bounded() -> None:
    latency = AnswerLatency()
    assert latency.patience_steps(0.05) == 0
    for seq, seconds, rows, steps in ((0, 0.3, 1, 0), (1, 0.3, 50, 14), (2, 60.0, 50, 22), (3, 0.001, 50, 3)):
        latency.published(seq, 0)
        latency.heard(chunks.received(answer(seq, [[0.0]] * rows), 1, int(seconds * 1e9)))
        assert latency.patience_steps(0.05) == steps
    for seq in range(5000):
        latency.published(seq, 0)
    assert len(latency.published_ns) <= chunks.REMEMBERED_STEPS


def test_a_slow_actor_drives_smoothly_and_what_it_inferred_from_is_recorded(slow: ChunkScene) -> None:
    slow.run_policy()
    slow.station.until(lambda state: state.episode_step > 60)
    steps = [step for step in slow.recorder.steps if step.mode is Mode.POLICY]
    began = next(i for i, step in enumerate(steps) if step.policy_action is not None)
    assert began * 0.05 < 1.0, "stands only until the first answer after the flush"
    assert all(step.action == [0.0] * 4 for step in steps[:began])
    driven = steps[began:]
    assert all(step.policy_action == pytest.approx(wave(step.seq)) for step in driven), "row seq - from_seq of the newest chunk"
    assert len({step.policy_from_seq for step in driven}) >= 5
    assert all(one.policy_from_seq <= two.policy_from_seq for one, two in itertools.pairwise(driven))
    assert max(step.seq - step.policy_from_seq for step in driven) < ROWS
    jumps = [np.linalg.norm(np.subtract(two.action, one.action)) for one, two in itertools.pairwise(driven)]
    assert max(jumps) < 0.1, "no snap from one chunk to the next"


def test_chunks_end_at_takeover_and_hand_back_without_a_hold(slow: ChunkScene) -> None:
    slow.run_policy()
    slow.station.until(lambda state: state.policy_action is not None and any(state.action))
    slow.take_over()
    slow.station.until(lambda state: state.human_steps >= 18)
    slow.neutral()
    slow.until_mode(Mode.POLICY)
    back = slow.station.state().step_seq
    slow.station.until(lambda state: state.step_seq > back + 25)
    steps = slow.recorder.steps
    last_human = max(i for i, step in enumerate(steps) if Source.HUMAN in step.source)
    after = steps[last_human + 1 :]
    release = after[0]
    assert steps[last_human].policy_action is not None, "a chunk planned in the takeover was there to go on with"
    assert not any(step.mode is Mode.HOLD for step in after[:20]), "standing still until the first answer is not late"
    waiting = list(itertools.takewhile(lambda step: step.policy_action is None, after))
    assert 4 <= len(waiting) <= 15, "0.3 to 0.6 s at 20 Hz, and 2, and the step that hands back"
    assert all(step.action == [0.0] * 4 and step.source == [Source.NONE] for step in waiting), "the step that hands back too"
    assert all(step.policy_from_seq > release.seq for step in after[len(waiting) :]), "inferred after the hand-back"


def test_an_actor_that_falls_silent_runs_out_and_is_held(slow: ChunkScene) -> None:
    slow.run_policy()
    slow.station.until(lambda state: any(state.action))
    slow.chunks.silent = True
    slow.until_hold(HoldReason.POLICY_LATE)
    assert eventually(lambda: slow.recorder.newest_mode is Mode.HOLD)
    last = [step for step in slow.recorder.steps if step.policy_action is not None and step.mode is Mode.POLICY][-1]
    assert last.seq - last.policy_from_seq <= ROWS - 1


def test_the_last_row_is_repeated_for_the_life_of_a_command_only(slow: ChunkScene) -> None:
    slow.chunks.rows = lambda seen: [[0.1, 0.0, 0.0, 0.0]] * 12
    slow.chunks.valid_for = 10_000
    slow.run_policy()
    slow.station.until(lambda state: any(state.action))
    slow.chunks.silent = True
    slow.until_hold(HoldReason.POLICY_LATE)
    assert eventually(lambda: slow.recorder.newest_mode is Mode.HOLD)
    last = [step for step in slow.recorder.steps if step.policy_action is not None and step.mode is Mode.POLICY][-1]
    assert last.seq - last.policy_from_seq == 11 + 3


def test_a_bad_row_far_ahead_holds_at_once(slow: ChunkScene) -> None:
    slow.run_policy()
    slow.station.until(lambda state: any(state.action))
    slow.chunks.rows = lambda seen: [*([[0.1, 0.0, 0.0, 0.0]] * 40), [math.nan, 0.0, 0.0, 0.0]]
    state = slow.until_hold(HoldReason.POLICY_FAULT)
    assert "row 40" in state.hold_detail
    assert eventually(lambda: slow.recorder.newest_mode is Mode.HOLD)
    held = next(step for step in slow.recorder.steps if step.mode is Mode.HOLD)
    assert held.safety_bits & SafetyBit.NON_FINITE
    assert held.action == [0.0] * 4
    assert all(step.policy_action != [0.1, 0.0, 0.0, 0.0] for step in slow.recorder.steps)


def test_every_element_of_a_chunk_is_limited(slow: ChunkScene) -> None:
    """One gross row in ten: clamped and recorded, never three in a row, so never held."""
    slow.chunks.rows = lambda seen: [[3.0 if (seen.seq + i) % 10 == 0 else 0.2, 0.0, 0.0, 0.0] for i in range(ROWS)]
    slow.run_policy()
    slow.station.until(lambda state: state.safety_counts.get("range", 0) >= 3)
    wild = [step for step in slow.policy_steps() if step.asked_action[0] == 3.0]
    assert len(wild) >= 2
    assert all(step.safety_bits & SafetyBit.RANGE and abs(step.action[0]) <= 1.0 for step in wild)
    assert all(step.policy_action is not None and step.policy_action[0] == 3.0 for step in wild), "what was asked is kept"


def test_answers_to_the_past_or_the_future_are_refused(slow: ChunkScene) -> None:
    slow.run_policy()
    slow.station.until(lambda state: any(state.action))
    now = slow.station.state().step_seq
    session = slow.operator.session
    before = slow.station.state().refused_commands
    wrong = [[0.9, 0.9, 0.9, 0.0]] * ROWS
    with Push[PolicyAction](slow.station.endpoints, "policy_action", PolicyAction) as answers:
        for from_seq, of in ((now - 100, session), (now + 1000, session), (now, "another")):
            made = PolicyAction(session=of, from_seq=from_seq, actions=wrong, valid_until_seq=from_seq + 5000, policy_version=9)
            assert answers.send(made, 1.0)
    slow.station.until(lambda state: state.refused_commands >= before + 3)
    slow.station.until(lambda state: state.step_seq > now + 10)
    assert all(step.policy_version != 9 for step in slow.recorder.steps)
    texts = " ".join(event.text for event in slow.recorder.events if event.kind == "command_refused")
    assert "older than the newest" in texts
    assert "never sent" in texts
    assert "another session" in texts
