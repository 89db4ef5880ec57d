"""The simulated robot's tasks by name."""

from collections.abc import Callable

from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.tasks.base import SimTask
from takeover.robot_bridge.tasks.peg_insert import PegInsert
from takeover.robot_bridge.tasks.pick_lift import PickLift
from takeover.robot_bridge.tasks.pick_lift_pictures import PickLiftPictures
from takeover.robot_bridge.tasks.sort_two import SortTwo

_TASKS: dict[str, Callable[[], SimTask]] = {task.name: task for task in (PegInsert, PickLift, PickLiftPictures, SortTwo)}


def make_task(name: str) -> SimTask:
    """Raises `RobotError` listing the known tasks."""
    try:
        return _TASKS[name]()
    except KeyError:
        raise RobotError(f"unknown task {name!r} for robot 'sim'; known: {', '.join(_TASKS)}") from None
