"""Which corrections no batch has held a step of yet, so that it can be said when each was learned from first."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

Identity = tuple[str, int]  # episode id, intervention id


class CorrectionUse:
    """Numbers corrections in the order in which they begin, and names those that still wait. What was used is only counted: a learner
    runs for days."""

    def __init__(self) -> None:
        self._waiting: dict[int, Identity] = {}
        self._used: list[Identity] = []
        self._newest: Identity | None = None
        self._count = 0

    def number_of(self, episode_id: str, intervention_id: int) -> int:
        """The number of the correction that a step, one a person drove, is part of; steps come in their order."""
        identity = (episode_id, intervention_id)
        if identity != self._newest:
            self._newest = identity
            self._waiting[self._count] = identity
            self._count += 1
        return self._count - 1

    def __bool__(self) -> bool:
        """Whether any waits."""
        return bool(self._waiting)

    def seen(self, numbers: Iterable[int]) -> None:
        """A batch holds steps of these corrections; other numbers are passed over."""
        for number in sorted(self._waiting.keys() & set(numbers)):
            self._used.append(self._waiting.pop(number))

    def waiting(self) -> dict[int, Identity]:
        """Those that wait, by number."""
        return dict(self._waiting)

    def take_back(self, marked: Mapping[int, Identity]) -> None:
        """These were `seen` since `take_used`, but that batch is thrown away: they wait as before."""
        self._waiting |= marked
        gone = set(marked.values())
        self._used = [identity for identity in self._used if identity not in gone]

    def keep(self, there: Collection[int]) -> None:
        """Of those that wait, only these have steps that a batch could hold."""
        self._waiting = {number: identity for number, identity in self._waiting.items() if number in there}

    def forget(self, numbers: Iterable[int]) -> None:
        """These will be in no batch."""
        for number in numbers:
            self._waiting.pop(number, None)

    def take_used(self) -> list[Identity]:
        """Those that were first in a batch since the last call."""
        used, self._used = self._used, []
        return used

    def state(self) -> list[list[str | int]]:
        """For a checkpoint: those that wait, oldest first, by name: numbers depend on which episodes are ingested."""
        return [list(identity) for _, identity in sorted(self._waiting.items())]

    def restore(self, waiting: Collection[int | Sequence[str | int]]) -> None:
        """After the same steps were ingested again. A correction that labels have left out since is not waited for.

        Of an earlier version ``waiting`` are numbers, those of a learner that ingests just the same again.
        """
        named = {tuple(one) for one in waiting if not isinstance(one, int)}
        self._waiting = {number: identity for number, identity in self._waiting.items() if identity in named or number in waiting}
        self._used = []

    def numbering(self) -> dict[str, Any]:
        """For a checkpoint that keeps numbers with the rows: what `go_on` takes."""
        return {"count": self._count, "newest": self._newest and list(self._newest), "waiting": sorted(self._waiting)}

    def go_on(self, numbering: Mapping[str, Any], waiting: Sequence[Sequence[Any]]) -> None:
        """Number on from there, whatever was numbered here; ``waiting``: what `state` gave then."""
        self._count, newest = numbering["count"], numbering["newest"]
        self._newest = None if newest is None else (newest[0], newest[1])
        self._waiting = {number: (name, one) for number, (name, one) in zip(numbering["waiting"], waiting, strict=True)}
        self._used = []
