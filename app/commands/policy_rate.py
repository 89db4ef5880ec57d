"""At which control rate a version is run: the one that its manifest notes; and at which one the station's robot ran last."""

import math
from typing import TYPE_CHECKING

from takeover.app.processes.common import StartupError
from takeover.data.schema import EpisodeKind
from takeover.data.spaces import TOLERANCE
from takeover.data.workspace import Workspace

if TYPE_CHECKING:
    from takeover.policies.manifest import Manifest


def trained_at(manifest: "Manifest") -> str:
    """As people read it."""
    noted = manifest.spaces.control_hz
    return "not noted" if noted is None else f"{noted:g} Hz"


def run_at(manifest: "Manifest", against: "Manifest | None" = None) -> tuple[float, list[str]]:
    """(Hz of the simulator in which a version is run, beside ``against`` if there is one; what is to be said of it).

    Raises `StartupError` for a rate that the simulator does not have, and for two versions of different rates.
    """
    from takeover.robot_bridge.robots.sim import CONTROL_HZ, CONTROL_RATES_HZ

    noted, name = manifest.spaces.control_hz, f"version {manifest.version}"
    hz = CONTROL_HZ if noted is None else next((known for known in CONTROL_RATES_HZ if _same(known, noted)), 0.0)
    if not hz:
        known = ", ".join(f"{rate:g}" for rate in CONTROL_RATES_HZ)
        raise StartupError(f"{name} was trained at {noted:g} Hz; the simulated robot runs at {known} Hz")
    notes = []
    if noted is None:
        notes.append(f"{_no_note(manifest)}: run at {hz:g} Hz")
    elif hz != CONTROL_HZ:
        notes.append(f"run at {hz:g} Hz, as {name} was trained")
    if against is not None:
        theirs = against.spaces.control_hz
        if theirs is None:
            notes.append(f"{_no_note(against)}: run at {hz:g} Hz")
        elif not _same(theirs, hz):
            its = f"{hz:g} Hz, as nothing else is noted" if noted is None else f"{hz:g} Hz"
            raise StartupError(f"version {against.version} was trained at {theirs:g} Hz, {name} at {its}; no robot has both rates at once")
    return hz, notes


def unnoted_rate(manifest: "Manifest", robot_hz: float) -> list[str]:
    """What is to be said of a version that is to act at ``robot_hz`` (0: at the simulated robot's own)."""
    from takeover.robot_bridge.robots.sim import CONTROL_HZ

    hz = robot_hz or CONTROL_HZ
    return [f"{_no_note(manifest)}: it acts at the robot's, {hz:g} Hz"] if manifest.spaces.control_hz is None else []


def _no_note(manifest: "Manifest") -> str:
    return f"warning: version {manifest.version} has no note of the control rate that it was trained at"


def station_hz(workspace: Workspace, robot_id: str, task_id: str) -> float:
    """Of the newest episode that the robot recorded, the rate; 0: there is none, or the catalog cannot be read.

    A rollback must not have to wait for a catalog to be repaired: what acts looks at the rate again.
    """
    from takeover.data.catalog import Catalog
    from takeover.data.catalog_errors import CATALOG_FAILURES
    from takeover.data.catalog_place import has_catalog

    try:
        if not has_catalog(workspace):
            return 0.0
        with Catalog.open(workspace) as catalog:
            newest = next(catalog.newest_counted(task_id, robot_id, [kind.value for kind in EpisodeKind], page=20), None)
            return newest.control_hz if newest is not None else 0.0
    except CATALOG_FAILURES:
        return 0.0


def _same(one: float, two: float) -> bool:
    return math.isclose(one, two, rel_tol=TOLERANCE)
