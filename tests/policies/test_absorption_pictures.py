"""Absorption of policies that see pictures: real weights at the pictures of real episode files, and what is left out."""

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np
import pytest

from takeover.app.commands.policy_absorb import lines
from takeover.data.catalog import Catalog
from takeover.data.entry import entry_of
from takeover.data.episode_build import DEMO
from takeover.data.episode_file import EpisodeReader, write_episode
from takeover.data.episode_schema import EpisodeRecords
from takeover.data.hdf5_image import USER_BLOCK_BYTES, seal
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, PolicyImage, RobotSpec, Step
from takeover.data.workspace import Workspace
from takeover.policies.absorb import absorb
from takeover.policies.absorption import AbsorptionCancelled, asked, distance
from takeover.policies.absorption_file import FILE, SegmentAbsorption, read_absorption
from takeover.policies.base import Decision, PolicyWeights, SeesPictures
from takeover.policies.manifest import read_manifest, version_folder
from takeover.policies.publish import load_for, make_manifest, publish, weights_bytes
from takeover.policies.recorded_corrections import Correction, find_corrections
from takeover.policies.recorded_pictures import RecordedPictures
from takeover.policies.registry import make_learner

CAMERAS, SIZE, PERSON = ["front", "wrist"], 128, [0.3, 1.0]
SETTINGS: dict[str, Any] = {
    **{"observations": "pictures", "camera_features": 8, "crops": 2, "encoder_updates": 8, "encoder_batch": 8, "hidden": 16},
    **{"batch": 16, "clone_updates": 20, "critic_warmup": 5, "learning_starts": 2, "keep_warm_start": False},
}
P, H = ControlMode.POLICY, ControlMode.HUMAN


def images(place: int, cameras: Sequence[str] = CAMERAS, size: int = SIZE) -> list[PolicyImage]:
    """A bright bar at column ``place``, of another brightness in each camera."""
    made = []
    for i, camera in enumerate(cameras):
        data = np.full((size, size, 3), 30 + 40 * i, np.uint8)
        data[: size // 2, place % size : place % size + 16] = 220
        made.append(PolicyImage(camera=camera, height=size, width=size, data=data.tobytes()))
    return made


def cloned(spec: RobotSpec, script: Any, seed: int) -> PolicyWeights:
    """Weights of the real learner after cloning two short demonstrations."""
    learner = make_learner("hil-serl", spec, seed, SETTINGS)
    for _ in range(2):
        learner.begin_episode(script.start(EpisodeKind.DEMONSTRATION))
        for i in range(6):
            after = images(20 * i + 20) if i == 5 else []
            learner.ingest([script.step(H, images=images(20 * i), next_images=after, action=[0.15 * i - 0.4, 1.0])])
        learner.end_episode(script.end())
    for _ in learner.clone_demonstrations():
        pass
    return learner.weights()


def put(place: Workspace, spec: RobotSpec, version: int, weights: PolicyWeights) -> None:
    data = weights_bytes(weights)
    made = make_manifest(weights, data, spec, version=version, parent=version - 1, learner="hil-serl", swap="step")
    publish(place.path, made, data)


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """Weights, made once for all tests."""
    return {}


@pytest.fixture
def spec(make_robot_spec: Callable[..., RobotSpec]) -> RobotSpec:
    return msgspec.structs.replace(make_robot_spec(arm=1, gripper=True), policy_cameras=CAMERAS)


@pytest.fixture
def place(tmp_path: Path, spec: RobotSpec, make_script: Callable[..., Any], known: dict[str, Any]) -> Workspace:
    """Two versions that see the pictures of both cameras."""
    made = Workspace(tmp_path / "ws").prepare()
    for version in (1, 2):
        if version not in known:
            known[version] = cloned(spec, make_script(spec), version)
        put(made, spec, version, known[version])
    return made


def record(place: Workspace, script: Any, pictures: Sequence[list[PolicyImage]], human: range) -> tuple[list[Step], Path]:
    """An episode of version 1 with the pictures of each step and a person in the steps ``human``."""
    start = script.start()
    steps = []
    for i, seen in enumerate(pictures):
        drives = i in human
        changes = {"action": PERSON} if drives else {}
        number = 0 if drives else -1
        mode = H if drives else P
        steps.append(script.step(mode, images=seen, observation=[0.01 * i] * 3, intervention_id=number, policy_version=1, **changes))
    end = script.end(Outcome.SUCCESS, takeovers=1, human_steps=len(human), autonomous=False)
    episode = EpisodeRecords(start=start, steps=steps, end=end)
    path, digest, size = write_episode(place, episode)
    entry = entry_of(episode, path.relative_to(place.path).as_posix(), digest, size)
    with Catalog.open(place) as catalog:
        catalog.add_episode(entry.session, entry.episode, entry.segments)
    return steps, path


def by_hand(place: Workspace, spec: RobotSpec, version: int, steps: Sequence[Step]) -> float:
    """Mean distance of a version from what the person did, asked as the actor asks it."""
    policy = load_for(place.path, version, spec).policy
    assert isinstance(policy, SeesPictures)
    off = []
    for step in steps:
        policy.look(step.images)
        off.append(abs(float(policy.act(np.asarray(step.observation, np.float32), sample=False).actions[0, 0]) - PERSON[0]))
    return float(np.mean(off))


def only(place: Workspace, spec: RobotSpec) -> SegmentAbsorption:
    made = absorb(place, 2, spec)
    assert made.problems == []
    (segment,) = made.segments
    return segment


def the_correction(place: Workspace) -> Correction:
    (found,) = find_corrections(place, read_manifest(version_folder(place.path, 2))).corrections
    return found


def test_it_is_measured_at_the_pictures_that_were_seen(place: Workspace, spec: RobotSpec, make_script: Any) -> None:
    steps, _ = record(place, make_script(spec), [images(6 * i) for i in range(18)], range(4, 16))
    segment = only(place, spec)
    assert (segment.n, segment.without_picture) == (12, 0)
    assert segment.before == pytest.approx(by_hand(place, spec, 1, steps[4:16]), abs=1e-6)
    assert segment.after == pytest.approx(by_hand(place, spec, 2, steps[4:16]), abs=1e-6)
    assert abs(segment.before - segment.after) > 1e-3  # two policies
    assert abs(segment.before - by_hand(place, spec, 1, steps[3:15])) > 1e-6  # the pictures of these very steps
    kept = read_absorption(place.path, 2)
    assert kept is not None
    assert (kept.totals["segments"], kept.totals["steps"], kept.without_picture) == (1, 12, 0)
    assert not any("left out" in line for line in lines(kept))


def test_a_step_without_a_picture_is_left_out_and_counted(place: Workspace, spec: RobotSpec, make_script: Any) -> None:
    seen = [images(6 * i) for i in range(18)]
    seen[5] = []
    seen[9] = images(54, ["front"])  # one of the two
    steps, _ = record(place, make_script(spec), seen, range(4, 16))
    segment = only(place, spec)
    there = [steps[i] for i in range(4, 16) if i not in (5, 9)]
    assert (segment.n, segment.without_picture) == (10, 2)
    assert segment.before == pytest.approx(by_hand(place, spec, 1, there), abs=1e-6)
    assert segment.after == pytest.approx(by_hand(place, spec, 2, there), abs=1e-6)
    kept = read_absorption(place.path, 2)
    assert kept is not None
    assert kept.without_picture == 2
    assert "2 steps left out: a picture that a policy needs is not stored or cannot be read" in lines(kept)


def test_a_picture_that_cannot_be_read_is_left_out_and_counted(place: Workspace, spec: RobotSpec, make_script: Any) -> None:
    steps, path = record(place, make_script(spec), [images(6 * i) for i in range(18)], range(4, 16))
    with EpisodeReader(path) as reader:
        row = int(reader.column("frame_index")[7])
    with h5py.File(path) as file:
        stored = file[f"{DEMO}/hil/frames/wrist"].id.read_direct_chunk((row, 0, 0, 0))[1]
    data = bytearray(path.read_bytes())
    at = data.index(stored)
    data[at + len(stored) // 2] ^= 0xFF
    path.write_bytes(seal(bytes(data[USER_BLOCK_BYTES:])))  # as a disk would that answers otherwise the second time
    segment = only(place, spec)
    assert (segment.n, segment.without_picture) == (11, 1)
    assert segment.before == pytest.approx(by_hand(place, spec, 1, [*steps[4:7], *steps[8:16]]), abs=1e-6)


def test_a_correction_without_any_picture_is_named(place: Workspace, spec: RobotSpec, make_script: Any) -> None:
    record(place, make_script(spec), [images(6 * i, ["front"]) for i in range(9)], range(4, 8))
    made = absorb(place, 2, spec)
    assert (made.segments, made.problems) == ([], ["correction e000:0: none of its 4 steps has pictures of front, wrist"])


def test_pictures_of_another_size_are_named(place: Workspace, spec: RobotSpec, make_script: Any) -> None:
    record(place, make_script(spec), [images(6 * i, size=64) for i in range(9)], range(4, 8))
    made = absorb(place, 2, spec)
    (problem,) = made.problems
    assert made.segments == []
    assert problem.startswith("correction e000:0, step 4: observation: camera 'front' gives 64x64")


def test_a_file_that_was_damaged_meanwhile_is_named(place: Workspace, spec: RobotSpec, make_script: Any) -> None:
    _, path = record(place, make_script(spec), [images(6 * i) for i in range(9)], range(4, 8))
    correction = the_correction(place)
    old, new = (load_for(place.path, version, spec).policy for version in (1, 2))
    path.write_bytes(path.read_bytes()[:-1])
    with RecordedPictures() as pictures, pytest.raises(ValueError, match=r"correction e000:0, step 4: .*SHA-256 is"):
        distance(spec, old, new, correction, pictures)
    path.unlink()
    with RecordedPictures() as pictures, pytest.raises(ValueError, match="correction e000:0, step 4: no episode file"):
        distance(spec, old, new, correction, pictures)


def test_nothing_but_the_pictures_of_the_correction_is_read_one_step_at_a_time(
    place: Workspace, spec: RobotSpec, make_script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(place, make_script(spec), [images(i) for i in range(60)], range(10, 50))
    read: list[int] = []
    read_one = EpisodeReader.policy_images

    def counted(reader: EpisodeReader, step: int, cameras: Sequence[str]) -> list[PolicyImage]:
        read.append(step)
        return read_one(reader, step, cameras)

    monkeypatch.setattr(EpisodeReader, "policy_images", counted)
    monkeypatch.setattr("takeover.data.episode_read._policy_images", None)  # what reads whole episodes with their pictures
    correction = the_correction(place)
    old, new = (load_for(place.path, version, spec).policy for version in (1, 2))
    with RecordedPictures() as pictures:
        distance(spec, old, new, correction, pictures)
        assert read == list(range(10, 50))
        tracemalloc.start()
        distance(spec, old, new, correction, pictures)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    one_step = len(CAMERAS) * SIZE * SIZE * 3
    assert peak < 10 * one_step  # of 40


def test_it_stops_between_two_steps_and_keeps_nothing(place: Workspace, spec: RobotSpec, make_script: Any) -> None:
    record(place, make_script(spec), [images(i) for i in range(40)], range(2, 38))
    said: list[tuple[str, int, int]] = []

    def on_progress(what: str, done: int, total: int) -> bool:
        said.append((what, done, total))
        return len(said) < 3

    with pytest.raises(AbsorptionCancelled, match="stopped after 0 of 1 corrections"):
        absorb(place, 2, spec, on_progress=on_progress)
    assert said == [("distances", 0, 1)] * 3
    assert not (version_folder(place.path, 2) / FILE).exists()


# --- with policies that see nothing ---


class Blind:
    """Remembers what it saw since its last reset."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.asked: list[list[float]] = []

    def reset(self) -> None:
        self.seen = []

    def act(self, observation: Any, *, sample: bool, generator: Any = None) -> Decision:
        assert not sample
        self.seen.append(round(float(observation[0]), 2))
        self.asked.append(list(self.seen))
        return Decision(np.zeros((1, 2), np.float32))


class Seeing(Blind):
    """Looks through one camera."""

    cameras = ("wrist",)

    def look(self, given: Sequence[PolicyImage]) -> None:
        assert "wrist" in [image.camera for image in given]


def test_both_versions_are_asked_at_the_same_steps_and_history_is_the_whole_run(
    place: Workspace, spec: RobotSpec, make_script: Any
) -> None:
    seen = [images(i) for i in range(10)]
    seen[6] = images(6, ["front"])
    record(place, make_script(spec), seen, range(5, 8))
    correction = the_correction(place)
    blind, seeing, calls = Blind(), Seeing(), []
    with RecordedPictures() as pictures:
        steps, (first, second) = asked((blind, seeing), correction, pictures, lambda: calls.append(1))
        assert steps.tolist() == [5, 7]
        assert (first.shape, second.shape, len(calls)) == ((2, 2), (2, 2), 3)
        assert blind.asked[5] == [0.0, 0.01, 0.02, 0.03, 0.04, 0.05]
        assert blind.asked[-1][-1] == 0.07
        assert [one[-1] for one in seeing.asked] == [0.05, 0.07]
        steps, _ = asked((blind, Blind()), correction, pictures, lambda: calls.append(1))
    assert (steps.tolist(), len(calls)) == ([5, 6, 7], 3)  # nobody looks: no step is left out
