"""Whether the person at this desk sees what they would drive.

The bridge watches its own cameras; what arrives here only a desk can tell.
"""

from collections.abc import Mapping

from takeover.data.schema import RobotSpec, RunConfig

PICTURE_DEAD_MS = 500.0


def sees_robot(config: RunConfig, spec: RobotSpec) -> bool:
    """Whether people here see the robot itself. ``auto``: beside a simulator's window they do, at another computer nobody does."""
    return config.line_of_sight == "yes" or (config.line_of_sight == "auto" and spec.simulated and not config.connect)


def dead_pictures(config: RunConfig, spec: RobotSpec | None, ages_ms: Mapping[str, float]) -> tuple[str, ...]:
    """The cameras by which this desk should see the robot and does not: their pictures are over 500 ms old, or never came."""
    if spec is None or sees_robot(config, spec):
        return ()
    return tuple(camera.name for camera in spec.cameras if ages_ms.get(camera.name, float("inf")) > PICTURE_DEAD_MS)
