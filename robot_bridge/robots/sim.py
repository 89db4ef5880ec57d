"""The simulated robot: a seven-joint arm on a table, commanded in Cartesian steps (at 20 Hz), exact to save and restore.

One control period: the command passes the latency queue and the gain and moves a *target pose*, which pulls the tool through the
impedance of `sim_model`. The target stays within `_WINDOW_STEPS` of where the tool really is, so pushing against something gives a
bounded force however long it lasts. All of it happens on the control thread; only `stop` may come from another one.
"""

import threading
import time

import msgspec
import mujoco
import numpy as np

from takeover.data.schema import CameraSpec, ParameterSpec, RobotSpec
from takeover.data.seeding import stream
from takeover.robot_bridge.kinematics import ArmKinematics, wrap, yaw_of
from takeover.robot_bridge.robots import sim_model, sim_state
from takeover.robot_bridge.robots.base import Advice, Evaluation, FloatArray, Reading, RobotError
from takeover.robot_bridge.tasks.base import Sense
from takeover.robot_bridge.tasks.registry import make_task

CONTROL_HZ = 20.0
CONTROL_RATES_HZ = (20.0, 50.0, 100.0)  # the built-in tasks are made for 20; the others show what the bridge can do
MAX_LATENCY_STEPS = 10
_BLOCK_S = 0.01  # the target moves in small steps of this length
_STEPS_PER_BLOCK = round(_BLOCK_S / sim_model.TIMESTEP_S)
_WINDOW_STEPS = 1.2  # target to actual, in action scales
_WINDOW_MIN_M = 0.006
_MAX_YAW_RAD = 2.0  # further, the springs about the three axes work against each other: the tool tilts, and at half a turn is thrown
_GRIP, _FRESH = 0, 1  # indices of the flags
_COMMON_FAULTS = ("latency", "frozen_camera")
_J = sim_model.ARM_JOINTS
_FINGERS = 6  # index of the first finger actuator, after x, y, z, yaw, roll, pitch
_UNSTABLE = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


class SimRobot:
    """`Robot` in MuJoCo. ``parameters`` override the task's nominal ones; outside their range raises `RobotError`."""

    def __init__(self, task: str = "peg-insert", parameters: dict[str, float] | None = None, control_hz: float = CONTROL_HZ) -> None:
        if control_hz not in CONTROL_RATES_HZ:
            raise RobotError(f"control rate {control_hz:g} Hz; this robot runs at {', '.join(f'{rate:g}' for rate in CONTROL_RATES_HZ)} Hz")
        self.task = make_task(task)
        self._hz = control_hz
        self._blocks = max(1, round(1.0 / control_hz / _BLOCK_S))
        self.parameters = check_parameters(self.task.parameters, parameters or {})
        self._stopped = threading.Event()  # commands are ignored
        self._halted = threading.Event()  # the next period stands still, also when `clear` came before it
        self._cameras: list[CameraSpec] = []
        self._action_size = self.task.action.size
        faster = control_hz / CONTROL_HZ  # a step is shorter in time and length, the speed of full scale the same
        units = self.task.action.units
        scale = [value / faster if unit in ("m", "rad") else value for value, unit in zip(self.task.action.scale, units, strict=True)]
        self._action = msgspec.structs.replace(self.task.action, scale=scale)
        self._scale = np.array(scale)
        self._window = np.maximum(_WINDOW_STEPS * np.array(self.task.action.scale[:4]), _WINDOW_MIN_M)
        self._gripper_index = 4 if self.task.action.gripper != "none" else -1
        self._compile()
        self.reset(0)

    # --- lifecycle ---

    @property
    def spec(self) -> RobotSpec:
        task = self.task
        return RobotSpec(
            robot_id="sim",
            task_id=task.name,
            prompt=task.prompt,
            control_hz=self._hz,
            max_steps=round(task.max_steps * self._hz / CONTROL_HZ),
            action=self._action,
            observation=task.observation,
            cameras=list(self._cameras),
            simulated=True,
            has_watchdog=True,
            can_reset=True,
            workspace_low=list(task.workspace_low),
            workspace_high=list(task.workspace_high),
            parameters=list(task.parameters),
            joint_low=self._model.jnt_range[:_J, 0].tolist(),
            joint_high=self._model.jnt_range[:_J, 1].tolist(),
        )

    def connect(self) -> None:
        """Nothing to connect to; the model was compiled when the robot was made."""

    def close(self) -> None:
        """Nothing to close."""

    def reset(self, seed: int) -> None:
        """Everything random in the episode is a function of ``seed`` and the parameters."""
        self._random = stream(seed, "sim-" + self.task.name)
        self._variables, self._start = self.task.draw(self._random, self.parameters)
        self._camera_offset = self._random.uniform(-1.0, 1.0, 3) * self.parameters["camera_jitter_m"]
        self._faults = np.zeros(2)  # extra latency in steps; 1.0 while the camera is frozen
        mujoco.mj_resetData(self._model, self._data)
        self.task.install(self._model, self._data, self._variables)  # before any kinematics: what is held shifts their rounding
        self._target = self._start.copy()
        self._previous = self._start.copy()
        joints = self._kinematics.solve(np.array(sim_model.HOME), self._target[:3], self._target[3], iterations=60)
        if self._kinematics.error_m(joints, self._target[:3]) > 1e-4:
            raise RobotError(f"the arm cannot reach the start pose {np.round(self._target, 3).tolist()} of seed {seed}")
        self._queue = np.zeros((MAX_LATENCY_STEPS + 1, self._action_size))
        self._flags = np.array([1.0, 0.0])  # opening (+1) or closing (-1); whether a command came since the last period
        self._data.qpos[:_J] = joints
        self.task.place(self._model, self._data, self._variables)
        self._wrench = np.zeros(6)
        self._draw_noise()
        self._refresh()

    # --- control ---

    def read(self) -> Reading:
        """The present reading; reading twice gives the same numbers."""
        sense = self._sense
        observation = self.task.observe(self._data, sense, self._variables, self.parameters)
        return Reading(
            t_ns=time.monotonic_ns(),
            observation=observation,
            tool_position=sense.position.copy(),
            tool_velocity=sense.velocity.copy(),
            tool_yaw=sense.yaw,
            gripper_width_m=sense.gripper_width,
            force_n=sense.force.copy(),
            joints=self._data.qpos[:_J].copy(),
            gripper_force_n=self._grip_force_n(),
        )

    def apply(self, action: FloatArray) -> None:
        """Set the command (A,) for the coming period. Raises `RobotError` on a wrong shape or a non-finite number."""
        command = np.asarray(action, np.float64)
        if command.shape != (self._action_size,):
            raise RobotError(
                f"action of shape {command.shape}; {self.task.name} takes ({self._action_size},): {', '.join(self.task.action.names)}"
            )
        if not np.isfinite(command).all():
            raise RobotError(f"action {command.tolist()} is not finite; it was not executed")
        if not self._stopped.is_set():
            self._push(np.clip(command, -1.0, 1.0))
            self._flags[_FRESH] = 1.0

    def advance(self) -> None:
        """Simulate one control period under the command that is due now. A command lives one period; without a new one the robot stops."""
        self._previous[:] = self._target
        if not self._flags[_FRESH]:
            self._push(np.zeros(self._action_size))
        self._flags[_FRESH] = 0.0
        if self._halted.is_set() or self._stopped.is_set():
            self._freeze()
        else:
            self._move_target()
        self._simulate()
        self._draw_noise()
        self._refresh()

    def stop(self) -> None:
        self._stopped.set()
        self._halted.set()

    def clear(self) -> None:
        self._stopped.clear()

    def evaluate(self) -> Evaluation:
        return self.task.evaluate(self._data, self._sense, self._variables)

    def advice(self) -> Advice:
        truth = self.task.truth(self._data, self._sense, self._variables)
        return Advice(values=truth | {"success": [float(self.evaluate().success)]}, expert_action=self.task.expert(truth))

    def inject(self, fault: str, value: float) -> None:
        """slip, lost_grasp, bumped_object (``value`` 1: as strong as is usual), latency (steps),
        frozen_camera (0 thaws; 1: nothing new, 2: its counter runs, 3: its clock too, only the pixels stand)."""
        known = (*self.task.faults, *_COMMON_FAULTS)
        if fault not in known:
            raise RobotError(f"unknown fault {fault!r} for {self.task.name}; known: {', '.join(known)}")
        if not np.isfinite(value):
            raise RobotError(f"fault {fault!r}: value {value} is not finite")
        if fault == "latency":
            self._faults[0] = np.clip(round(value), 0, MAX_LATENCY_STEPS)
        elif fault == "frozen_camera":
            self._faults[1] = np.clip(np.ceil(abs(value)), 0, 3)
        else:
            self.task.fault(fault, value, self._data, self._variables, self._random)
            self.task.install(self._model, self._data, self._variables)
            self._refresh()

    # --- exact state ---

    def save(self) -> bytes:
        """Everything that what comes next depends on; restoring it continues bit for bit, also in another `SimRobot`."""
        mujoco.mj_getState(self._model, self._data, self._mujoco_state, mujoco.mjtState.mjSTATE_INTEGRATION)
        return sim_state.pack(self._arrays(), self._random)

    def restore(self, state: bytes) -> None:
        """Continue from ``state``; parameters it was saved under come with it. Raises `RobotError` when it does not fit."""
        arrays, random = sim_state.unpack(state, [array.size for array in self._arrays()])
        parameters = dict(zip(self.parameters, arrays[1].tolist(), strict=True))
        if parameters != self.parameters:
            self.parameters = check_parameters(self.task.parameters, parameters)
            self._compile()
        for own, saved in zip(self._arrays()[2:], arrays[2:], strict=True):
            own[...] = saved.reshape(own.shape)
        self._random = random
        mujoco.mj_setState(self._model, self._data, arrays[0], mujoco.mjtState.mjSTATE_INTEGRATION)
        self.task.install(self._model, self._data, self._variables)
        self._refresh()

    def _arrays(self) -> list[FloatArray]:
        parameters = np.array(list(self.parameters.values()))
        return [self._mujoco_state, parameters, *self._controller_arrays()]

    def _controller_arrays(self) -> list[FloatArray]:
        return [
            *(self._variables, self._start, self._target, self._previous, self._queue, self._flags),
            *(self._wrench, self._noise, self._faults, self._camera_offset),
        ]

    # --- what the cameras need ---

    def attach_cameras(self, specs: list[CameraSpec]) -> None:
        """Name the cameras that look at this robot, for its `spec`."""
        self._cameras = list(specs)

    def show(self, qpos: list[float], variables: list[float], camera_offset: list[float], *, frozen: bool) -> None:
        """Look like another robot of the same task and parameters, for the cameras of one that is never stepped."""
        self._data.qpos[:] = qpos
        self._variables[:] = variables
        self._camera_offset[:] = camera_offset
        self._faults[1] = float(frozen)

    @property
    def data(self) -> mujoco.MjData:
        return self._data

    @property
    def model(self) -> mujoco.MjModel:
        return self._model

    @property
    def variables(self) -> FloatArray:
        """What the episode drew at random, in the order of the task's `variable_names`."""
        return self._variables

    @property
    def camera_offset(self) -> FloatArray:
        """(3,) m: how far the front camera was moved in this episode."""
        return self._camera_offset

    @property
    def camera_frozen(self) -> bool:
        return bool(self._faults[1])

    @property
    def camera_fault(self) -> int:
        """How the cameras are frozen, see `inject`; 0: they are not."""
        return int(self._faults[1])

    # --- inside ---

    def _compile(self) -> None:
        scene = self.task.scene(self.parameters)
        self._gap = scene.finger_gap_m
        self._model = sim_model.build_model(scene, visual=False)
        self._data = mujoco.MjData(self._model)
        self._kinematics = ArmKinematics(self._model, "tool", np.array(sim_model.HOME))
        self._site = self._model.site("tool").id
        self._jacobian = np.zeros((6, self._model.nv))
        self._mujoco_state = np.zeros(mujoco.mj_stateSize(self._model, mujoco.mjtState.mjSTATE_INTEGRATION))

    def _draw_noise(self) -> None:
        self._noise = self._random.standard_normal(4)

    def _freeze(self) -> None:
        """Zero velocity: the target is where the tool is."""
        self._target[:3], self._target[3] = self._sense.position, self._sense.yaw
        self._previous[:] = self._target
        self._queue[:] = 0.0
        if not self._stopped.is_set():
            self._halted.clear()

    def _push(self, command: FloatArray) -> None:
        self._queue[:-1] = self._queue[1:]
        self._queue[-1] = command

    def _move_target(self) -> None:
        latency = min(round(self.parameters["latency_steps"]) + int(self._faults[0]), MAX_LATENCY_STEPS)
        command = self._queue[-1 - latency]
        moved = self._target + command[:4] * self._scale[:4] * self.parameters["actuator_gain"]
        window = self._window
        actual = self._sense.position
        np.clip(moved[:3], actual - window[:3], actual + window[:3], out=moved[:3])
        np.clip(moved[:3], self.task.workspace_low, self.task.workspace_high, out=moved[:3])
        turn = wrap(moved[3] - self._sense.yaw)
        moved[3] = self._sense.yaw + np.clip(turn, -2.0 * window[3], 2.0 * window[3])
        # a target that is beyond already (a restored state) may return or stay, as at the workspace's edge
        moved[3] = np.clip(moved[3], min(-_MAX_YAW_RAD, self._target[3]), max(_MAX_YAW_RAD, self._target[3]))
        self._target = moved
        if self._gripper_index >= 0 and abs(command[self._gripper_index]) > 0.5:
            self._flags[_GRIP] = np.sign(command[self._gripper_index])

    def _simulate(self) -> None:
        """The pull's origin moves evenly from the previous target to the present one, fed forward by the impedance's lag."""
        model, data = self._model, self._data
        change = self._target - self._previous
        lead = change * (sim_model.DAMPING_TIME_S * self._hz)
        if self._gripper_index >= 0:
            data.ctrl[_FINGERS:] = 0.0 if self._flags[_GRIP] > 0 else model.jnt_range[_J : _J + 2, 0]
        loads = np.zeros(_J)
        for block in range(1, self._blocks + 1):
            data.ctrl[:4] = self._previous + change * (block / self._blocks) + lead
            mujoco.mj_step(model, data, nstep=_STEPS_PER_BLOCK)
            loads += data.qfrc_constraint[:_J]
        if not np.isfinite(data.qpos).all() or any(data.warning[kind].number for kind in _UNSTABLE):
            raise RobotError("the simulation became unstable; reset it")
        # what a torque-sensing arm reports: the wrench at the tool that explains the joints' external torques
        jacobian = self._jacobian[:, :_J]
        self._wrench[:] = np.linalg.solve(jacobian @ jacobian.T + 1e-8 * np.eye(6), jacobian @ (loads / self._blocks))

    def _refresh(self) -> None:
        """Positions and velocities of the present state (mj_step leaves those of one time step before)."""
        model, data = self._model, self._data
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        twist = self._jacobian @ data.qvel
        width = self._width()
        self._sense = Sense(
            position=data.site_xpos[self._site].copy(),
            yaw=yaw_of(data.site_xmat[self._site]),
            velocity=twist[:3],
            yaw_rate=float(twist[5]),
            gripper_width=width,
            gripper_command=float(self._flags[_GRIP]),
            force=self._wrench[:3].copy(),
            torque=self._wrench[3:].copy(),
            start=self._start,
            noise=self._noise,
        )

    def _grip_force_n(self) -> float:
        """With which the finger actuators close, from the state alone (so that a restored state reports the same); -1 without fingers."""
        if self._gripper_index < 0:
            return -1.0
        model, data = self._model, self._data
        gain, bias = model.actuator_gainprm[_FINGERS:, 0], model.actuator_biasprm[_FINGERS:]
        force = gain * data.ctrl[_FINGERS:] + bias[:, 1] * data.qpos[_J : _J + 2] + bias[:, 2] * data.qvel[_J : _J + 2]
        low, high = model.actuator_forcerange[_FINGERS:].T
        return float(np.mean(np.abs(np.clip(force, low, high))))

    def _width(self) -> float:
        """Distance (m) between the finger pads."""
        gap = self._gap
        return gap if self._gripper_index < 0 else gap + float(self._data.qpos[_J] + self._data.qpos[_J + 1])


def check_parameters(specs: tuple[ParameterSpec, ...], overrides: dict[str, float]) -> dict[str, float]:
    """Nominal values with ``overrides``. Raises `RobotError` naming the parameter and its allowed range."""
    values = {spec.name: spec.nominal for spec in specs}
    for name, value in overrides.items():
        spec = next((candidate for candidate in specs if candidate.name == name), None)
        if spec is None:
            raise RobotError(f"unknown task parameter {name!r}; known: {', '.join(values)}")
        if not spec.low <= value <= spec.high:
            raise RobotError(f"task parameter {name} = {value}: allowed is {spec.low} to {spec.high} {spec.unit}")
        values[name] = float(value)
    return values
