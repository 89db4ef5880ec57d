"""Robot specs for tests of pure parts."""

from takeover.data.schema import ActionGroup, ActionSpec, Command, ObservationSpec, RobotSpec

ACTION = ActionSpec(
    kind="ee_delta",
    frame="base",
    names=["x", "y", "z", "yaw", "gripper"],
    units=["m", "m", "m", "rad", ""],
    scale=[0.012, 0.012, 0.012, 0.1, 1.0],
    groups=[ActionGroup(name="arm", start=0, stop=4), ActionGroup(name="gripper", start=4, stop=5)],
    gripper="discrete",
)

SPEC = RobotSpec(
    robot_id="test",
    task_id="test",
    prompt="",
    control_hz=20.0,
    max_steps=100,
    action=ACTION,
    observation=ObservationSpec(names=["a"], units=["m"]),
    cameras=[],
    simulated=True,
    has_watchdog=True,
    can_reset=True,
    workspace_low=[-0.2, -0.2, 0.01],
    workspace_high=[0.2, 0.2, 0.3],
)


def command(**changes: object) -> Command:
    """A live, neutral gamepad command for `SPEC`."""
    fields: dict[str, object] = {
        "session": "s",
        "sender": "console",
        "seq": 1,
        "lease": "token",
        "device_id": "pad",
        "device_kind": "gamepad",
        "device_alive": True,
        "deadman": False,
        "neutral": True,
        "focused": True,
        "gui_alive": True,
        "action": [0.0] * 5,
        "authority": ["arm", "gripper"],
        "newest_state_seq": 1,
    }
    return Command(**(fields | changes))  # type: ignore[arg-type]
