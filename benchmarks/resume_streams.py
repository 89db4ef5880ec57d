"""The records that `benchmarks.resume` feeds to a learner: episodes with takeovers, holds, pictures, and outcomes that change later.

A stream comes in parts; each ends in the middle of an episode, after a step of the policy, so that a status says when all of it is
learned from.
"""

import itertools
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np

from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeChange, OutcomeSource, PolicyImage, RobotSpec
from tests.policies.conftest import Script, make_spec

Record = Any
CAMERAS = ["front", "wrist"]
SIZE = 128  # pixels each way, what the encoder takes
P, H, RAMP, HELD = ControlMode.POLICY, ControlMode.HUMAN, ControlMode.TRANSITION, ControlMode.PAUSED
_NAMES = ["tool_x", "tool_y", "tool_z", "tool_yaw", "velocity_x", "velocity_y", "hole_x", "hole_y", "to_hole_x", "to_hole_y"]
_UNITS = ["m", "m", "m", "rad", "m/s", "m/s", "m", "m", "m", "m"]
INTO_NEXT = 10  # steps of the next episode that a part ends with


def tool_spec() -> RobotSpec:
    """A robot that has what relative frames need, and a discrete gripper."""
    made = make_spec(observation=len(_NAMES), arm=4, gripper=True, max_steps=60)
    action = msgspec.structs.replace(made.action, names=["x", "y", "z", "yaw", "gripper"], scale=[0.005, 0.005, 0.005, 0.08, 1.0])
    return msgspec.structs.replace(made, action=action, observation=msgspec.structs.replace(made.observation, names=_NAMES, units=_UNITS))


def picture_spec() -> RobotSpec:
    """A robot with a discrete gripper whose policy sees two cameras."""
    return msgspec.structs.replace(make_spec(gripper=True), policy_cameras=CAMERAS)


@cache
def _pictures(place: int) -> list[PolicyImage]:
    """A bright bar whose column says the place (0 to 15), once per camera."""
    made = []
    for i, camera in enumerate(CAMERAS):
        data = np.full((SIZE, SIZE, 3), 30 + 30 * i, np.uint8)
        data[40:90, 6 * place : 6 * place + 24] = 220
        made.append(PolicyImage(camera=camera, height=SIZE, width=SIZE, data=data.tobytes()))
    return made


class Writer:
    """Episodes record by record; everything random comes from ``seed``."""

    def __init__(self, spec: RobotSpec, seed: int = 7) -> None:
        self.script, self.rng = Script(spec), np.random.default_rng(seed)

    def demonstration(self, steps: int = 20) -> list[Record]:
        begun = self.script.start(EpisodeKind.DEMONSTRATION)
        return [begun, *self._steps([(H, 0)] * steps, success=True), self.script.end()]

    def episode(self, steps: int = 30, success: bool = True, **end: Any) -> list[Record]:
        """Two takeovers at random places, the policy's again after each, and in between a hold, after which a new run begins."""
        begun = self.script.start()
        first, second = (int(self.rng.integers(3, 6)) for _ in range(2))
        modes = [(P, 0)] * first + [(RAMP, 0)] * 2 + [(H, 0)] * 4 + [(P, 0)] * 2 + [(HELD, 0)] * 2 + [(P, 1)] * second + [(H, 1)] * 3
        modes += [(P, 1)] * (steps - sum(mode is not HELD for mode, _ in modes))
        outcome = Outcome.SUCCESS if success else Outcome.FAILURE
        return [begun, *self._steps(modes, success), self.script.end(**({"outcome": outcome} | end))]

    def change(self, name: str, outcome: Outcome, event_step: int = 25, source: OutcomeSource = OutcomeSource.OPERATOR) -> OutcomeChange:
        """Of an episode that has ended, as the bridge writes it."""
        self.script.rec_seq += 1
        fields: dict[str, Any] = {"previous": Outcome.SUCCESS, "author": "op-01", "source": source, "wall_ns": self.script.rec_seq}
        number = {"session": self.script.session, "rec_seq": self.script.rec_seq}
        return OutcomeChange(**number, episode_id=name, outcome=outcome, event_step=event_step, **fields)

    def _steps(self, modes: Sequence[tuple[ControlMode, int]], success: bool) -> list[Record]:
        made, interventions, before = [], -1, P
        place = int(self.rng.integers(16))
        for i, (mode, run) in enumerate(modes):
            human = mode in (H, RAMP)
            interventions += human and before not in (H, RAMP)
            before = mode
            changes: dict[str, Any] = {"run_id": run} | self._numbers()
            if human and self.script.kind == EpisodeKind.POLICY:
                changes["intervention_id"] = interventions
            last = i == len(modes) - 1
            if last:
                changes |= {"reward": float(success), "terminated": success, "truncated": not success}
            if self.script.spec.policy_cameras:
                now, place = place, int(self.rng.integers(16))
                changes |= {"images": _pictures(now), "next_images": _pictures(place) if last else []}
            made.append(self.script.step(mode, **changes))
        return made

    def _numbers(self) -> dict[str, Any]:
        spec = self.script.spec
        observation = self.rng.normal(size=spec.observation.size)
        action = np.clip(observation[: spec.action.size] if spec.action.size <= len(observation) else self.rng.normal(size=9), -1, 1)
        action = action[: spec.action.size].copy()
        if spec.action.gripper == "discrete":
            action[-1] = 1.0 if observation[0] > 0.0 else -1.0
        following = observation + 0.1
        return {"observation": observation.tolist(), "next_observation": following.tolist(), "action": action.tolist()}


def rough(spec: RobotSpec, demonstrations: int, episodes: int, steps: int) -> list[Record]:
    """Demonstrations, then episodes of which every third fails, up to the last step of the last one."""
    writer = Writer(spec)
    records = [record for _ in range(demonstrations) for record in writer.demonstration()]
    records += [record for i in range(episodes) for record in writer.episode(steps, success=i % 3 > 0)]
    return records[:-1]


def kept_pictures(episodes: int, steps: int) -> list[Record]:
    """An episode before there is a policy, two demonstrations, then ``episodes``: the encoder has many pictures to encode when it is
    cloned."""
    writer = Writer(picture_spec())
    records = [*writer.episode(steps), *writer.demonstration(12), *writer.demonstration(12)]
    return records + [record for i in range(episodes) for record in writer.episode(steps, success=i % 3 > 0)][:-1]


def changing(parts: int) -> list[list[Record]]:
    """Six episodes in each of ``parts``, with outcomes that come late, are given by people, and are taken back; see `excluded_in`.

    Each part is: a classifier's success, that is vetoed and then holds again; an episode for labels; one without an outcome, that a person
    gives it and takes back; one at its time limit, that is thrown away and counts again; another one for labels; and one that is cut off,
    or discarded. What changes an outcome comes an episode later, in the middle of one that runs. A short part ends it.
    """
    writer = Writer(make_spec())
    made: list[list[Record]] = [[record for _ in range(3) for record in writer.demonstration()]]
    late: list[tuple[str, Outcome, int, OutcomeSource]] = []  # (episode, outcome, event, source) that come with the next episodes

    def add(records: list[Record], keeps_end: bool = True) -> None:
        """An episode, with the change that waits longest in its middle. Numbers follow the stream, so the rest is renumbered."""
        records = records if keeps_end else records[:-1]
        if late:
            name, *rest = late.pop(0)
            middle = len(records) // 2
            change = msgspec.structs.replace(writer.change(name, *rest), rec_seq=records[middle].rec_seq)
            records = [*records[:middle], change, *(msgspec.structs.replace(r, rec_seq=r.rec_seq + 1) for r in records[middle:])]
        writer.script.rec_seq = records[-1].rec_seq
        made[-1] += records

    operator = OutcomeSource.OPERATOR
    for part in range(parts):
        add(writer.episode(outcome_source=OutcomeSource.CLASSIFIER, event_step=25))
        name = writer.script.episode_id
        late += [(name, Outcome.UNKNOWN, 25, operator), (name, Outcome.SUCCESS, 25, OutcomeSource.CLASSIFIER)]
        add(writer.episode())
        add(writer.episode(success=False, outcome=Outcome.UNKNOWN))
        name = writer.script.episode_id
        late += [(name, Outcome.SUCCESS, 20, operator), (name, Outcome.UNKNOWN, 20, operator)]
        add(writer.episode(success=False, outcome_source=OutcomeSource.LIMIT))
        name = writer.script.episode_id
        late += [(name, Outcome.ABORTED, 29, operator), (name, Outcome.FAILURE, 29, OutcomeSource.LIMIT)]
        add(writer.episode())
        if part % 2:
            add(writer.episode(discarded=True))
        else:
            add(writer.episode(), keeps_end=False)
            late.append((writer.script.episode_id, Outcome.FAILURE, 29, operator))
    return _cut_in_mid_episode([*made[0]], parts)


def for_labels(records: Sequence[Record]) -> list[str]:
    """Of a part of `changing`: the episodes that began in it whose outcome nobody changes, which labels may be about, oldest first."""
    starts = [record.episode_id for record in records if type(record).__name__ == "EpisodeStart" and record.kind == EpisodeKind.POLICY]
    return [name for name in starts if (int(name[1:]) - 3) % 6 in (1, 4)]


def _cut_in_mid_episode(records: list[Record], parts: int) -> list[list[Record]]:
    """Behind the first steps of each episode that begins a part; the rest of the last one is the last part."""
    begins = [i for i, record in enumerate(records) if type(record).__name__ == "EpisodeStart" and record.kind == EpisodeKind.POLICY]
    cuts = [0, *(begins[6 * part] + 1 + INTO_NEXT for part in range(1, parts)), begins[-1] + 1 + INTO_NEXT]
    made = [records[first:last] for first, last in itertools.pairwise(cuts)]
    rest = records[cuts[-1] :]
    while rest and getattr(rest[-1], "train_step", -1) < 0:
        rest.pop()
    return [*made, rest]
