"""The conformance suite of a bridge: `check_bridge` plays operator, actor and recorder against any."""

from collections.abc import Callable, Collection

from takeover.robot_bridge.conformance.bridge_episodes import AFTER, EPISODES
from takeover.robot_bridge.conformance.bridge_hands import HANDS
from takeover.robot_bridge.conformance.bridge_late import LATE
from takeover.robot_bridge.conformance.bridge_messages import ANSWERS, MALFORMED
from takeover.robot_bridge.conformance.bridge_passive import PASSIVE
from takeover.robot_bridge.conformance.bridge_policy import BEFORE, POLICY
from takeover.robot_bridge.conformance.bridge_waits import WAITS
from takeover.robot_bridge.conformance.report import Failed, Result, unknown
from takeover.robot_bridge.conformance.rig import Rig
from takeover.robot_bridge.protocol import Endpoints

STANDING = (PASSIVE, MALFORMED)
DRIVING = (BEFORE, ANSWERS, POLICY, EPISODES, WAITS, LATE, HANDS, AFTER)
NOT_DRIVEN = "moves the robot: only with --drive"
NOT_LOOKED_AT = (
    "a takeover of some action groups only (`authority`)",
    "a recorder whose disk is full (`RecordAck.error`)",
    "requests with an old `newest_state_seq`, which a bridge on a network refuses",
    "what others send on `event`, and `ViewReport`",
    "cameras: their pictures, the holds for those that fail or freeze, and whether people see the robot itself",
    "a request that came in time and waited in the bridge itself for more than a second (a loop that was stuck, a robot that was away)",
    "chunks, holds, takeovers and whatever else moves the robot, without `--drive`",
)


def check_bridge(
    endpoints: Endpoints, *, drive: bool, only: Collection[str] = (), told: Callable[[Result], None] = lambda _: None
) -> list[Result]:
    """Make every check (or ``only`` those); without ``drive`` none that moves the robot. Raises `Failed` when no bridge answers there."""
    if names := unknown(only, *STANDING, *DRIVING):
        raise Failed(f"no such check: {', '.join(names)}")
    rig = Rig(endpoints)
    try:
        results = [result for suite in STANDING for result in suite.run(rig, told, only, rig.peers.stall_s)]
        for suite in DRIVING:
            if drive:
                results += suite.run(rig, told, {*only, *AFTER.names} if only else (), rig.peers.stall_s)
            elif not only:
                skipped = suite.skipped(NOT_DRIVEN)
                results += skipped
                for result in skipped:
                    told(result)
        return results
    finally:
        rig.close()
