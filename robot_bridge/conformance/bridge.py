"""The conformance suite of a bridge: `check_bridge` plays operator, actor and recorder against any."""

from collections.abc import Callable

from takeover.robot_bridge.conformance.bridge_hands import HANDS
from takeover.robot_bridge.conformance.bridge_passive import PASSIVE
from takeover.robot_bridge.conformance.bridge_policy import AFTER, BEFORE, POLICY
from takeover.robot_bridge.conformance.report import Result
from takeover.robot_bridge.conformance.rig import Rig
from takeover.robot_bridge.protocol import Endpoints

NOT_DRIVEN = "moves the robot: only with --drive"


def check_bridge(endpoints: Endpoints, *, drive: bool, told: Callable[[Result], None] = lambda _: None) -> list[Result]:
    """Make every check; without ``drive`` only those that never move the robot. Raises `Failed` when no bridge answers there."""
    rig = Rig(endpoints)
    try:
        results = PASSIVE.run(rig, told)
        for suite in (BEFORE, POLICY, HANDS, AFTER):
            if drive:
                results += suite.run(rig, told)
            else:
                results += suite.skipped(NOT_DRIVEN)
                for result in results[-len(suite.checks) :]:
                    told(result)
        return results
    finally:
        rig.close()
