"""What a learner from pictures was fed before its encoder was cloned: kept as it came, then encoded in the same order."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import EpisodeEnd, EpisodeStart, Outcome, RobotSpec, Step
from takeover.policies.picture_cloning import CloningSet
from takeover.policies.picture_encoder import EncoderShape, stack_pictures
from takeover.policies.replay import CorrectionReplay


class _Numbered(CorrectionReplay):
    """Rows end with the number of their step, so that what labels leave to imitate can be looked up."""

    extra_columns = 1
    number = 0

    def _row(self, step: Step) -> Tensor:
        return torch.cat([super()._row(step), torch.tensor([float(self.number)])])


class PictureLog:
    """Holds every step with its pictures (98 KB for two cameras) until the encoder is there.

    ``replay`` counts demonstrations and applies labels meanwhile. Errors are those of `CorrectionReplay`, and `ValueError` for pictures.
    """

    def __init__(self, spec: RobotSpec, shape: EncoderShape) -> None:
        self.replay = _Numbered(spec)
        self._shape = shape
        self._entries: list[Callable[[CorrectionReplay, Callable[[Step], None]], object]] = []
        self._steps: list[Step] = []

    def begin_episode(self, start: EpisodeStart) -> None:
        self.replay.begin_episode(start)
        self._entries.append(lambda replay, _: replay.begin_episode(start))

    def add(self, step: Step) -> None:
        where = f"episode {step.episode_id}, step {step.episode_step}"
        stack_pictures(self._shape, step.images, f"{where}, images")
        stack_pictures(self._shape, step.next_images, f"{where}, next_images")
        self.replay.number = len(self._steps)
        if self.replay.add(step):
            self._steps.append(step)
            self._entries.append(lambda _, add: add(step))

    def end_episode(self, end: EpisodeEnd) -> None:
        self.replay.end_episode(end)
        self._entries.append(lambda replay, _: replay.end_episode(end))

    def exclude(self, episode_id: str) -> None:
        self.replay.exclude(episode_id)
        self._entries.append(lambda replay, _: replay.exclude(episode_id))

    def relabel(self, episode_id: str, outcome: Outcome, event_step: int) -> None:
        self.replay.relabel(episode_id, outcome, event_step)
        self._entries.append(lambda replay, _: replay.relabel(episode_id, outcome, event_step))

    def apply_labels(self, labels: EpisodeLabels) -> bool:
        self._entries.append(lambda replay, _: replay.apply_labels(labels))
        return self.replay.apply_labels(labels)

    def cloning_set(self) -> CloningSet:
        """What there is to imitate now, labels respected."""
        buffer, columns = self.replay.demonstrations, self.replay.columns
        rows = buffer.rows[: buffer.size]
        frames = np.empty((len(rows), *self._shape.frame), np.uint8)
        for frame, number in zip(frames, rows[:, -1].long().tolist(), strict=True):
            frame[...] = stack_pictures(self._shape, self._steps[number].images, f"step {number}")
        return CloningSet(rows[:, columns.observation].clone(), frames, rows[:, columns.action].clone())

    def feed(self, replay: CorrectionReplay, add: Callable[[Step], None]) -> Iterator[None]:
        """Everything again, in order, into ``replay``, steps through ``add``; one piece at a time. The log is empty afterwards."""
        entries, self._entries, self._steps = self._entries, [], []
        entries.reverse()
        while entries:
            entries.pop()(replay, add)
            yield
