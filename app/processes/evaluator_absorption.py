"""Absorption of every version: one goes out every two seconds and each is measured, newest first, where the evaluator has time for it.

That is its idle time and, with a smaller share, the moments between two starts of a look that nobody asked for: the gate's comparisons
take minutes on a small computer, and weights are pruned after some. Requests always come first.

Versions that come are followed by their names, the newest `version_watch.HELD` of them; what is older and has no result is taken up from
where it was when the evaluator started, after all newer ones. Nothing here grows with the number of versions.
"""

import logging
import time
from array import array
from collections.abc import Callable

from takeover.data.catalog import Catalog
from takeover.data.catalog_errors import CATALOG_FAILURES
from takeover.data.heap import give_back
from takeover.data.schema import RobotSpec
from takeover.data.workspace import Workspace
from takeover.policies import absorption_again
from takeover.policies.absorb import NothingToMeasure, absorb
from takeover.policies.absorption import AbsorptionCancelled
from takeover.policies.manifest import version_folder, version_numbers
from takeover.policies.recorded_corrections import Memory
from takeover.policies.version_watch import VersionWatch

log = logging.getLogger("evaluator")

CORRECTIONS = 20  # the newest, without retests: those are asked for
SHARE = 0.2  # of a core, at most
BETWEEN_STARTS = 0.1  # the same while a version is looked at: the gate's verdict is waited for
CREDIT_S = 10.0  # for which a share that was not used is not lost: one start may take seconds where the computer is busy
LOOK_EVERY_S = 0.5  # where nothing was due
AFTER_FAULT_S = 30.0
OLDER_AT_ONCE = 200  # versions that are looked at


class EveryVersion:
    """Of one robot and task in one workspace. ``problem``: why the last result could not be kept, "" where it was."""

    def __init__(self, workspace: str, spec: RobotSpec) -> None:
        self.problem = ""
        self._place = Workspace(workspace)
        self._spec = spec
        self._memory = Memory(self._place)
        self._watch: VersionWatch | None = None
        self._older: array[int] = array("Q")  # ascending; the last is the next
        self._settled: set[int] = set()  # among those that are followed: with a result, of something else, or tried in vain
        self._nothing: set[int] = set()  # among those: without a correction of an earlier version
        self._next_at = 0.0

    def is_time(self) -> bool:
        """Whether it may be looked for a version now: its share of the core is not used up."""
        return time.monotonic() >= self._next_at

    def wait(self, seconds: float) -> None:
        """Look for none for so long."""
        self._next_at = time.monotonic() + seconds

    def measure(self, catalog: Catalog, goes_on: Callable[[], bool], share: float = SHARE) -> int:
        """Measure one version if one is due, at ``share`` of a core; which, 0: none, or it was not brought to an end.

        ``goes_on()`` False stops, and nothing is kept in part. Raises the catalog's own errors.
        """
        if not goes_on():
            return 0
        version = self._next()
        if not version:
            self.wait(LOOK_EVERY_S)
            return 0
        began = time.process_time()
        try:
            return version if self._measure(version, catalog, goes_on) else 0
        finally:
            used_s = (time.process_time() - began) / share
            self._next_at = max(self._next_at, time.monotonic() - CREDIT_S) + used_s
            give_back()

    def _next(self) -> int:
        """The newest that is due; 0: none."""
        if self._watch is None:
            self._watch = VersionWatch(self._place.path)
            lowest = min(self._watch.newest_first, default=0)
            self._older = array("Q", (number for number in version_numbers(self._place.path) if number < lowest))
        else:
            self._watch.poll()
        followed = self._watch.newest_first
        self._settled.intersection_update(followed)
        self._nothing.intersection_update(followed)
        for version in followed:
            if version in self._settled or version in self._nothing:
                continue
            if self._is_due(version):
                return version
            self._settled.add(version)
        for _ in range(min(OLDER_AT_ONCE, len(self._older))):
            version = self._older.pop()
            if self._is_due(version):
                self._older.append(version)
                return version
        return 0

    def _is_due(self, version: int) -> bool:
        return absorption_again.is_due(self._place.path, version, self._spec.robot_id, self._spec.task_id)

    def _measure(self, version: int, catalog: Catalog, goes_on: Callable[[], bool]) -> bool:
        """Whether there is a result. One that gave way, or whose result could not be kept, is not over with."""
        folder = version_folder(self._place.path, version)
        try:
            absorption_again.began(folder)
            made = absorb(
                self._place,
                version,
                self._spec,
                limit=CORRECTIONS,
                on_progress=lambda what, done, total: goes_on(),
                catalog=catalog,
                memory=self._memory,
            )
            absorption_again.ended(folder)
        except AbsorptionCancelled:
            absorption_again.gave_way(folder)
            return False
        except NothingToMeasure:
            absorption_again.ended(folder)
            self._over(version, self._nothing)
            return False
        except OSError as error:  # it stays marked, and is left after some tries
            self.problem = f"absorption of version {version}: {error}"
            log.warning("%s", self.problem)
            self.wait(AFTER_FAULT_S)
            return False
        except CATALOG_FAILURES:
            absorption_again.gave_way(folder)
            raise
        except ValueError as error:
            absorption_again.ended(folder)
            log.info("absorption of version %d: %s", version, error)
            self._over(version, self._settled)
            return False
        self.problem = ""
        log.debug("version %d: closer to %d of %d corrections", version, made.totals.get("closer", 0), made.totals["segments"])
        self._over(version, self._settled)
        acted = min((segment.acted_version for segment in made.segments), default=version)
        self._nothing = {other for other in self._nothing if other <= acted}  # these corrections are new for the others
        return True

    def _over(self, version: int, where: set[int]) -> None:
        if self._older and self._older[-1] == version:
            self._older.pop()
        else:
            where.add(version)
