"""Replay with pictures: each fault found in other learners' picture buffers has its test here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from takeover.data.episode_build import build_episode
from takeover.data.episode_labels import EpisodeLabels
from takeover.data.episode_read import read_records
from takeover.data.episode_schema import EpisodeRecords
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource, PolicyImage, Step
from takeover.policies.picture_replay import PictureBatch, PictureReplay
from takeover.policies.picture_shift import PAD, shift_all
from takeover.policies.pictures import FramesFull, JpegFrames, RawFrames

SIZE, CAMERAS = 12, ("wrist", "front")


def images(value: int) -> list[PolicyImage]:
    """Flat pictures: ``value`` from the first camera, one more from the second; in the other order, which must not matter."""
    flat = {camera: bytes([value + i]) * (SIZE * SIZE * 3) for i, camera in enumerate(CAMERAS)}
    return [PolicyImage(camera=camera, height=SIZE, width=SIZE, data=flat[camera]) for camera in reversed(CAMERAS)]


class Filler:
    """Steps whose observation is their number and whose picture is ten times that; pictures after a run's last step are 5 more."""

    def __init__(self, replay: PictureReplay, script: Any) -> None:
        self.replay, self.script = replay, script

    def step(self, mode: ControlMode = ControlMode.POLICY, *, last: bool = False, **changes: Any) -> bool:
        value = (10 * (self.script.seq + 1)) % 250
        return self.replay.add(self.script.step(mode, images=images(value), next_images=images(value + 5) if last else [], **changes))

    def episode(self, modes: list[ControlMode], kind: EpisodeKind = EpisodeKind.POLICY, **end: Any) -> str:
        self.replay.begin_episode(self.script.start(kind))
        for i, mode in enumerate(modes):
            self.step(mode, last=i == len(modes) - 1)
        self.replay.end_episode(self.script.end(**end))
        return str(self.script.episode_id)


@pytest.fixture(params=[False, True], ids=["raw", "jpeg"])
def replay(request: pytest.FixtureRequest, make_robot_spec: Callable[..., Any]) -> Iterator[PictureReplay]:
    made = PictureReplay(make_robot_spec(), CAMERAS, height=SIZE, width=SIZE, capacity=1000, compressed=request.param)
    yield made
    made.close()


@pytest.fixture
def fill(replay: PictureReplay, make_script: Callable[..., Any]) -> Filler:
    return Filler(replay, make_script(replay.spec))


def seen(batch: PictureBatch) -> set[tuple[int, int, int]]:
    """(step, value of its picture, value of the picture after it), checked to be the same all over both cameras, to a JPEG's error."""
    found = set()
    for row, now, after in zip(batch.rows, batch.observation.int(), batch.following.int(), strict=True):
        values = []
        for picture in (now, after):
            first = int(picture[0].float().mean().round())
            assert (picture[0] - first).abs().max() <= 2
            assert (picture[1] - first - 1).abs().max() <= 2
            values.append(first)
        found.add((int(row[0]), *values))
    return {(step, 5 * round(now / 5), 5 * round(after / 5)) for step, now, after in found}


def drawn(replay: PictureReplay, count: int = 64, times: int = 3) -> set[tuple[int, int, int]]:
    generator = torch.Generator().manual_seed(0)
    return set().union(*(seen(replay.sample_pictures(count, generator)) for _ in range(times)))


def test_each_frame_is_stored_once_and_the_next_picture_is_the_successors(replay: PictureReplay, fill: Filler) -> None:
    fill.episode([ControlMode.POLICY] * 4)
    assert drawn(replay) == {(0, 0, 10), (1, 10, 20), (2, 20, 30), (3, 30, 35)}
    assert int(replay.frames._numbers.used.sum()) == 5


def test_nothing_is_read_across_the_end_of_an_episode(replay: PictureReplay, fill: Filler) -> None:
    fill.episode([ControlMode.POLICY] * 2)
    fill.episode([ControlMode.POLICY] * 2)
    assert drawn(replay) == {(0, 0, 10), (1, 10, 15), (2, 20, 30), (3, 30, 35)}


@pytest.mark.parametrize("held", [True, False])
def test_nothing_is_read_across_the_end_of_a_run(replay: PictureReplay, fill: Filler, held: bool) -> None:
    replay.begin_episode(fill.script.start())
    fill.step()
    fill.step(last=True)
    if held:
        assert not fill.step(ControlMode.PAUSED)
    fill.step(run_id=1)
    fill.step(run_id=1, last=True)
    replay.end_episode(fill.script.end())
    first = 30 if held else 20  # the first picture of the new run, not the last of the one before
    assert drawn(replay) == {(0, 0, 10), (1, 10, 15), (first // 10, first, first + 10), (first // 10 + 1, first + 10, first + 15)}


def test_a_gap_in_the_numbers_is_no_successor(replay: PictureReplay, fill: Filler) -> None:
    replay.begin_episode(fill.script.start())
    fill.step()
    fill.script.seq += 3
    fill.step(last=True)
    replay.end_episode(fill.script.end())
    assert drawn(replay) == {(4, 40, 45)}
    assert replay.left_out == 1


def test_a_timeout_has_its_own_next_picture_and_bootstraps(replay: PictureReplay, fill: Filler) -> None:
    replay.begin_episode(fill.script.start())
    fill.step()
    fill.step(last=True, truncated=True)
    replay.end_episode(fill.script.end(Outcome.FAILURE, OutcomeSource.LIMIT))
    assert (1, 10, 15) in drawn(replay)
    assert replay.online.rows[:2, replay.columns.mask].tolist() == [1.0, 1.0]


def test_the_last_step_before_a_crash_has_no_next_picture_and_is_left_out(replay: PictureReplay, fill: Filler) -> None:
    replay.begin_episode(fill.script.start())
    fill.step()
    fill.step()
    replay.begin_episode(fill.script.start())
    fill.step(last=True)
    replay.end_episode(fill.script.end())
    assert drawn(replay) == {(0, 0, 10), (2, 20, 25)}
    assert replay.left_out == 1


def test_demonstrations_and_online_pictures_have_one_scale(replay: PictureReplay, fill: Filler) -> None:
    fill.episode([ControlMode.HUMAN] * 3, EpisodeKind.DEMONSTRATION)
    fill.script.seq = -1  # the same pictures again
    fill.episode([ControlMode.POLICY] * 3)
    batch = replay.sample_pictures(64, torch.Generator().manual_seed(0))
    assert batch.observation.dtype == batch.following.dtype == torch.uint8
    for part in (slice(0, batch.demonstrations), slice(batch.demonstrations, 64)):
        assert int(batch.observation[part].max()) in range(19, 24)


def test_pictures_of_floats_are_refused_with_their_place(replay: PictureReplay, fill: Filler) -> None:
    replay.begin_episode(fill.script.start())
    bad = [PolicyImage(camera=c, height=SIZE, width=SIZE, data=np.ones((SIZE, SIZE, 3), np.float32).tobytes()) for c in CAMERAS]
    with pytest.raises(ValueError, match=r"episode e000, step 0, images: camera 'wrist' gives 12x12 in 1728 bytes"):
        replay.add(fill.script.step(images=bad))


def test_a_missing_camera_is_named(replay: PictureReplay, fill: Filler) -> None:
    replay.begin_episode(fill.script.start())
    with pytest.raises(ValueError, match=r"episode e000, step 0, images: no picture of camera 'front'"):
        replay.add(fill.script.step(images=[i for i in images(3) if i.camera == "wrist"]))


def test_excluded_and_trimmed_steps_leave_the_next_batch_and_come_back(replay: PictureReplay, fill: Filler) -> None:
    fill.episode([ControlMode.POLICY] * 3)
    dropped = fill.episode([ControlMode.HUMAN] * 3)
    everything = drawn(replay)
    assert {step for step, _, _ in everything} == {0, 1, 2, 3, 4, 5}
    replay.exclude(dropped)
    assert {step for step, _, _ in drawn(replay)} == {0, 1, 2}
    replay.apply_labels(EpisodeLabels(episode_id=dropped, left_out=((0, 0),)))
    assert drawn(replay) == {entry for entry in everything if entry[0] != 3}
    replay.apply_labels(EpisodeLabels(episode_id=dropped))
    assert drawn(replay) == everything


def test_a_relabelled_outcome_changes_reward_and_end_of_the_next_batch(replay: PictureReplay, fill: Filler) -> None:
    name = fill.episode([ControlMode.POLICY] * 4)
    drawn(replay)
    replay.relabel(name, Outcome.SUCCESS, 2)
    batch = replay.sample_pictures(64, torch.Generator().manual_seed(1))
    ends = {(int(row[0]), float(row[replay.columns.reward]), float(row[replay.columns.mask])) for row in batch.rows}
    assert ends == {(0, 0.0, 1.0), (1, 0.0, 1.0), (2, 1.0, 0.0)}


def test_observation_and_next_are_shifted_each_on_its_own_and_the_same_for_a_seed(make_robot_spec: Any, make_script: Any) -> None:
    batches = []
    for seed in (0, 0, 1):
        replay = PictureReplay(make_robot_spec(), ("a",), height=32, width=32, capacity=100)
        script = make_script(replay.spec)
        replay.begin_episode(script.start())
        picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        same = [PolicyImage(camera="a", height=32, width=32, data=picture.tobytes())]
        replay.add(script.step(images=same, next_images=same))
        replay.end_episode(script.end())
        batches.append(replay.sample_pictures(64, torch.Generator().manual_seed(seed)))
    first, again, other = batches
    assert torch.equal(first.observation, again.observation)
    assert torch.equal(first.following, again.following)
    assert not torch.equal(first.observation, other.observation)
    different = sum(not torch.equal(a, b) for a, b in zip(first.observation, first.following, strict=True))
    assert different > 55


@pytest.mark.parametrize("width", [9, 12, 13, 16, 128])  # rows that are whole words of four bytes, and others
def test_a_shift_is_a_crop_of_the_picture_padded_with_its_edges(width: int) -> None:
    each = np.array([(down, right) for down in range(-PAD, PAD + 1) for right in range(-PAD, PAD + 1)])
    rng = np.random.default_rng(1)
    shifts = rng.permutation(np.concatenate([each, each, each[:7]]))
    frames = rng.integers(0, 256, (len(shifts), 2, 11, width, 3), np.uint8)
    before, out = frames.copy(), np.full_like(frames, 77)
    shift_all(frames, shifts, out)
    assert np.array_equal(frames, before)
    padded = np.pad(frames, ((0, 0), (0, 0), (PAD, PAD), (PAD, PAD), (0, 0)), mode="edge")
    for found, frame, (down, right) in zip(out, padded, shifts, strict=True):
        assert np.array_equal(found, frame[:, PAD + down : PAD + down + 11, PAD + right : PAD + right + width]), (down, right)


@pytest.mark.parametrize("kind", [RawFrames, JpegFrames])
def test_freed_frames_are_used_again_and_a_full_store_says_so(kind: Callable[..., Any]) -> None:
    frames = kind((1, 16, 16, 3), 300)  # more than one block
    for i in range(300):
        assert frames.put(np.full((1, 16, 16, 3), i % 256, np.uint8)) == i
    with pytest.raises(FramesFull, match="all 300 frames"):
        frames.put(np.zeros((1, 16, 16, 3), np.uint8))
    kept = np.ones(300, np.bool_)
    kept[[7, 270]] = False
    before = frames.used_bytes
    assert frames.free(kept) == 2
    assert frames.used_bytes < before
    assert {frames.put(np.full((1, 16, 16, 3), 99, np.uint8)) for _ in range(2)} == {7, 270}
    out = np.empty((3, 1, 16, 16, 3), np.uint8)
    frames.copy(np.array([7, 8, 270]), np.zeros((3, 2), np.int64), out)
    assert np.abs(out.mean(axis=(1, 2, 3, 4)) - [99, 8, 99]).max() < 2


def test_when_room_runs_out_the_oldest_online_rows_go_and_demonstrations_stay(make_robot_spec: Any, make_script: Any) -> None:
    replay = PictureReplay(make_robot_spec(), CAMERAS, height=SIZE, width=SIZE, capacity=40)
    fill = Filler(replay, make_script(replay.spec))
    fill.episode([ControlMode.HUMAN] * 10, EpisodeKind.DEMONSTRATION)
    for _ in range(12):
        fill.episode([ControlMode.POLICY] * 9)
    steps = {step for step, _, _ in drawn(replay, 64, 20)}
    assert set(range(10)) <= steps
    assert max(steps) == 10 + 12 * 9 - 1
    assert 10 not in steps
    assert all(now == (10 * step) % 250 for step, now, _ in drawn(replay, 64, 20))


@pytest.mark.parametrize("compressed", [False, True])
def test_bytes_are_bounded_and_the_oldest_go_with_their_corrections(make_robot_spec: Any, make_script: Any, compressed: bool) -> None:
    one = PictureReplay(make_robot_spec(), CAMERAS, height=SIZE, width=SIZE, capacity=1000, compressed=compressed)
    Filler(one, make_script(one.spec)).episode([ControlMode.POLICY])
    most = 15 * one.frames.used_bytes  # two frames each
    replay = PictureReplay(make_robot_spec(), CAMERAS, height=SIZE, width=SIZE, capacity=1000, compressed=compressed, most_bytes=most)
    fill = Filler(replay, make_script(replay.spec))
    fill.episode([ControlMode.HUMAN] * 5, EpisodeKind.DEMONSTRATION)
    held, stays = fill.episode([ControlMode.HUMAN] * 5), range(5)
    for _ in range(12):
        replay.exclude(fill.episode([ControlMode.POLICY] * 2))
        fill.episode([ControlMode.POLICY] * 2)
        assert replay.frames.used_bytes <= most
    steps = {step for step, _, _ in drawn(replay, 64, 20)}
    assert set(stays) <= steps
    assert max(steps) == 5 + 5 + 12 * 4 - 1
    keys = {*replay.online.episode[: replay.online.size].tolist(), *replay.demonstrations.episode[: replay.demonstrations.size].tolist()}
    assert replay._keys[held] not in keys, "in neither buffer, though a person drove"
    assert len(list(replay._labelled.rows_out())) < 24
    one.close()
    replay.close()


def test_demonstrations_alone_beyond_the_capacity_are_an_error(make_robot_spec: Any, make_script: Any) -> None:
    replay = PictureReplay(make_robot_spec(), CAMERAS, height=SIZE, width=SIZE, capacity=20)
    fill = Filler(replay, make_script(replay.spec))
    with pytest.raises(FramesFull, match="belong to demonstrations; give the replay a larger capacity"):
        fill.episode([ControlMode.HUMAN] * 60, EpisodeKind.DEMONSTRATION)


def test_batches_follow_the_seed_also_when_they_are_decoded_ahead(replay: PictureReplay, fill: Filler) -> None:
    fill.episode([ControlMode.HUMAN] * 20, EpisodeKind.DEMONSTRATION)
    fill.episode([ControlMode.POLICY] * 20)

    def draw() -> list[torch.Tensor]:
        replay._forget_plan()
        generator = torch.Generator().manual_seed(4)
        batches = [replay.sample_pictures(count, generator) for count in (8, 8, 16, 8)]
        assert [len(batch.observation) for batch in batches] == [8, 8, 16, 8]
        generator.manual_seed(5)
        replay._forget_plan()
        return [part.clone() for _ in range(4) for part in replay.sample_pictures(8, generator)[2:]]

    first, again = draw(), draw()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[2])


def test_a_correction_drawn_ahead_but_thrown_away_is_not_counted_as_used(make_robot_spec: Any, make_script: Any) -> None:
    replay = PictureReplay(make_robot_spec(), CAMERAS, height=SIZE, width=SIZE, capacity=1000, compressed=True)
    fill = Filler(replay, make_script(replay.spec))
    generator = torch.Generator().manual_seed(0)
    fill.episode([ControlMode.POLICY] * 3)
    replay.sample_pictures(8, generator)
    replay.begin_episode(fill.script.start())
    fill.step(ControlMode.HUMAN)
    fill.step(ControlMode.HUMAN)
    replay.sample_pictures(8, generator)  # was drawn before the correction; the next one, drawn now, holds it
    assert replay.corrections_used() == [("e001", 0)]
    replay.close()


def test_a_replay_from_the_store_is_the_one_that_was_filled_live(tmp_path: Path, make_robot_spec: Any, make_script: Any) -> None:
    live = PictureReplay(make_robot_spec(), CAMERAS, height=SIZE, width=SIZE, capacity=100)
    script = make_script(live.spec)
    start, steps = script.start(), []
    for i, mode in enumerate([ControlMode.POLICY, ControlMode.HUMAN, ControlMode.PAUSED, ControlMode.POLICY, ControlMode.POLICY]):
        last = i in (1, 2, 4)
        number = script.seq + 1
        steps.append(
            script.step(
                mode,
                run_id=i // 3,
                observation=[float(number)] * 3,
                next_observation=[float(number + 1)] * 3,
                images=images(10 * i),
                next_images=images(10 * i + 5) if last else [],
            )
        )
    end = script.end()
    (tmp_path / "e.hdf5").write_bytes(build_episode(EpisodeRecords(start, steps, end=end)))
    stored_start, stored_steps, stored_end = read_records(tmp_path / "e.hdf5", images=True)
    assert stored_steps == steps
    rebuilt = PictureReplay(live.spec, CAMERAS, height=SIZE, width=SIZE, capacity=100)
    for replay, (first, records, final) in ((live, (start, steps, end)), (rebuilt, (stored_start, stored_steps, stored_end))):
        replay.begin_episode(first)
        for step in records:
            assert isinstance(step, Step)
            replay.add(step)
        replay.end_episode(final)
    one, other = (replay.sample_pictures(32, torch.Generator().manual_seed(2)) for replay in (live, rebuilt))
    assert all(
        torch.equal(a, b) for a, b in ((one.rows, other.rows), (one.observation, other.observation), (one.following, other.following))
    )
    assert live.online.size == 4
    assert live.left_out == rebuilt.left_out == 0
