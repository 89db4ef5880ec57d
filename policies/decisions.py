"""What was decided about published versions: ``<workspace>/policies/decisions.jsonl``, append-only; who is trusted and who may act follow.

Two tiers. The **acting** policy is the newest published version that was not refused, unless a rollback pins another one. The
**trusted** one is the last that was promoted, by the gate or by a person, and not rolled back behind.
"""

import itertools
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from takeover.data import audit
from takeover.data.locked_log import DECISIONS_FILE, locked
from takeover.data.locked_log import GATE as GATE
from takeover.policies.manifest import Manifest, policies_folder

Kind = Literal["promoted", "passed", "undecided", "refused", "rolled_back", "released"]
"""passed: it may act, but is no better a measure for the next one; undecided: looked at, with insufficient evidence; released: the pin
of a rollback ends, the version is the one that was pinned."""


class DecisionError(RuntimeError):
    """The decisions cannot be read or written; says which line and what to do."""


class DecisionConflict(DecisionError):
    """Something else was decided in the meantime."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the file."""

    number: int  # 1, 2, ... in the order of the file
    kind: Kind
    version: int
    sha256: str  # of its weights
    robot_id: str
    task_id: str
    trusted_before: int  # 0: none
    author: str  # a person's pseudonym, or `GATE`
    reason: str
    wall_ns: int
    group_end: int  # number of the last decision that was written with it: one without that one was cut off by a power failure
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)  # the gate's numbers


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the decisions say of one robot and task."""

    trusted: int = 0  # 0: none
    trusted_sha256: str = ""
    before: int = 0  # trusted before that one; 0: none
    pinned: int = 0  # the only one that may act; 0: the newest published
    pinned_sha256: str = ""
    pinned_by: str = ""
    pinned_reason: str = ""
    refused: frozenset[int] = frozenset()  # never act, unless a person says otherwise
    last: int = 0  # number of the newest decision, about any robot

    @property
    def reference(self) -> tuple[int, str]:
        """(version, sha256) that others are compared with: the trusted one, and where none is trusted what a person holds the robot to."""
        return (self.trusted, self.trusted_sha256) if self.trusted else (self.pinned, self.pinned_sha256)

    def may_act(self, published: Iterable[int]) -> int:
        """The version that acts in real time, of those ``published``; 0: none."""
        return self.pinned or max((version for version in published if version not in self.refused), default=0)


def decisions_path(workspace: str | os.PathLike[str]) -> Path:
    return policies_folder(workspace) / DECISIONS_FILE


class Tally:
    """Follows the decisions about one robot and task, in their order.

    A promotion ends a pin; what the gate decides ends only a pin of its own, never a person's. A rollback drops every promotion behind
    it: those after its version's own, or, where that one was never promoted, those of newer versions.
    """

    def __init__(self, robot_id: str, task_id: str) -> None:
        self._about = (robot_id, task_id)
        self._promoted: dict[tuple[int, str], None] = {}  # (version, sha256), in the order of their promotions
        self._refused: set[int] = set()
        self._pin: Decision | None = None
        self._last = 0

    def add(self, decision: Decision) -> None:
        self._last = decision.number
        if (decision.robot_id, decision.task_id) != self._about:
            return
        place = (decision.version, decision.sha256)
        may_end_pin = self._pin is not None and (decision.author != GATE or self._pin.author == GATE)
        if decision.kind == "refused":
            self._refused.add(decision.version)
        elif decision.kind == "promoted":
            self._refused.discard(decision.version)
            self._promoted.pop(place, None)
            self._promoted[place] = None
        elif decision.kind == "rolled_back":
            self._refused.discard(decision.version)
            self._pin = decision
            self._drop_behind(place)
        if decision.kind in ("promoted", "passed", "released") and may_end_pin:
            self._pin = None

    def _drop_behind(self, place: tuple[int, str]) -> None:
        entries = list(self._promoted)
        kept = entries[: entries.index(place) + 1] if place in self._promoted else [entry for entry in entries if entry[0] <= place[0]]
        self._promoted = dict.fromkeys(kept)

    @property
    def standing(self) -> Standing:
        """After the decisions so far."""
        newest = [*itertools.islice(reversed(self._promoted), 2), (0, ""), (0, "")]
        pin = self._pin
        return Standing(
            trusted=newest[0][0],
            trusted_sha256=newest[0][1],
            before=newest[1][0],
            pinned=pin.version if pin else 0,
            pinned_sha256=pin.sha256 if pin else "",
            pinned_by=pin.author if pin else "",
            pinned_reason=pin.reason if pin else "",
            refused=frozenset(self._refused),
            last=self._last,
        )


def standing(decisions: Iterable[Decision], robot_id: str, task_id: str) -> Standing:
    """What ``decisions`` say of one robot and task: see `Tally`."""
    tally = Tally(robot_id, task_id)
    for decision in decisions:
        tally.add(decision)
    return tally.standing


def read_decisions(workspace: str | os.PathLike[str]) -> list[Decision]:
    """All of them, oldest first; a last line without its end, which nobody was told of, is left out. Raises `DecisionError`."""
    path = decisions_path(workspace)
    try:
        return parse(path, path.read_bytes())[0]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DecisionError(f"cannot read {path}: {error.strerror}") from error


def current_standing(workspace: str | os.PathLike[str], robot_id: str, task_id: str) -> Standing:
    """`standing` of what is on disk. Raises `DecisionError`."""
    return standing(read_decisions(workspace), robot_id, task_id)


def decide(
    workspace: str | os.PathLike[str],
    entries: Sequence[tuple[Kind, Manifest]],
    *,
    author: str,
    reason: str,
    evidence: dict[str, Any] | None = None,
    after: int | None = None,
) -> list[Decision]:
    """Write ``entries`` together: in the audit log, then here, all or none, when this returns. ``evidence``: plain JSON values.

    ``after``: the number of the newest decision that the caller knew of. Raises `DecisionConflict` when there is a newer one,
    `DecisionError` when the file cannot be read or written.
    """
    path = decisions_path(workspace)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path) as fd:
            known, end = parse(path, _read_all(fd))
            os.ftruncate(fd, end)
            last = known[-1].number if known else 0
            if after is not None and last != after:
                raise DecisionConflict(f"{path}: decision {last} came in the meantime; this one was made after decision {after}")
            made: list[Decision] = []
            for kind, manifest in entries:
                before = standing([*known, *made], manifest.robot_id, manifest.task_id)
                decision = Decision(
                    number=last + len(made) + 1,
                    kind=kind,
                    version=manifest.version,
                    sha256=manifest.sha256,
                    robot_id=manifest.robot_id,
                    task_id=manifest.task_id,
                    trusted_before=before.trusted,
                    author=author,
                    reason=reason,
                    wall_ns=time.time_ns(),
                    group_end=last + len(entries),
                    evidence=evidence or {},
                )
                made.append(decision)
            for decision in made:
                if decision.kind != "undecided":  # it changes nothing
                    about = {"version": decision.version, "robot": f"{decision.robot_id}:{decision.task_id}", "reason": reason}
                    audit.append(Path(workspace), author, f"policy_{decision.kind}", **about)
            _append(fd, b"".join(msgspec.json.encode(decision) + b"\n" for decision in made))
            return made
    except OSError as error:
        raise DecisionError(f"cannot write {error.filename or path}: {error.strerror}; nothing was decided") from error


def _read_all(fd: int) -> bytes:
    size, data = os.fstat(fd).st_size, b""
    while len(data) < size and (piece := os.pread(fd, size - len(data), len(data))):
        data += piece
    return data


def _append(fd: int, data: bytes) -> None:
    size = os.fstat(fd).st_size
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise


def parse(path: Path, data: bytes, after: int = 0) -> tuple[list[Decision], int]:
    """Decisions that were written to their end, with their group, and where in ``data`` they end.

    ``data``: the file, or what follows decision ``after`` in it. Raises `DecisionError` naming a line that cannot be.
    """
    decoder = msgspec.json.Decoder(Decision)
    found: list[Decision] = []
    ends = [0]
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(keepends=True), 1):
        where = f"{path}, line {number}" + (f" after decision {after}" if after else "")
        try:
            found.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DecisionError(f"{where}: {error}; put the file back from a copy, or take the line out and keep it") from error
        before = found[-2].number if len(found) > 1 else after
        if found[-1].number <= before:
            raise DecisionError(f"{where}: decision {found[-1].number} after decision {before}; put the lines in order")
        ends.append(ends[-1] + len(line))
    while found and found[-1].group_end > found[-1].number:
        found.pop()
    return found, ends[len(found)]
