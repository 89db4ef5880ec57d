"""Replay with pictures: a frame is stored once, a transition holds the numbers of the one it saw and the one after it.

The numbers are two more columns of `CorrectionReplay`'s rows, so everything that labels do to a row they do to its pictures. A step
waits for its successor before it counts, since that brings the picture after it; the last step of a run brings its own
(`Step.next_images`). A step that has neither, as the last one before a crash, is left out. Frames that no row holds any more, not even
one that labels keep out, are given up when room is needed; then the oldest episodes go with their rows, corrections too, never what a
person showed in a demonstration.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import EpisodeEnd, EpisodeStart, Outcome, PolicyImage, RobotSpec, Step
from takeover.policies.picture_shift import PAD, Pixels
from takeover.policies.pictures import UNBOUNDED, Frames, FramesFull, JpegFrames, RawFrames
from takeover.policies.replay import CorrectionReplay
from takeover.policies.step_authority import is_held

OBSERVED, AFTER = -2, -1  # columns of a row: number of the frame that was seen, and of the one after the step


class PictureBatch(NamedTuple):
    """A batch; the pictures are buffers that the next call of `PictureReplay.sample_pictures` overwrites."""

    rows: torch.Tensor  # (n, width) float32
    demonstrations: int  # how many of the first rows are to imitate
    observation: torch.Tensor  # (n, cameras, H, W, 3) uint8, 0..255
    following: torch.Tensor  # the same after the step, shifted on its own


class PictureReplay(CorrectionReplay):
    """`CorrectionReplay` for the policy's cameras, in this order, ``height`` x ``width`` pixels each.

    ``compressed``: keep JPEGs, and decode the next batch in a thread while this one is learned from; that batch was drawn with this one, so
    what was ingested since is not in it, but it is drawn again when labels changed. For the same reason a learner that goes on from a
    checkpoint draws other batches than one that was never stopped, unless it asks for the last batch before it stops with ``more`` off.

    ``most_bytes``: what the stored frames may take; while what a checkpoint held is ingested again, the pictures of one episode more.
    """

    extra_columns = 2

    def __init__(
        self,
        spec: RobotSpec,
        cameras: Sequence[str],
        *,
        height: int = 128,
        width: int = 128,
        capacity: int = 100_000,
        compressed: bool = False,
        most_bytes: int = UNBOUNDED,
        **options: Any,
    ) -> None:
        """``options`` as of `CorrectionReplay`."""
        if not cameras or len(set(cameras)) != len(cameras):
            raise ValueError(f"cameras {list(cameras)}: name each of the policy's cameras once")
        if min(height, width) <= 2 * PAD:
            raise ValueError(f"pictures of {width}x{height}; at least {2 * PAD + 1} pixels each way")
        super().__init__(spec, capacity=capacity, **options)
        self.cameras = tuple(cameras)
        shape = (len(self.cameras), height, width, 3)
        room = capacity + capacity // 50 + 16  # runs end with a frame of their own
        self.frames: Frames = JpegFrames(shape, room, most_bytes) if compressed else RawFrames(shape, room, most_bytes)
        self.left_out = 0  # steps without a picture after them
        self.times_freed = 0  # how often numbers of frames became free for others
        self._waiting: tuple[Step, int] | None = None
        self._newest: tuple[Any, int] = (None, -1)  # pictures of the newest moment, and their frame
        self._taken = (-1, -1)  # frames of the row that is made now
        self._buffers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._turn = 0
        self._ahead: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "pictures") if compressed else None
        self._marked: dict[int, tuple[str, int]] = {}  # corrections that were first drawn with the plan
        self._planned: tuple[int, Future[PictureBatch]] | None = None

    # --- ingestion ---

    def begin_episode(self, start: EpisodeStart) -> None:
        self._finish(None)
        self._newest = (None, -1)
        super().begin_episode(start)
        if self._labelled.rebuild is not None and self.frames.used_bytes > self.frames.most_bytes:
            self._free_unused()

    def laid_out(self, values: Mapping[str, Any], unused: Sequence[Sequence[Any]]) -> bool:
        done = super().laid_out(values, unused)
        if done and self.frames.used_bytes > self.frames.most_bytes:
            self._make_room()  # the bound is a lower one than the checkpoint's
        return done

    def add(self, step: Step) -> bool:
        """As `CorrectionReplay.add`, one step late.

        Raises `ValueError` naming episode, step and camera for a picture that is missing or has another size.
        """
        self._packing.saw(step)
        if not self.trains() or is_held(step):
            self._finish(None)
            return False
        if step.episode_id != self._episode:
            raise ValueError(f"step {step.seq} belongs to episode {step.episode_id}; {self._episode or 'none'} is running")
        follows = self._waiting is not None and _follows(self._waiting[0], step)
        if not follows:
            self._finish(None)
        frame = self._store(step, step.images, "images")
        if follows:
            self._finish(frame)
        self._waiting = (step, frame)
        return True

    def add_paired(self, step: Step) -> bool:
        """As `add` of a step that has its ``next_images`` (`PicturePairs`), at once.

        ``images`` that are the very list that the step before had as ``next_images`` are not stored again.
        """
        now = self._frame_of(step, step.images, "images")
        self._taken = (now, now)  # held while the next one is stored
        try:
            self._taken = (now, self._frame_of(step, step.next_images, "next_images"))
            return super().add(step)
        finally:
            self._taken = (-1, -1)

    def _frame_of(self, step: Step, images: Sequence[PolicyImage], field: str) -> int:
        if self._newest[0] is not images:
            self._newest = (images, self._store(step, images, field))
        return self._newest[1]

    def end_episode(self, end: EpisodeEnd) -> None:
        self._finish(None)
        super().end_episode(end)
        self._forget_plan()

    def _finish(self, after: int | None) -> None:
        """Make a row of the step that waits; ``after``: the frame of its successor, none at the end of a run."""
        if self._waiting is None:
            return
        step, frame = self._waiting
        self._waiting = None
        if after is None and not step.next_images:
            self.left_out += 1
            return
        self._taken = (frame, -1)  # held while the next one is stored
        self._taken = (frame, self._store(step, step.next_images, "next_images") if after is None else after)
        super().add(step)
        self._taken = (-1, -1)

    def _row(self, step: Step) -> torch.Tensor:
        return torch.cat([super()._row(step), torch.tensor(self._taken, dtype=torch.float32)])

    def _store(self, step: Step, images: Sequence[PolicyImage], field: str) -> int:
        frame = np.stack([self._picture(step, images, camera, field) for camera in self.cameras])
        try:
            return self.frames.put(frame, beyond=self._labelled.rebuild is not None)
        except FramesFull:
            self._make_room()
            return self.frames.put(frame)

    def _picture(self, step: Step, images: Sequence[PolicyImage], camera: str, field: str) -> Pixels:
        where = f"episode {step.episode_id}, step {step.episode_step}, {field}"
        image = next((image for image in images if image.camera == camera), None)
        if image is None:
            raise ValueError(f"{where}: no picture of camera {camera!r}; record with it among policy_cameras, or learn without it")
        _, height, width, channels = self.frames.shape
        if (image.height, image.width) != (height, width) or len(image.data) != height * width * channels:
            got = f"{image.width}x{image.height} in {len(image.data)} bytes"
            raise ValueError(f"{where}: camera {camera!r} gives {got}; this replay holds {width}x{height} RGB of a byte per colour")
        return np.frombuffer(image.data, np.uint8).reshape(height, width, channels)

    # --- room ---

    def _make_room(self) -> None:
        """For some more frames, a hundredth of all, so that this is rare."""
        self._forget_plan()
        frames = self.frames
        most_bytes = frames.most_bytes - max(int(np.prod(frames.shape)), frames.most_bytes // 100)
        most = frames.capacity - max(1, frames.capacity // 100)
        freed = self._free_unused()
        while (frames.used > most or frames.used_bytes > most_bytes) and (key := self._labelled.oldest()) >= 0:
            self._labelled.give_up(key)
            freed += self._free_unused()
        self._forget_gone_corrections()
        if not freed:
            held = f"{frames.used_bytes} bytes of frames (room: {frames.most_bytes} bytes, {frames.capacity} frames)"
            raise FramesFull(f"all {held} belong to demonstrations; give the replay a larger capacity")

    def _free_unused(self) -> int:
        self.times_freed += 1
        return self.frames.free(self._kept())

    def _kept(self) -> npt.NDArray[np.bool_]:
        """Which frames a row, a row that labels keep out, or the step that waits still needs."""
        kept = np.zeros(self.frames.capacity, np.bool_)
        rebuild = self._labelled.rebuild
        for buffer in (self.demonstrations, self.online, *(() if rebuild is None else rebuild.rings)):
            kept[buffer.rows[: buffer.size, OBSERVED:].numpy().astype(np.int64)] = True
        for row in self._labelled.rows_out():
            kept[row[OBSERVED:].numpy().astype(np.int64)] = True
        for row, _ in self._pending_demonstration:
            kept[row[OBSERVED:].numpy().astype(np.int64)] = True
        kept[[number for number in (*self._taken, self._newest[1]) if number >= 0]] = True
        if self._waiting is not None:
            kept[self._waiting[1]] = True
        return kept

    # --- labels ---

    def apply_labels(self, labels: EpisodeLabels) -> bool:
        self._forget_plan()
        return super().apply_labels(labels)

    def exclude(self, episode_id: str) -> int:
        self._forget_plan()
        return super().exclude(episode_id)

    def relabel(self, episode_id: str, outcome: Outcome, event_step: int) -> None:
        self._forget_plan()
        super().relabel(episode_id, outcome, event_step)

    # --- sampling ---

    def sample_pictures(self, count: int, generator: torch.Generator, *, more: bool = True) -> PictureBatch:
        """``count`` transitions as `sample` draws them, with their pictures, shifted by up to `PAD` pixels each way, each on its own.

        ``more`` off: the next batch is not drawn ahead. Raises `ValueError` when there is nothing to sample.
        """
        if self._ahead is None:
            return self._copied(*self._drawn(count, generator))
        if self._planned is not None and self._planned[0] != count:
            self._forget_plan()
        planned, self._planned = self._planned, None
        batch = self._copied(*self._drawn(count, generator)) if planned is None else planned[1].result()
        if more:
            self._planned = (count, self._ahead.submit(self._copied, *self._drawn(count, generator)))
        return batch

    def close(self) -> None:
        """End the thread."""
        if self._ahead is not None:
            self._forget_plan()
            self._ahead.shutdown()

    def _drawn(
        self, count: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, int, npt.NDArray[np.int64], tuple[torch.Tensor, torch.Tensor]]:
        """Rows, how many are to imitate, shifts (2, count, 2), and the buffers to fill."""
        waited = self._corrections.waiting()
        rows, n = self.sample(count, generator)
        self._marked = {number: waited[number] for number in waited.keys() - self._corrections.waiting().keys()}
        shifts = torch.randint(-PAD, PAD + 1, (2, count, 2), generator=generator).numpy()
        if not self._buffers or len(self._buffers[0][0]) != count:
            # one pair is learned from while the thread fills the other
            self._buffers = [_pair((count, *self.frames.shape)) for _ in range(1 if self._ahead is None else 2)]
        self._turn = (self._turn + 1) % len(self._buffers)
        return rows, n, shifts, self._buffers[self._turn]

    def _copied(self, rows: torch.Tensor, n: int, shifts: npt.NDArray[np.int64], into: tuple[torch.Tensor, torch.Tensor]) -> PictureBatch:
        numbers = rows[:, OBSERVED:].numpy().astype(np.int64)
        for i, out in enumerate(into):
            self.frames.copy(numbers[:, i], shifts[i], out.numpy())
        return PictureBatch(rows, n, *into)

    def _forget_plan(self) -> None:
        """The batch that was drawn ahead may hold what labels changed, or frames that are given up."""
        planned, self._planned = self._planned, None
        if planned is None:
            return
        if not planned[1].cancel():
            planned[1].result()
        self._corrections.take_back(self._marked)  # in no batch yet after all


def _pair(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(shape, dtype=torch.uint8), torch.empty(shape, dtype=torch.uint8)


def _follows(step: Step, following: Step) -> bool:
    return step.episode_id == following.episode_id and step.run_id == following.run_id and following.seq == step.seq + 1
