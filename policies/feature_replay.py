"""Replay of what a frozen encoder saw: the features of every frame, computed once for a few fixed crops.

A row's observation is the robot's numbers and the features of the first crop; those of the other crops follow at the row's end. Batches
take a crop at random, for the observation and for the next one separately. Everything else, labels included, is `CorrectionReplay`.
"""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from takeover.data.schema import EpisodeStart, ObservationSpec, RobotSpec, Step
from takeover.policies.quarantine import wrong_start
from takeover.policies.replay import CorrectionReplay

Features = npt.NDArray[np.float32]
FEATURE_UNIT = "feature"  # known to the normaliser


def widened(spec: RobotSpec, names: list[str]) -> RobotSpec:
    """``spec`` with further observations ``names``, those of an encoder."""
    observation = spec.observation
    wide = ObservationSpec(names=[*observation.names, *names], units=[*observation.units, *[FEATURE_UNIT] * len(names)])
    return msgspec.structs.replace(spec, observation=wide)


class FeatureReplay(CorrectionReplay):
    """`CorrectionReplay` of a robot whose observation is widened by the features of ``crops`` crops."""

    def __init__(self, spec: RobotSpec, names: list[str], crops: int, **options: Any) -> None:
        """``spec``: the robot's own; ``names``: of the features; ``options`` as of `CorrectionReplay`."""
        self.robot_spec, self.crops, self.features = spec, crops, len(names)
        self.extra_columns = 2 * (crops - 1) * len(names)
        super().__init__(widened(spec, names), **options)
        self._others = torch.zeros(0)  # of the row that is made now

    @property
    def takes_blocks(self) -> bool:
        return False  # a row is a function of pictures, too

    def begin_episode(self, start: EpisodeStart) -> None:
        """Raises `ValueError` when the robot's observation or action space is another one."""
        if problem := wrong_start(start, self.robot_spec):
            raise ValueError(f"episode {start.episode_id} has another observation or action space than this learner's: {problem}")
        super().begin_episode(msgspec.structs.replace(start, spec=self.spec))

    def add_encoded(self, step: Step, now: Features, after: Features) -> bool:
        """One step with the features (crops, features) of the picture it saw and of the one after it; as `CorrectionReplay.add`."""
        self._others = torch.from_numpy(np.concatenate([now[1:].ravel(), after[1:].ravel()]))
        observation, following = [*step.observation, *now[0].tolist()], [*step.next_observation, *after[0].tolist()]
        return super().add(msgspec.structs.replace(step, observation=observation, next_observation=following, images=[], next_images=[]))

    def _row(self, step: Step) -> Tensor:
        return torch.cat([super()._row(step), self._others])

    def cropped(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """``rows`` (n, width) with the features of a random crop each, for the observation and the next one on their own."""
        if self.crops == 1:
            return rows
        f, c, width = self.features, self.columns, self.columns.width - self.extra_columns
        chosen = torch.randint(self.crops, (2, len(rows)), generator=generator)
        rows = rows.clone()
        others = rows[:, width:].view(len(rows), 2, self.crops - 1, f)
        for i, place in enumerate((c.observation, c.next_observation)):
            crops = torch.cat([rows[:, place.stop - f : place.stop].unsqueeze(1), others[:, i]], 1)
            rows[:, place.stop - f : place.stop] = crops[torch.arange(len(rows)), chosen[i]]
        return rows
