"""What an imitation learner draws from: every step that counts, as tensors, kept up to date while episodes arrive and labels change."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import accumulate, groupby

import numpy as np
import torch
from torch import Tensor

from takeover.policies.class_weights import StepClass, weights
from takeover.policies.gripper_cost import gripper_index
from takeover.policies.growing_rows import GrowingRows
from takeover.policies.imitation_episodes import Stored, classes_of, finished_alone, view_of

_Rows = dict[str, Tensor]  # column -> values, as many in each


@dataclass
class _Place:
    """An episode in the table: its rows are next to each other, behind those of the episode before."""

    stored: Stored
    rows: int = 0
    whole: bool = True  # they are its first steps, one by one, not what labels leave of it


class Table:
    """All usable steps in the order of the episodes, and which of them are of each class.

    `refresh` makes it, bit for bit, what it would be if it were made anew, but touches what changed alone: steps that arrived are
    appended, what a label changed is written in its place, and rows move only where an episode before them has another number of rows.
    """

    def __init__(self, before: int, gripper: int, finished: bool = False) -> None:
        """``before``: how many steps before an onset count as what went wrong; ``gripper``: its place in an action, -1 for none;
        ``finished``: of what the policy did that alone is an example which it finished."""
        self._before, self._gripper, self._finished = before, gripper, finished
        self._places: dict[str, _Place] = {}
        self._columns: dict[str, GrowingRows] = {}
        self._members = {c: GrowingRows(torch.zeros(0, dtype=torch.int64)) for c in StepClass}
        self.counts: dict[StepClass, int] = dict.fromkeys(StepClass, 0)

    def __contains__(self, name: str) -> bool:
        """Whether it knows of an episode, which may have no rows."""
        return name in self._places

    @property
    def size(self) -> int:
        """Rows, of all classes."""
        return self._columns["classes"].size if self._columns else 0

    @property
    def observations(self) -> Tensor:
        """(N, H, D)."""
        return self._column("observations")

    @property
    def actions(self) -> Tensor:
        """(N, A)."""
        return self._column("actions")

    @property
    def corrections(self) -> Tensor:
        """(N,): number of the correction a step is of, -1 for none."""
        return self._column("corrections")

    @property
    def gripper(self) -> Tensor:
        """(N,): commands as `gripper_index` has them; none where there is no discrete gripper."""
        return self._column("gripper")

    def members(self, c: StepClass) -> Tensor:
        """(n,): the rows of a class, ascending."""
        return self._members[c].rows

    def _column(self, name: str) -> Tensor:
        return self._columns[name].rows if name in self._columns else torch.zeros(0)

    def sample(self, count: int, shares: Mapping[StepClass, float], generator: torch.Generator) -> Tensor:
        """(count,) rows: classes by their shares, uniform within a class."""
        kinds = [c for c in StepClass if shares[c] > 0.0]
        probabilities = torch.tensor([shares[c] for c in kinds], dtype=torch.float64)
        drawn = torch.multinomial(probabilities, count, replacement=True, generator=generator)
        parts = []
        for i, c in enumerate(kinds):
            members = self.members(c)
            parts.append(members[torch.randint(len(members), (int((drawn == i).sum()),), generator=generator)])
        return torch.cat(parts)

    # --- keeping up ---

    def refresh(self, episodes: Mapping[str, Stored], touched: Collection[str]) -> None:
        """``touched``: those of ``episodes`` that came or changed since the last call, and those that went."""
        gone = {name for name in touched if name not in episodes and name in self._places}
        came = [name for name in touched if name in episodes and name not in self._places]
        self._places |= {name: _Place(episodes[name]) for name in came}
        if self._out_of_step(episodes, touched, gone, came):
            self._places = {name: _Place(stored) for name, stored in episodes.items()}
            self._cut(0)
            gone, touched = set(), list(episodes)
        begins, last = self._begins(touched), next(reversed(self._places), "")
        first, moving = self.size, dict[str, _Rows]()
        for name in touched:
            if place := self._places.get(name):  # not one that came and went
                view = None if name in gone else view_of(place.stored)
                changed, rows = self._follow(place, view, begins[name], name == last)
                first = min(first, changed)
                if rows is not None:
                    moving[name] = rows
        if moving:
            self._move(moving, begins)
        for name in gone:
            del self._places[name]
        self._classify(first)

    def _out_of_step(self, episodes: Mapping[str, Stored], touched: Collection[str], gone: Collection[str], came: Collection[str]) -> bool:
        """Whether an episode was begun anew or the order is another one, so that nothing can be taken over."""
        if any(self._places[name].stored is not episodes[name] for name in touched if name in episodes):
            return True
        return bool(gone or came) and [name for name in self._places if name not in gone] != list(episodes)

    def _begins(self, touched: Collection[str]) -> dict[str, int]:
        """The first row of each episode, or of the last one alone where no other is asked for."""
        last = next(reversed(self._places), None)
        if last is None:
            return {}
        if set(touched) <= {last}:
            return {last: self.size - self._places[last].rows}
        return dict(zip(self._places, accumulate((place.rows for place in self._places.values()), initial=0), strict=False))

    def _follow(self, place: _Place, view: Stored | None, begin: int, last: bool) -> tuple[int, _Rows | None]:
        """Write what counts of an episode now, its first row being ``begin``. Returns the first row that may be another, and all of the
        episode's rows where they do not fit between its neighbours."""
        if view is place.stored and place.whole and (last or len(view.actions) == place.rows):
            return self._extend(place, begin), None
        count = 0 if view is None else len(view.actions)
        rows = self._rows(view, self._classes(view)) if view is not None and count else {}
        fits, place.rows, place.whole = last or count == place.rows, count, view is place.stored or not count
        if not fits:
            return begin, rows
        if last:
            self._cut(begin)
        self._write(begin, rows)
        return begin, None

    def _extend(self, place: _Place, begin: int) -> int:
        """An episode whose rows stay, with what arrived of it; a takeover changes the classes of steps before it, too. Returns the first
        row that is another."""
        old, place.rows = place.rows, len(place.stored.actions)
        if not place.rows:
            return begin
        classes = self._classes(place.stored)
        if place.rows > old:
            self._write(begin + old, self._rows(place.stored, classes, old))
        column = self._columns["classes"]
        other = torch.nonzero(column.rows[begin : begin + old] != classes[:old])
        if not len(other):
            return begin + old
        changed = begin + int(other[0])
        column.write(changed, classes[changed - begin :])
        return changed

    def _move(self, moving: Mapping[str, _Rows], begins: Mapping[str, int]) -> None:
        """New rows for these episodes, and those of the episodes behind the first of them to where they belong then."""
        names = list(self._places)
        names = names[next(i for i, name in enumerate(names) if name in moving) :]
        pieces: list[_Rows] = []
        for moves, neighbours in groupby(names, moving.__contains__):
            group = list(neighbours)
            if moves:
                pieces += [moving[name] for name in group if moving[name]]
            else:
                begin, end = begins[group[0]], begins[group[-1]] + self._places[group[-1]].rows
                pieces.append({name: column.rows[begin:end] for name, column in self._columns.items()})
        pieces = [piece for piece in pieces if piece]
        behind = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]} if pieces else {}
        self._cut(begins[names[0]])
        self._write(begins[names[0]], behind)

    def _rows(self, stored: Stored, classes: Tensor, first: int = 0) -> _Rows:
        """Those of its steps from ``first`` on, of which there is at least one; ``classes`` (N,) of all of them."""
        rows = {
            "observations": torch.from_numpy(np.stack(stored.observations[first:])),
            "actions": torch.tensor(stored.actions[first:], dtype=torch.float32),
            "corrections": torch.tensor(stored.corrections[first:], dtype=torch.int64),
            "classes": classes[first:],
        }
        if self._gripper >= 0:
            rows["gripper"] = torch.tensor([gripper_index(action[self._gripper]) for action in stored.actions[first:]])
        return rows

    def _classes(self, stored: Stored) -> Tensor:
        classes = classes_of(stored, self._before)
        return torch.tensor([int(c) for c in (finished_alone(stored, classes) if self._finished else classes)])

    def _write(self, at: int, rows: _Rows) -> None:
        for name, values in rows.items():
            if name not in self._columns:
                self._columns[name] = GrowingRows(values)
            self._columns[name].write(at, values)

    def _cut(self, size: int) -> None:
        for column in self._columns.values():
            column.cut(size)

    def _classify(self, first: int) -> None:
        """The members of each class among the rows from ``first`` on."""
        if not self._columns:
            return
        classes = self._columns["classes"].rows[first:]
        for c, members in self._members.items():
            members.cut(int(torch.searchsorted(members.rows, first)))
            members.write(members.size, torch.nonzero(classes == int(c)).flatten() + first)
            self.counts[c] = members.size


def weights_or_none(counts: Mapping[StepClass, int], scheme: str) -> dict[StepClass, float]:
    """`class_weights.weights`, all 0 where no step is usable."""
    try:
        return weights(counts, scheme)
    except ValueError:
        return dict.fromkeys(StepClass, 0.0)
