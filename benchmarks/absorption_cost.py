"""What one absorption of the 20 newest corrections costs, and where it goes: processor time in ms, with and without what is kept in memory.

    python -m benchmarks.absorption_cost WORKSPACE VERSION [--task peg-insert] [--repeats 5]

Nothing is written but the version's ``absorption.json``.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median
from typing import Any

from takeover.data.catalog import Catalog
from takeover.data.schema import RobotSpec
from takeover.data.workspace import Workspace
from takeover.policies.absorb import absorb
from takeover.policies.absorption import ActedVersions, distances
from takeover.policies.absorption_file import FILE
from takeover.policies.manifest import version_folder
from takeover.policies.publish import load_for
from takeover.policies.recorded_corrections import Memory, find_corrections
from takeover.policies.torch_setup import configure
from takeover.robot_bridge.robots.sim import SimRobot

CORRECTIONS = 20


def cost_ms(work: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """(what it returned last, median processor time)."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        made = work()
        taken.append(1000.0 * (time.process_time() - began))
    return made, median(taken)


def parts_of(
    place: Workspace, version: int, spec: RobotSpec, catalog: Catalog, memory: Callable[[], Memory], repeats: int
) -> dict[str, float]:
    """ms of each part. ``memory`` gives what is kept: another one each time, or always the same."""
    new, load = cost_ms(lambda: load_for(place.path, version, spec), repeats)
    _, find = cost_ms(lambda: find_corrections(place, new.manifest, CORRECTIONS, catalog, memory()), repeats)
    asked = []
    for _ in range(repeats):
        found = find_corrections(place, new.manifest, CORRECTIONS, catalog, memory()).corrections
        ask = partial(distances, new, spec, found, ActedVersions(place.path, spec, []), [], None)
        asked.append(cost_ms(partial(_exhaust, ask), 1)[1])
    _, whole = cost_ms(lambda: absorb(place, version, spec, limit=CORRECTIONS, catalog=catalog, memory=memory()), repeats)
    return {"load the version": load, "find corrections": find, "ask and compare": median(asked), "all of it": whole}


def _exhaust(made: Callable[[], Iterable[Any]]) -> None:
    for _ in made():
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace")
    parser.add_argument("version", type=int)
    parser.add_argument("--task", default="peg-insert")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    configure(1)
    place, spec = Workspace(given.workspace), SimRobot(given.task).spec
    with Catalog.open(place) as catalog:
        kept = Memory(place)
        made = absorb(place, given.version, spec, limit=CORRECTIONS, catalog=catalog, memory=kept)  # as after the version before
        alone = parts_of(place, given.version, spec, catalog, lambda: Memory(place), given.repeats)
        after = parts_of(place, given.version, spec, catalog, lambda: kept, given.repeats)
    print("ms of processor time | nothing kept | kept from the version before")
    for name, value in alone.items():
        print(f"{name:<20} | {value:12.1f} | {after[name]:6.1f}")
    steps, acted = sum(one.n for one in made.segments), len({one.acted_version for one in made.segments})
    size = (version_folder(place.path, given.version) / FILE).stat().st_size
    print(f"{len(made.segments)} corrections, {steps} steps, {acted} versions that acted; {FILE}: {size} bytes")


if __name__ == "__main__":
    main()
