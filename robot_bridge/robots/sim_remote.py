"""Driver of the simulator server: the `Robot` that a bridge uses when the simulated arm is a process of its own."""

import itertools
import logging
import socket
import threading
import time

import msgspec
import numpy as np

from takeover.data.schema import CameraSpec, RobotSpec
from takeover.robot_bridge.arbitration import command_life_s
from takeover.robot_bridge.robots import sim_wire
from takeover.robot_bridge.robots.base import Advice, Evaluation, FloatArray, Reading, RobotError
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_wire import Request, ServerReply, Snapshot

log = logging.getLogger("bridge.robot")

CONNECT_S = 1.0
RESET_S = 3.0
DEADLINE_PERIODS = 2.0


class _Link:
    """One connection: a request at a time, each with a deadline. After an error it is closed and made anew by the next `ask`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._family, self._where = sim_wire.parse_address(address)
        self._stream: socket.socket | None = None
        self._decoder = msgspec.msgpack.Decoder(ServerReply)
        self._encoder = msgspec.msgpack.Encoder()
        self._lock = threading.Lock()

    def ask(self, request: Request, timeout_s: float) -> ServerReply:
        """Raises `RobotError` when the server is gone, stuck, or refuses."""
        with self._lock:
            try:
                until = time.monotonic() + timeout_s
                stream = self._stream or self._connect(timeout_s)
                stream.settimeout(timeout_s)
                sim_wire.send(stream, self._encoder.encode(request))
                reply = self._decoder.decode(sim_wire.receive(stream, until))
            except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
                self.close()
                text = "did not answer in time" if isinstance(error, TimeoutError) else f"is not there: {error}"
                raise RobotError(f"the simulator server at {self._address} {text}; start it with `takeover sim-server`") from error
        if reply.error:
            raise RobotError(f"simulator server: {reply.error}")
        return reply

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _connect(self, timeout_s: float) -> socket.socket:
        stream = socket.socket(self._family, socket.SOCK_STREAM)
        stream.settimeout(timeout_s)
        try:
            stream.connect(self._where)
        except OSError:
            stream.close()
            raise
        if self._family == socket.AF_INET:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = stream
        return stream


class RemoteSimRobot:
    """`Robot` over a link with deadlines. `stop` has a connection of its own and never waits for a reading."""

    def __init__(self, task: str, address: str, parameters: dict[str, float] | None = None) -> None:
        if not address:
            raise RobotError(
                "robot sim-server needs an address: --robot-address 127.0.0.1:PORT or /path/of/a/socket, as `takeover sim-server`"
            )
        self.mirror = SimRobot(task, parameters)  # never stepped: shows the cameras what the server's robot looks like
        self._link, self._stop_link = _Link(address), _Link(address)
        self._spec = self.mirror.spec
        self._deadline_s = DEADLINE_PERIODS / self._spec.control_hz
        self._session = ""
        self._seq = itertools.count()
        self._read_ns = 0  # when the newest reading was asked for: a command is as old as what it was decided on
        self._snapshot: Snapshot | None = None
        self._tick, self._tick_ns = -1, 0  # the server's newest period, and when it was first seen
        self._stopped = threading.Event()
        self._life_s = command_life_s(1.0 / self._spec.control_hz)
        self._watched: bool | None = None  # whether its watchdog stops it in time; None: it has not said yet

    @property
    def spec(self) -> RobotSpec:
        """Without a watchdog until the server was heard, and where its own waits longer than a human command lives."""
        return msgspec.structs.replace(self._spec, cameras=self.mirror.spec.cameras, has_watchdog=bool(self._watched))

    def connect(self) -> None:
        self._hello(CONNECT_S)

    def _hello(self, timeout_s: float) -> None:
        """A new session; the one before may be replaced by nobody else while it drives."""
        self._read_ns = time.monotonic_ns()
        reply = self._link.ask(Request(op="hello", session=self._session), timeout_s)
        self._session = reply.session
        if reply.spec is None or reply.spec.action != self._spec.action or reply.spec.task_id != self._spec.task_id:
            theirs = reply.spec.task_id if reply.spec is not None else "nothing"
            raise RobotError(f"the simulator server runs {theirs}, this station {self._spec.task_id}: start both with the same task")
        if reply.parameters != self.mirror.parameters:
            raise RobotError("the simulator server has other task parameters than this station: give both the same --set task...")
        self._judge_watchdog(reply.watchdog_s)
        self._stopped.clear()

    def _judge_watchdog(self, watchdog_s: float) -> None:
        """A bridge that dies in mid-motion relies on it. Raises `RobotError` where this one began with a faster one."""
        in_time = 0.0 < watchdog_s <= self._life_s
        life_s = self._life_s
        slow = f"its watchdog waits {watchdog_s:g} s, a command lives {life_s:g} s: start it with --watchdog-s {life_s:g} or less"
        if self._watched and not in_time:
            raise RobotError(f"the simulator server has come back slower to stop: {slow}")
        if self._watched is None:
            self._watched = in_time
            if not in_time:
                log.warning("the simulator server counts as a robot without a watchdog and is driven slowly: %s", slow)

    def read(self) -> Reading:
        asked_ns = time.monotonic_ns()
        snapshot = self._take(self._ask(Request(op="read")))
        self._read_ns = asked_ns
        if snapshot.stopped == "watchdog":
            raise RobotError("the robot's own watchdog has stopped it: no command reached it in time")
        if snapshot.stopped and not self._stopped.is_set():
            raise RobotError("the robot was stopped, and not by this bridge now: by somebody else, or by a stop that arrived late")
        if snapshot.tick != self._tick:
            self._tick, self._tick_ns = snapshot.tick, time.monotonic_ns()
        return Reading(
            t_ns=self._tick_ns,
            observation=np.array(snapshot.observation),
            tool_position=np.array(snapshot.tool_position),
            tool_velocity=np.array(snapshot.tool_velocity),
            tool_yaw=snapshot.tool_yaw,
            gripper_width_m=snapshot.gripper_width_m,
            force_n=np.array(snapshot.force_n),
            joints=np.array(snapshot.joints),
            gripper_force_n=snapshot.gripper_force_n,
        )

    def apply(self, action: FloatArray) -> None:
        """Zeros are sent while stopped, so that the server's watchdog sees a living bridge.

        What was decided on a reading older than the watchdog allows is refused: its process hung in between.
        """
        wanted = np.zeros(self._spec.action.size) if self._stopped.is_set() else np.asarray(action, np.float64)
        self._ask(Request(op="command", session=self._session, seq=next(self._seq), t_ns=self._read_ns, action=wanted.tolist()))

    def advance(self) -> None:
        """The server has its own clock."""

    def stop(self) -> None:
        self._stopped.set()
        try:
            self._stop_link.ask(Request(op="stop"), self._deadline_s)
        except RobotError as error:
            log.error("stop did not reach the robot, whose watchdog will: %s", error)

    def clear(self) -> None:
        """With a new session: also a server that was started anew meanwhile knows it, and nothing older counts."""
        self._hello(self._deadline_s)

    def reset(self, seed: int) -> None:
        self._take(self._link.ask(Request(op="reset", session=self._session, seed=seed), RESET_S))
        self._tick = -1  # its clock stood meanwhile

    def evaluate(self) -> Evaluation:
        snapshot = self._known()
        return Evaluation(snapshot.reward, snapshot.success, snapshot.terminated)

    def save(self) -> bytes:
        return self._known().state

    def restore(self, state: bytes) -> None:
        self._take(self._link.ask(Request(op="restore", session=self._session, state=state), RESET_S))
        self._tick = -1

    def advice(self) -> Advice:
        snapshot = self._known()
        return Advice(snapshot.truth, snapshot.expert_action)

    def inject(self, fault: str, value: float) -> None:
        self._take(self._ask(Request(op="inject", session=self._session, name=fault, value=value)))

    def attach_cameras(self, specs: list[CameraSpec]) -> None:
        self.mirror.attach_cameras(specs)

    def close(self) -> None:
        self._link.close()
        self._stop_link.close()

    def _ask(self, request: Request) -> ServerReply:
        return self._link.ask(request, self._deadline_s)

    def _take(self, reply: ServerReply) -> Snapshot:
        """Keep the newest snapshot and show it to the cameras. Raises `RobotError` when there is none."""
        snapshot = reply.snapshot
        if snapshot is None:
            raise RobotError("the simulator server answered without a reading")
        self._snapshot = snapshot
        self.mirror.show(snapshot.qpos, snapshot.variables, snapshot.camera_offset, frozen=snapshot.camera_frozen)
        return snapshot

    def _known(self) -> Snapshot:
        if self._snapshot is None:
            raise RobotError("the simulator server was not read yet")
        return self._snapshot
