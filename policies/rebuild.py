"""A replay as a checkpoint left it, without every step there ever was: which rows it held is saved, their numbers come from the store.

Rings forget. Ingesting everything again so that they forget the same rows costs a restart more the longer a learner has run; only
episodes that still have a row are ingested again, and each row goes where it was. What labels did to rows is done last.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from takeover.policies.base import LearnerError
from takeover.policies.transition_buffer import TransitionBuffer

DEMONSTRATIONS, ONLINE = 0, 1
Kept = dict[int, tuple[torch.Tensor, int]]  # step -> packed row, correction
_ANY = 1 << 40  # rows, more than any episode has


class Incomplete(LearnerError):
    """The store lacks what a checkpoint says was held; ingest all that there is instead."""


def episodes_again(state: Mapping[str, Any]) -> frozenset[str] | None:
    """Episodes of which the checkpoint ``state`` needs the steps again, the running one among them; None: it does not say, so all."""
    again = state["values"].get("again")
    return None if again is None else frozenset([*again, state["run"]["running"]])


def for_everything(state: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint ``state`` for a learner that ingests again everything it had seen."""
    values = {name: value for name, value in state["values"].items() if name not in ("again", "replay")}
    return {**state, "values": values}


class Rebuild:
    """Two laid out rings and the rows that labels keep out of them, filled episode by episode.

    An episode is ingested into ``scratch``, two rings that drop nothing. `begin` the next one or `finish`, and its rows go to their places.
    """

    def __init__(self, demonstrations: TransitionBuffer, online: TransitionBuffer, out: torch.Tensor) -> None:
        """``out`` (K, 4): as of `LabelledRows.places_out`."""
        self.rings = (demonstrations, online)
        width = demonstrations.rows.shape[1]
        self.scratch = (TransitionBuffer(_ANY, width), TransitionBuffer(_ANY, width))
        self.out: tuple[dict[int, Kept], dict[int, Kept]] = ({}, {})
        self.labelled: dict[int, None] = {}  # episodes whose labels are to be applied, in that order
        self._missing: tuple[dict[int, dict[int, int]], dict[int, dict[int, int]]] = ({}, {})  # episode -> step -> correction
        for place, key, step, correction in out.tolist():
            self._missing[place].setdefault(key, {})[step] = correction
        self._filled = tuple(np.zeros(ring.size, bool) for ring in self.rings)
        self._kept: dict[int, torch.Tensor] = {}
        self._key = -1

    def begin(self, key: int) -> None:
        """Episode ``key`` is ingested from now on."""
        self._place()
        self._key = key

    def keep(self, step: int, row: torch.Tensor) -> None:
        """A row of the running episode that went into neither ring."""
        self._kept[step] = row

    def rows_out(self) -> Iterator[torch.Tensor]:
        """Every row (width,) so far that is in neither ``rings`` nor ``scratch``."""
        for out in self.out:
            for kept in out.values():
                yield from (row for row, _ in kept.values())
        yield from self._kept.values()

    def fill(self, steps: np.ndarray, rows: torch.Tensor) -> None:
        """Rows (N, width) of these steps (N,) of the running episode, which are the same in both rings; they go to their places at once."""
        at = {step: i for i, step in enumerate(steps.tolist())}
        for place, (ring, filled) in enumerate(zip(self.rings, self._filled, strict=True)):
            found = ring.of_episode(self._key)
            chosen = np.array([at.get(step, -1) for step in ring.step[found].tolist()], np.int64)
            found, chosen = found[chosen >= 0], chosen[chosen >= 0]
            ring.rows[torch.from_numpy(found)] = rows[torch.from_numpy(chosen)]
            filled[found] = True
            missing = self._missing[place].get(self._key, {})
            for step in missing.keys() & at.keys():
                self.out[place].setdefault(self._key, {})[step] = (rows[at[step]].clone(), missing.pop(step))

    def finish(self) -> None:
        """Raises `Incomplete` when a row is missing."""
        self._place()
        missing = sum(int((~filled).sum()) for filled in self._filled) + sum(len(rows) for out in self._missing for rows in out.values())
        if missing:
            raise Incomplete(f"{missing} steps that were learned from are not in the store as they were")

    def _place(self) -> None:
        if self._key < 0 or not (self._kept or any(ring.size for ring in self.scratch)):
            return
        own = [dict(zip(ring.step[: ring.size].tolist(), ring.rows[: ring.size], strict=True)) for ring in self.scratch]
        every = own[DEMONSTRATIONS] | own[ONLINE] | self._kept
        for place, (ring, filled) in enumerate(zip(self.rings, self._filled, strict=True)):
            rows = every | own[place]  # a label may have moved a row since; otherwise it is the same in both
            found = [i for i in ring.of_episode(self._key).tolist() if int(ring.step[i]) in rows]
            if found:
                ring.rows[found] = torch.stack([rows[int(ring.step[i])] for i in found])
                filled[found] = True
            missing = self._missing[place].get(self._key, {})
            for step in missing.keys() & rows.keys():
                self.out[place].setdefault(self._key, {})[step] = (rows[step].clone(), missing.pop(step))
        for ring in self.scratch:
            ring.clear()
        self._kept = {}
