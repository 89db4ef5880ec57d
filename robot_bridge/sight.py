"""Whether those who drive see: the policy needs its cameras, and people every camera unless they see the robot itself."""

from collections.abc import Sequence

from takeover.data.schema import HoldReason, RobotSpec, RunConfig
from takeover.robot_bridge.camera_thread import CameraThread

SEES = (HoldReason.NONE, "")


def camera_trouble(cameras: CameraThread | None, names: Sequence[str], now_ns: int) -> tuple[HoldReason, str]:
    """What of the cameras ``names`` never gave a picture, failed, or gives no new one: the reason to hold, and which."""
    if cameras is None or not names:
        return SEES
    if cameras.error:
        return HoldReason.CAMERA_MISSING, cameras.error
    ages = cameras.ages_ms(now_ns)
    if missing := [name for name in names if ages[name] < 0]:
        return HoldReason.CAMERA_MISSING, ", ".join(missing)
    if frozen := [name for name in cameras.frozen(now_ns) if name in names]:
        return HoldReason.CAMERA_FROZEN, ", ".join(frozen)
    return SEES


def check_line_of_sight(config: RunConfig) -> None:
    """That nobody who may be elsewhere is said to see the robot. Raises `ValueError`.

    Where a bridge listens, everybody comes over the network, those beside the robot too, and an address proves
    nothing: a tunnel may end there.
    """
    if config.line_of_sight == "yes" and config.listen:
        raise ValueError(
            f'line_of_sight = "yes" says that who drives sees the robot itself, but this bridge listens on {config.listen}, for people '
            'on other computers: say "auto" (or "no") in station.toml, or start it without --listen'
        )


def pictures_alone(config: RunConfig, spec: RobotSpec) -> list[str]:
    """The cameras that people depend on, who see the robot by them alone; none where the station says that they see it themselves."""
    sees_it = config.line_of_sight == "yes" or (config.line_of_sight == "auto" and spec.simulated)
    return [] if sees_it else [camera.name for camera in spec.cameras]


def nobody_sees(config: RunConfig, spec: RobotSpec, names: Sequence[str]) -> bool:
    """Whether people would drive a real robot blind: none of its cameras is there (``names``), nor do they see it themselves."""
    return not spec.simulated and not names and config.line_of_sight != "yes"
