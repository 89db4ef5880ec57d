"""Absorption: does a version act closer to what the person did, on the observations of each correction, than the version that acted?

What a correction is, and which there are, is in `recorded_corrections`. Both policies are asked at the recorded observations,
deterministic, with the history of the run up to there; one that sees pictures, at the pictures that are stored of the step, and a step
without them is left out for both. The distance is that of the continuous action, |a_policy - a_person| in canonical units (1 is the
largest command of one axis); a discrete gripper is counted on its own, as the share of steps with another command.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from takeover.data.schema import RobotSpec
from takeover.policies.base import Policy, PolicyRefused, SeesPictures
from takeover.policies.frames import begin_episode
from takeover.policies.gripper_cost import gripper_index
from takeover.policies.inference import split_action
from takeover.policies.publish import LoadedPolicy, load_for
from takeover.policies.recorded_corrections import Correction, Doubles, Steps
from takeover.policies.recorded_pictures import RecordedPictures

BLOCK = 5
"""Steps that are drawn together where an interval of a segment is made: neighbouring steps are alike."""
Closeness = Literal["closer", "not shown", "farther"]
Progress = Callable[[int, int], bool]


class AbsorptionCancelled(RuntimeError):
    """Asked to stop; nothing was kept but retests that were finished."""


@dataclass(frozen=True)
class Distance:
    """Per segment. ``before`` and ``after``: mean distance of the version that acted and of the new one; ``interval``: 95 % of after -
    before, by a bootstrap over blocks of steps; ``gripper_before`` and ``gripper_after``: share of other commands, None without one.
    ``without_picture``: steps that were left out of ``n``, since a policy needs pictures that are not there."""

    correction: Correction
    n: int
    before: float
    after: float
    interval: tuple[float, float]
    gripper_before: float | None
    gripper_after: float | None
    without_picture: int = 0

    @property
    def verdict(self) -> Closeness:
        """closer or farther where the interval leaves 0 out."""
        return "closer" if self.interval[1] < 0.0 else "farther" if self.interval[0] > 0.0 else "not shown"


def asked(
    policies: Sequence[Policy], correction: Correction, pictures: RecordedPictures, on_step: Callable[[], None]
) -> tuple[Steps, list[Doubles]]:
    """(n,) steps of the correction at which all ``policies`` can be asked, and (n, A) what each would do there.

    Where one sees pictures, only those of the correction's steps are read, ``on_step`` is called before each. Raises `ValueError` naming
    the correction, where its file cannot be opened or a picture has another size than a policy needs.
    """
    seeing = [policy for policy in policies if isinstance(policy, SeesPictures)]
    cameras = list(dict.fromkeys(camera for policy in seeing for camera in policy.cameras))
    if not seeing:
        return correction.steps, [actions_of(policy, correction, correction.steps) for policy in policies]
    kept: list[int] = []
    made: list[list[Doubles]] = [[] for _ in policies]
    for step in correction.steps.tolist():
        on_step()
        try:
            images = pictures.of(correction.path, step, cameras)
            if images is None:
                continue
            for policy, actions in zip(policies, made, strict=True):
                if isinstance(policy, SeesPictures):
                    policy.look(images)
                    actions.append(policy.act(correction.observations[step], sample=False).actions[0].astype(np.float64))
        except (OSError, ValueError) as error:
            raise ValueError(f"correction {correction.name}, step {step}: {error}") from error
        kept.append(step)
    if not kept:
        none = f"none of its {len(correction.steps)} steps has pictures of {', '.join(cameras)}"
        raise ValueError(f"correction {correction.name}: {none}")
    steps = np.array(kept, np.int64)
    said = zip(policies, made, strict=True)
    return steps, [np.array(own) if isinstance(policy, SeesPictures) else actions_of(policy, correction, steps) for policy, own in said]


def actions_of(policy: Policy, correction: Correction, steps: Steps) -> Doubles:
    """(n, A) what a policy would do at ``steps``: deterministic, its history that of the run up to each of them."""
    wanted = set(steps.tolist())
    made: list[Doubles] = []
    run = None
    for index in range(int(steps[-1]) + 1):
        if correction.run[index] != run:
            if run is None:
                begin_episode(policy, correction.observations[0])
            policy.reset()
            run = correction.run[index]
        decision = policy.act(correction.observations[index], sample=False)
        if index in wanted:
            made.append(decision.actions[0].astype(np.float64))
    return np.array(made)


def block_interval(values: Doubles, *, block: int = BLOCK, resamples: int = 1000, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean of ``values`` (n,) when blocks of neighbours are drawn again, around the end; a function of its
    input. (-inf, inf) for fewer than two blocks: nothing can be said of so few."""
    n = len(values)
    if n < 2 * block:
        return -math.inf, math.inf
    starts = np.random.default_rng(0).integers(0, n, (resamples, -(-n // block)))
    index = (starts[:, :, None] + np.arange(block)).reshape(resamples, -1)[:, :n] % n
    low, high = np.quantile(values[index].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def distance(
    spec: RobotSpec,
    old: Policy,
    new: Policy,
    correction: Correction,
    pictures: RecordedPictures,
    on_step: Callable[[], None] = lambda: None,
) -> Distance:
    """Both policies against what the person did. Raises as `asked`, and `ValueError` naming the step where an action is not finite."""
    arm, gripper = split_action(spec)
    steps, answers = asked((old, new), correction, pictures, on_step)
    person = correction.actions[steps]
    off: list[Doubles] = []
    other: list[float | None] = []
    for said in answers:
        bad = np.flatnonzero(~np.isfinite(said - person).all(1))
        if len(bad):
            raise ValueError(f"correction {correction.name}, step {steps[bad[0]]}: an action is not finite")
        off.append(np.linalg.norm(said[:, arm] - person[:, arm], axis=1))
        wrong = [gripper_index(a) != gripper_index(b) for a, b in zip(said[:, gripper], person[:, gripper], strict=True)]
        other.append(float(np.mean(wrong)) if gripper >= 0 else None)
    interval = block_interval(off[1] - off[0])
    left_out = len(correction.steps) - len(steps)
    return Distance(correction, len(steps), float(off[0].mean()), float(off[1].mean()), interval, other[0], other[1], left_out)


def distances(
    workspace: Path,
    new: LoadedPolicy,
    spec: RobotSpec,
    corrections: Sequence[Correction],
    problems: list[str],
    on_progress: Progress | None,
) -> Iterator[tuple[Distance, LoadedPolicy]]:
    """Each correction's distances and the policy that acted; versions that cannot be loaded are named in ``problems``.

    Raises `AbsorptionCancelled` when ``on_progress(done, total)`` returns False: it is called after each correction, and before each
    step whose pictures are looked at.
    """
    loaded: dict[int, LoadedPolicy | None] = {}
    done, total = 0, len(corrections)

    def go_on() -> None:
        if on_progress is not None and not on_progress(done, total):
            raise AbsorptionCancelled(f"stopped after {done} of {total} corrections")

    with RecordedPictures() as pictures:
        for correction in corrections:
            if correction.acted not in loaded:
                try:
                    loaded[correction.acted] = load_for(workspace, correction.acted, spec)
                except PolicyRefused as error:
                    loaded[correction.acted] = None
                    problems.append(f"version {correction.acted}, which acted: {error}")
            old = loaded[correction.acted]
            if old is not None:
                try:
                    yield distance(spec, old.policy, new.policy, correction, pictures, go_on), old
                except ValueError as error:
                    problems.append(str(error))
            done += 1
            go_on()
