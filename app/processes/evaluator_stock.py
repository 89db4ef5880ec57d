"""What the evaluator does beside evaluating: absorption of every version it looks at, and the steps-to-go head again as data grows."""

import logging
from collections.abc import Callable

from takeover.data.catalog import Catalog
from takeover.data.hdf5_image import DamagedFile
from takeover.data.heap import give_back
from takeover.data.schema import RobotSpec
from takeover.data.workspace import Workspace
from takeover.policies import absorption_again
from takeover.policies.absorb import absorb
from takeover.policies.absorption import AbsorptionCancelled
from takeover.policies.absorption_again import looked_at_nothing
from takeover.policies.absorption_file import read_absorption
from takeover.policies.manifest import version_folder
from takeover.policies.steps_to_go_fit import FitCancelled, FitSettings
from takeover.policies.steps_to_go_store import NEWEST, is_due, make_head

log = logging.getLogger("evaluator")

FIT = FitSettings()
CORRECTIONS = 20  # the newest, without retests: those are asked for


def take_stock(workspace: str, version: int, spec: RobotSpec, catalog: Catalog, goes_on: Callable[[], bool], fit: FitSettings = FIT) -> str:
    """Measure ``version``'s absorption and fit the head if that is due; what could not be kept, "" if all could.

    ``goes_on()`` False stops, and nothing is kept in part. Too little data is no fault. Raises the catalog's own
    errors.
    """
    place = Workspace(workspace)
    try:
        _absorption(place, version, spec, catalog, goes_on)
        if is_due(place, spec.task_id, spec.robot_id, catalog):
            made = make_head(
                place,
                spec.task_id,
                spec.robot_id,
                fit,
                newest=NEWEST,
                on_progress=lambda done, total: goes_on(),
                catalog=catalog,
            )
            error_steps = made.manifest.report["held_out"]["mean_absolute_error_steps"]
            log.info("steps to go, fitted to %d episodes: off by %s steps on held-out ones", made.manifest.episodes, error_steps)
    except (AbsorptionCancelled, FitCancelled):
        return ""
    except (ValueError, DamagedFile, OSError) as error:
        log.warning("steps to go or absorption: %s", error)
        return f"steps to go or absorption: {error}" if isinstance(error, OSError) else ""
    finally:
        give_back()
    return ""


class Unfinished:
    """Absorption of versions that was not measured to its end, or not at pictures: one version for each look, the newest first."""

    def __init__(self, workspace: str, spec: RobotSpec) -> None:
        self._place = Workspace(workspace)
        self._spec = spec
        self._tried: set[int] = set()  # by this process, to whatever end; what gave way is none of them

    def take_up(self, catalog: Catalog, goes_on: Callable[[], bool]) -> int:
        """Measure one of them; its version, 0: there was none, or it gave way. Raises the catalog's own errors."""
        if not goes_on():
            return 0
        version = next((found for found in absorption_again.due(self._place.path, self._spec.task_id) if found not in self._tried), 0)
        if not version:
            return 0
        try:
            _absorption(self._place, version, self._spec, catalog, goes_on)
        except AbsorptionCancelled:
            return 0
        except (DamagedFile, OSError) as error:
            log.warning("absorption of version %d: %s", version, error)
        finally:
            give_back()
        self._tried.add(version)
        return version


def _absorption(place: Workspace, version: int, spec: RobotSpec, catalog: Catalog, goes_on: Callable[[], bool]) -> None:
    folder = version_folder(place.path, version)
    try:
        found = read_absorption(place.path, version)
        if found is not None and not looked_at_nothing(found):
            return
        absorption_again.began(folder)
        made = absorb(place, version, spec, limit=CORRECTIONS, on_progress=lambda what, done, total: goes_on(), catalog=catalog)
    except AbsorptionCancelled:
        absorption_again.gave_way(folder)
        raise
    except ValueError as error:
        log.debug("absorption of version %d: %s", version, error)  # nothing to look at yet
    else:
        log.info("version %d: closer to %d of %d corrections", version, made.totals.get("closer", 0), made.totals["segments"])
    absorption_again.ended(folder)
