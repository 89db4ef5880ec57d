"""What the evaluator does after it has evaluated a version: the steps-to-go head again as data grows."""

import logging
from collections.abc import Callable

from takeover.data.catalog import Catalog
from takeover.data.hdf5_image import DamagedFile
from takeover.data.heap import give_back
from takeover.data.schema import RobotSpec
from takeover.data.workspace import Workspace
from takeover.policies.steps_to_go_fit import FitCancelled, FitSettings
from takeover.policies.steps_to_go_store import NEWEST, is_due, make_head

log = logging.getLogger("evaluator")

FIT = FitSettings()


def take_stock(workspace: str, spec: RobotSpec, catalog: Catalog, goes_on: Callable[[], bool], fit: FitSettings = FIT) -> str:
    """Fit the head if that is due; what could not be kept, "" if all could.

    ``goes_on()`` False stops, and nothing is kept in part. Too little data is no fault. Raises the catalog's own
    errors.
    """
    place = Workspace(workspace)
    try:
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
    except FitCancelled:
        return ""
    except (ValueError, DamagedFile, OSError) as error:
        log.warning("steps to go: %s", error)
        return f"steps to go: {error}" if isinstance(error, OSError) else ""
    finally:
        give_back()
    return ""
