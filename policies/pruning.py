"""Weights of old versions go, by a rule; their manifests, and whatever else lies in their folders, stay for ever.

Of versions that are not among the newest ``keep_versions`` of their robot and task the weights stay where

- they are of another robot or task than what is learned now;
- ``keep_every`` divides the number;
- it was ever decided about (promoted, rolled back to, refused, ...), evaluated on any start, or retested; a measured absorption keeps
  none, since that of every version is;
- it drove a probe or an evaluation, alone and without help;
- it drove when a person took over (absorption compares with it): the catalog has that of every closed episode, whether a learner still
  holds its steps or not; or it drives in one of the episodes that may not be in the catalog yet;
- it is to drive in probes, or a process has it loaded (`lease`): the actor, the evaluator, a command.

What refers to a version is looked up while its weights are locked, and who uses them holds them until what follows is written. While
any of it cannot be read, nothing is pruned.
"""

import logging
import os
import re
from collections import deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from takeover.data.catalog import Catalog
from takeover.data.catalog_errors import CATALOG_FAILURES, reason_of
from takeover.data.episode_block import StepBlock
from takeover.data.schema import EpisodeStart, Step
from takeover.policies import outcomes, retest
from takeover.policies.base import PolicyRefused
from takeover.policies.decisions import DecisionError, read_decisions
from takeover.policies.lease import Unused
from takeover.policies.manifest import PRUNED_NAME, WEIGHTS_NAME, Manifest, policies_folder, read_manifest, version_folder, version_numbers
from takeover.policies.training_stream import CommittedRecord

log = logging.getLogger("learner")

AT_ONCE = 50  # versions whose weights are looked at together, in some ms; fewer wait for more
LOOKED_AT = 200  # manifests, in the same piece of work, to find the newest of this robot and task
PASSED_OVER = 2000  # versions without weights, or kept by their number, in the same piece of work
_HEAD = 1024  # bytes by which a file of results is known again
EPISODES = 5  # the newest: a recorder closes an episode, and enters it in the catalog, some seconds after its end


@dataclass
class _Look:
    """Looking for the newest versions of one robot and task."""

    newest: int
    about: tuple[str, str]
    left: list[int]  # ascending; the newest are looked at first
    found: deque[int] = field(default_factory=deque)
    came: list[int] = field(default_factory=list)  # published meanwhile


class Pruner:
    """Of one workspace, in the process that publishes. ``lent``: versions that drive in probes."""

    def __init__(self, workspace: str | os.PathLike[str], catalog: Catalog, lent: Sequence[int] = ()) -> None:
        self.problem = ""  # why nothing is pruned
        self._workspace = workspace
        self._catalog = catalog
        self._lent = frozenset(lent)
        self._tried = TriedWeights([policies_folder(workspace) / name for name in (outcomes.FILE, retest.FILE)])
        self._driving: deque[set[int]] = deque(maxlen=EPISODES)
        self._newest: deque[int] | None = None
        self._about = ("", "")  # robot and task whose versions these are
        self._look: _Look | None = None
        self._old: deque[int] = deque()  # to be looked at
        self._later: list[int] = []  # in use when they were
        self._published = 0

    def saw(self, record: CommittedRecord | StepBlock) -> None:
        """Notes which versions drive, also in episodes that are read again after a start, whole or as blocks."""
        if isinstance(record, EpisodeStart):
            self._driving.append({record.policy_version})
        elif isinstance(record, Step) and self._driving:
            self._driving[-1].add(record.policy_version)
        elif isinstance(record, StepBlock) and self._driving:
            self._driving[-1].update(record.versions)

    def published(self, version: int) -> None:
        """Another version is there."""
        if self._look is not None:
            self._look.came.append(version)
        if self._newest is None:
            return  # the first look finds it
        if len(self._newest) == self._newest.maxlen:
            self._old.append(self._newest[0])
        self._newest.append(version)
        self._published += 1
        if self._published % AT_ONCE == 0:
            self._old.extend(self._later)
            self._later.clear()

    def work(self, newest: int, every: int, about: tuple[str, str]) -> bool:
        """One piece of it, by the settings ``keep_versions`` and ``keep_every``; False when there is nothing to do.

        ``about``: ids of the robot and task that is learned."""
        if not newest:
            return False
        if self._newest is None or self._newest.maxlen != newest or self._about != about:
            self._look_for(newest, about)
            return True
        if len(self._old) < AT_ONCE:
            return False
        chosen = self._next(every)
        weights = {self._weights(version): version for version in chosen}
        free = Unused(list(weights))
        try:
            self._later += [weights[path] for path in free.busy if path.exists()]
            self._prune([version for path, version in weights.items() if path not in free.busy])
            self.problem = ""
        except (DecisionError, *CATALOG_FAILURES) as error:
            self._later += [version for path, version in weights.items() if path not in free.busy] + list(self._old)
            self._old.clear()  # after some more publications it is tried again
            self.problem = f"weights of old versions stay: {reason_of(error)}"
            log.warning("%s", self.problem)
        finally:
            free.close()
        return True

    def _look_for(self, newest: int, about: tuple[str, str]) -> None:
        """A piece of the look for the newest versions of what ``about`` says; all older ones, of whatever, are looked at later."""
        look = self._look
        if look is None or (look.newest, look.about) != (newest, about):
            look = self._look = _Look(newest, about, version_numbers(self._workspace))
        for _ in range(min(LOOKED_AT, len(look.left))):
            if len(look.found) == newest:
                break
            version = look.left.pop()
            manifest = _manifest(version_folder(self._workspace, version))
            if manifest is not None and (manifest.robot_id, manifest.task_id) == about:
                look.found.appendleft(version)
        if look.left and len(look.found) < newest:
            return
        own = [*look.found, *look.came]
        self._newest, self._about, self._look = deque(own[-newest:], maxlen=newest), about, None
        self._old, self._later = deque([*look.left, *own[:-newest]]), []

    def _next(self, every: int) -> list[int]:
        """Of those to be looked at: with weights, and not kept by their number."""
        chosen: list[int] = []
        for _ in range(min(len(self._old), PASSED_OVER)):
            version = self._old.popleft()
            if version in self._lent or (every and version % every == 0) or not self._weights(version).exists():
                continue
            chosen.append(version)
            if len(chosen) == AT_ONCE:
                break
        return chosen

    def _prune(self, versions: Sequence[int]) -> None:
        """Those that nothing refers to."""
        if not versions:
            return
        decided = {decision.version for decision in read_decisions(self._workspace)}
        named = decided | self._catalog.versions_referred_to(min(versions), max(versions))
        tried, driving = self._tried.read(), set[int]().union(*self._driving)
        for version in versions:
            folder = version_folder(self._workspace, version)
            if version in driving:
                self._later.append(version)
            elif version not in named and self._is_ours(folder, tried):
                (folder / PRUNED_NAME).touch()
                (folder / WEIGHTS_NAME).unlink()

    def _is_ours(self, folder: Path, tried: Container[str]) -> bool:
        """Whether it is of the robot and task that is learned, and its weights were never tried."""
        manifest = _manifest(folder)
        return manifest is not None and (manifest.robot_id, manifest.task_id) == self._about and manifest.sha256 not in tried

    def _weights(self, version: int) -> Path:
        return version_folder(self._workspace, version) / WEIGHTS_NAME


def _manifest(folder: Path) -> Manifest | None:
    """None where it is damaged or gone: such a version is left as it is."""
    try:
        return read_manifest(folder)
    except PolicyRefused:
        return None


class TriedWeights:
    """The sha256 of all weights of which files of lines hold a result; only what was appended is read."""

    _NAMED = re.compile(rb'"sha256"\s*:\s*"([0-9a-f]{64})"')

    def __init__(self, paths: Iterable[Path]) -> None:
        self._found: dict[Path, tuple[bytes, int, set[str]]] = {path: (b"", 0, set()) for path in paths}  # its head, bytes read, hashes

    def read(self) -> set[str]:
        """Raises `OSError`."""
        for path in self._found:
            self._read(path)
        return set[str]().union(*(hashes for _, _, hashes in self._found.values()))

    def _read(self, path: Path) -> None:
        before, end, hashes = self._found[path]
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            head = file.read(_HEAD)
            if not head.startswith(before) or os.fstat(file.fileno()).st_size < end:
                end, hashes = 0, set()  # another file: an inode may be given again
            file.seek(end)
            for line in file:
                if line.endswith(b"\n"):
                    end += len(line)
                hashes.update(name.decode() for name in self._NAMED.findall(line))
        self._found[path] = (head, end, hashes)
