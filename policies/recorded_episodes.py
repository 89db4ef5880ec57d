"""Recorded episodes as absorption asks about them, kept in memory: between two versions nothing of them changes but labels.

What is kept is bounded; an episode whose file was rewritten is read again. Labels are no part of it: they are read with each question.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from takeover.data.catalog_tables import EpisodeRow
from takeover.data.episode_file import EpisodeReader
from takeover.data.schema import ControlMode
from takeover.policies.base import FloatArray

EPISODES = 40  # twice as many as the evaluator asks about at once
HELD_BYTES = 16_000_000
Doubles = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Answer = tuple[Whole, Doubles]
"""(n,) steps at which a policy was asked, (n, A) what it would do there."""
AnswerKey = tuple[str, bytes, tuple[str, ...]]
"""Of the weights, of the steps asked about (labels decide), and the cameras of the policy that was asked beside it."""


@dataclass(frozen=True)
class RecordedEpisode:
    """Arrays are of all N driven steps, held ones left out. ``interventions``: (id, first step), as recorded."""

    observations: FloatArray  # (N, D)
    actions: Doubles  # (N, A) applied
    seq: Whole  # (N,) control steps
    run: Whole  # (N,)
    acted: Whole  # (N,) versions
    numbers: Whole  # (N,) of the intervention, -1: none
    human: npt.NDArray[np.bool_]  # (N,)
    interventions: tuple[tuple[int, int], ...]
    answers: dict[int, tuple[AnswerKey, Answer]] = field(default_factory=dict)  # by intervention: the last one's of the version that acted

    @property
    def size(self) -> int:
        """Bytes of the arrays."""
        columns = (self.seq, self.run, self.acted, self.numbers, self.human)
        return self.observations.nbytes + self.actions.nbytes + sum(column.nbytes for column in columns)


def read_episode(path: Path) -> RecordedEpisode:
    """Raises `DamagedFile`, `OSError`, `KeyError` or `ValueError` when the file cannot be read."""
    with EpisodeReader(path) as reader:
        whole = {name: reader.column(name).astype(np.int64) for name in ("seq", "run_id", "policy_version", "intervention_id")}
        return RecordedEpisode(
            observations=reader.observations.astype(np.float32),
            actions=reader.actions.astype(np.float64),
            seq=whole["seq"],
            run=whole["run_id"],
            acted=whole["policy_version"],
            numbers=whole["intervention_id"],
            human=reader.control_mode == ControlMode.HUMAN,
            interventions=tuple((int(one["id"]), int(one["start"])) for one in reader.interventions),
        )


class RecordedEpisodes:
    """The episodes that were asked for last: at most ``most``, and `HELD_BYTES` besides the newest."""

    def __init__(self, most: int = EPISODES) -> None:
        self._most = most
        self._held: OrderedDict[tuple[str, str], RecordedEpisode] = OrderedDict()

    def of(self, row: EpisodeRow, path: Path) -> RecordedEpisode:
        """Raises as `read_episode`."""
        key = (row.id, row.sha256)
        found = self._held.pop(key, None) or read_episode(path)
        self._held[key] = found
        while len(self._held) > self._most or (len(self._held) > 1 and sum(one.size for one in self._held.values()) > HELD_BYTES):
            self._held.popitem(last=False)
        return found
