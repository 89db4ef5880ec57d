"""Mutations of the simulated robot, of the link to one that is a process of its own, and of which robots there are."""

from benchmarks.mutation import Mutation, of

T = "tests/robot_bridge/test_"
PEERS, SIM, LINK = f"{T}peer_limits.py", "tests/robot_bridge/sim/test_sim_limits.py", f"{T}sim_link_limits.py"
UNSTABLE = "if not np.isfinite(data.qpos).all() or any(data.warning[kind].number for kind in _UNSTABLE):"
OTHER = "if reply.spec is None or reply.spec.action != self._spec.action or reply.spec.task_id != self._spec.task_id:"

SIMULATOR: list[Mutation] = [
    *of(
        "robot_bridge/robots/registry.py",
        PEERS,
        ("robot: known", "if robot not in KNOWN_ROBOTS:", "if False:"),
        ("robot: its tasks", "if chosen not in SIM_TASKS:", "if False:"),
        ("robot: its clock", 'if clock == "lockstep" and robot != "sim":', "if False:"),
        ("robot: its cameras", "if not isinstance(robot, SimRobot):", "if False:"),
    ),
    *of(
        "robot_bridge/robots/sim.py",
        SIM,
        ("sim: rate", "if control_hz not in CONTROL_RATES_HZ:", "if False:"),
        ("sim: action's shape", "if command.shape != (self._action_size,):", "if False:"),
        ("sim: finite action", "if not np.isfinite(command).all():", "if False:"),
        ("sim: full scale", "self._push(np.clip(command, -1.0, 1.0))", "self._push(command)"),
        ("sim: known fault", "if fault not in known:", "if False:"),
        ("sim: finite fault", "if not np.isfinite(value):", "if False:"),
        ("sim: known parameter", "if spec is None:", "if False:"),
        ("sim: parameter's range", "if not spec.low <= value <= spec.high:", "if False:"),
        ("sim: parameter a number", "if not spec.low <= value <= spec.high:", "if value < spec.low or value > spec.high:"),
    ),
    *of(
        "robot_bridge/robots/sim_state.py",
        SIM,
        ("state: length", "if len(state) != expected:", "if False:"),
        ("state: kind", "if magic != _MAGIC or version != _VERSION or count != sum(sizes):", "if False:"),
        ("state: finite", "if not np.isfinite(flat).all():", "if False:"),
        ("state: kind, varied", " or _HEADER.unpack_from(state) != (_MAGIC, _VERSION, size // 8):", ":"),
        ("state: length, varied", "if size < 0 or ", "if "),
    ),
    *of(
        "robot_bridge/robots/sim_server.py",
        f"{T}sim_server_limits.py::test_a_command_from_before_a_stop_does_not_count",
        ("server: overtaken by a stop", "if self._latched and request.t_ns < self._latched_ns:", "if False:"),
        ("server: later than the stop", "if self._latched and request.t_ns < self._latched_ns:", "if self._latched:"),
    ),
    *of(
        "robot_bridge/robots/sim.py",
        LINK,
        ("sim: start out of reach", "if self._kinematics.error_m(joints, self._target[:3]) > 1e-4:", "if False:"),
        ("sim: not finite", UNSTABLE, UNSTABLE.replace("not np.isfinite(data.qpos).all() or ", "")),
        ("sim: started anew by itself", UNSTABLE, UNSTABLE.partition(" or any")[0] + ":"),
        ("sim: bad positions", "_UNSTABLE = (mujoco.mjtWarning.mjWARN_BADQPOS, ", "_UNSTABLE = ("),
        ("sim: bad velocities", " mujoco.mjtWarning.mjWARN_BADQVEL,", ""),
        ("sim: bad accelerations", ", mujoco.mjtWarning.mjWARN_BADQACC)", ",)"),
    ),
    *of(
        "robot_bridge/robots/sim_remote.py",
        LINK,
        ("driver: an address", "if not address:", "if False:"),
        ("driver: refusals", "if reply.error:", "if False:"),
        ("driver: no spec", OTHER, OTHER.replace("reply.spec is None or", "reply.spec is not None and")),
        ("driver: other action", OTHER, OTHER.replace("reply.spec.action != self._spec.action or ", "")),
        ("driver: other task", OTHER, OTHER.replace(" or reply.spec.task_id != self._spec.task_id", "")),
        ("driver: other parameters", "if reply.parameters != self.mirror.parameters:", "if False:"),
        ("driver: watchdog", 'if snapshot.stopped == "watchdog":', "if False:"),
        ("driver: stopped by others", "if snapshot.stopped and not self._stopped.is_set():", "if False:"),
        ("driver: its own stop", "if snapshot.stopped and not self._stopped.is_set():", "if snapshot.stopped:"),
        ("driver: no reading", "if snapshot is None:", "if False:"),
        ("driver: not read yet", "if self._snapshot is None:", "if False:"),
    ),
    *of(
        "robot_bridge/robots/sim_wire.py",
        LINK,
        ("link: a port", "not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:", "not 0 <= int(port) <= 65535:"),
        ("link: a port's range", " or not 0 <= int(port) <= 65535:", ":"),
        ("link: this computer", 'if host != "localhost" and not host.startswith("127."):', "if False:"),
        ("link: size", "if size > MAX_FRAME_BYTES:", "if False:"),
        ("link: deadline", "if (left := until - time.monotonic()) <= 0:", "if (left := 1.0) <= 0:"),
        ("link: closed", "if not part:", "if False:"),
    ),
    *of(
        "robot_bridge/robots/sim_camera_geometry.py",
        LINK,
        ("projection: the front camera", 'if camera != "front":', "if False:"),
        ("projection: what it sees", "if depth <= 1e-6:", "if False:"),
    ),
    *of(
        "robot_bridge/protocol/sockets.py",
        LINK,
        ("message: of its stream", "if not data.startswith(self._prefix):", "if False:"),
    ),
    *of(
        "robot_bridge/protocol/client.py",
        LINK,
        ("keys: refusal said", "if refusal := self._dealer.refusal():", 'if refusal := "":'),
    ),
    *of(
        "robot_bridge/protocol/keys.py",
        LINK,
        ("keys: revoked, known", "if name not in table:", "if False:"),
    ),
]
