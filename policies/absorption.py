"""Absorption: does a version act closer to what the person did, on the observations of each correction, than the version that acted?

What a correction is, and which there are, is in `recorded_corrections`. Both policies are asked at the recorded observations,
deterministic, with the history of the run up to there; one that sees pictures, at the pictures that are stored of the step, and a step
without them is left out for both. The distance is that of the continuous action, |a_policy - a_person| in canonical units (1 is the
largest command of one axis); a discrete gripper is counted on its own, as the share of steps with another command.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from takeover.data.schema import RobotSpec
from takeover.policies.base import LooksBack, Policy, PolicyRefused, SeesPictures
from takeover.policies.frames import begin_episode
from takeover.policies.gripper_cost import gripper_index
from takeover.policies.inference import split_action
from takeover.policies.manifest import read_manifest, version_folder
from takeover.policies.publish import LoadedPolicy, load_for
from takeover.policies.recorded_corrections import Correction, Doubles, Steps
from takeover.policies.recorded_episodes import Answer, AnswerKey
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
    """(n, A) what a policy would do at ``steps``: deterministic, its history that of the run up to each of them.

    One that says how far it looks back (`LooksBack`) is asked at these observations alone."""
    wanted, needed = set(steps.tolist()), _needed(policy, correction, steps)
    made: list[Doubles] = []
    before = None
    for index in np.flatnonzero(needed).tolist():
        if before is None:
            begin_episode(policy, correction.observations[0])
        if before is None or before != index - 1 or correction.run[before] != correction.run[index]:
            policy.reset()
        before = index
        decision = policy.act(correction.observations[index], sample=False)
        if index in wanted:
            made.append(decision.actions[0].astype(np.float64))
    return np.array(made)


def _needed(policy: Policy, correction: Correction, steps: Steps) -> npt.NDArray[np.bool_]:
    """(N,) which observations decide what a policy does at ``steps``."""
    history = policy.history if isinstance(policy, LooksBack) else None
    needed = np.zeros(len(correction.run), np.bool_)
    if history is None:
        needed[: steps[-1] + 1] = True
        return needed
    for back in range(history):
        before = steps[steps >= back] - back
        needed[before[correction.run[before] == correction.run[before + back]]] = True
    return needed


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
    old: Policy | Answer,
    new: Policy,
    correction: Correction,
    pictures: RecordedPictures,
    on_step: Callable[[], None] = lambda: None,
    keep: Callable[[Answer], None] = lambda answer: None,
) -> Distance:
    """Both policies against what the person did. ``old``: the one that acted, or what it answered before; ``keep`` is given its answer.

    Raises as `asked`, and `ValueError` naming the step where an action is not finite."""
    arm, gripper = split_action(spec)
    if isinstance(old, tuple):
        steps, answers = _beside(old, new, correction, pictures, on_step)
    else:
        steps, answers = asked((old, new), correction, pictures, on_step)
        keep((steps, answers[0]))
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


def _beside(
    old: Answer, new: Policy, correction: Correction, pictures: RecordedPictures, on_step: Callable[[], None]
) -> tuple[Steps, list[Doubles]]:
    """As `asked`, where only the new one is asked: at the steps at which the old one was."""
    steps, (said,) = asked((new,), replace(correction, steps=old[0]), pictures, on_step)
    return steps, [old[1][np.isin(old[0], steps)], said]


class ActedVersions:
    """The versions that acted, loaded when they are asked for; one that cannot be is named once in ``problems``."""

    def __init__(self, workspace: Path, spec: RobotSpec, problems: list[str]) -> None:
        self._workspace, self._spec, self._problems = workspace, spec, problems
        self._loaded: dict[int, LoadedPolicy | None] = {}

    def get(self, version: int) -> LoadedPolicy | None:
        if version not in self._loaded:
            try:
                self._loaded[version] = load_for(self._workspace, version, self._spec)
            except PolicyRefused as error:
                self._refused(version, error)
        return self._loaded[version]

    def known(self, correction: Correction, beside: tuple[str, ...]) -> tuple[AnswerKey | None, Answer | None]:
        """(as what to keep the acted version's answer to a correction, the one that is kept); ``beside``: cameras of the new policy."""
        try:
            sha256 = read_manifest(version_folder(self._workspace, correction.acted)).sha256
        except PolicyRefused:
            return None, None  # `get` says so
        key = sha256, correction.steps.tobytes(), beside
        kept, answer = correction.answers.get(correction.number, (None, None))
        return key, answer if kept == key else None

    def _refused(self, version: int, error: PolicyRefused) -> None:
        self._loaded[version] = None
        self._problems.append(f"version {version}, which acted: {error}")


def distances(
    new: LoadedPolicy,
    spec: RobotSpec,
    corrections: Sequence[Correction],
    acted: ActedVersions,
    problems: list[str],
    on_progress: Progress | None,
) -> Iterator[Distance]:
    """Each correction's distances. A version that acted is loaded only where its answer is not kept with the correction.

    Raises `AbsorptionCancelled` when ``on_progress(done, total)`` returns False: it is called after each correction, and before each
    step whose pictures are looked at.
    """
    done, total = 0, len(corrections)
    cameras = tuple(new.policy.cameras) if isinstance(new.policy, SeesPictures) else ()

    def go_on() -> None:
        if on_progress is not None and not on_progress(done, total):
            raise AbsorptionCancelled(f"stopped after {done} of {total} corrections")

    with RecordedPictures() as pictures:
        for correction in corrections:
            key, answer = acted.known(correction, cameras)
            loaded = acted.get(correction.acted) if answer is None else None

            def keep(given: Answer, correction: Correction = correction, key: AnswerKey | None = key) -> None:
                if key is not None:
                    correction.answers[correction.number] = key, given

            old = answer if answer is not None else loaded.policy if loaded is not None else None
            if old is not None:
                try:
                    yield distance(spec, old, new.policy, correction, pictures, go_on, keep)
                except ValueError as error:
                    problems.append(str(error))
            done += 1
            go_on()
