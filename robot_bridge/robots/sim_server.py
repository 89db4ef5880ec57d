"""The simulated robot as a process of its own: it stands in for hardware that goes on living when the bridge dies.

It has its own clock, its own watchdog (no command for a while: decelerate, stand, latch until cleared) and its own `Monitor`.
"""

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from takeover.robot_bridge.robots import sim_wire
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_monitor import Bounds, Monitor
from takeover.robot_bridge.robots.sim_wire import Request, ServerReply, Snapshot

log = logging.getLogger("sim-server")

WATCHDOG_S = 0.15
DECELERATION_M_S2 = 5.0
STANDSTILL_M_S = 0.002
MAX_CONNECTIONS = 16
_COMMANDERS = ("command", "reset", "restore", "inject")  # what only the session that drives may ask; anyone may read and stop


class SimServer:
    """Serves one `SimRobot` on one address until `close`. Raises `RobotError` when the address cannot be used."""

    def __init__(self, robot: SimRobot, address: str, watchdog_s: float = WATCHDOG_S) -> None:
        if not 0.05 <= watchdog_s <= 1.0:
            raise RobotError(f"watchdog of {watchdog_s} s: allowed 0.05 to 1 s")
        self.robot = robot
        self.watchdog_s = watchdog_s
        spec = robot.spec
        self._spec = spec
        self._period_s = 1.0 / spec.control_hz
        moving = tuple(i for i, unit in enumerate(spec.action.units) if unit == "m" and spec.action.names[i][-1] in "xyz")
        self._scale = np.array(spec.action.scale)
        self._moving = list(moving)
        low, high = spec.workspace_low, spec.workspace_high
        self.monitor = Monitor(
            Bounds(tuple(spec.action.scale), moving, self._period_s, (low[0], low[1], low[2]), (high[0], high[1], high[2]))
        )
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._session = ""
        self._seq = -1
        self._action = np.zeros(spec.action.size)
        self._fed_ns = 0  # when the newest command arrived; 0: none since the session began
        self._latched = ""
        self._latched_ns = 0  # when
        self._silent_since_ns = 0  # of the watchdog's newest trip
        self._tick = 0
        family, where = sim_wire.parse_address(address)
        self._path = Path(address) if family == socket.AF_UNIX else None
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if self._path is not None:
                self._path.unlink(missing_ok=True)
            else:
                self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(where)
            if self._path is not None:
                self._path.chmod(0o600)
            self._listener.listen(MAX_CONNECTIONS)
        except OSError as error:
            self._listener.close()
            raise RobotError(f"cannot listen on {address}: {error.strerror}") from error
        bound = self._listener.getsockname()
        self.address = address if self._path is not None else f"{bound[0]}:{bound[1]}"
        self._handlers: dict[str, Callable[[Request], ServerReply]] = {
            "hello": self._hello,
            "read": lambda request: ServerReply(snapshot=self._snapshot()),
            "command": self._command,
            "stop": self._stop,
            "reset": self._reset,
            "restore": self._restore,
            "inject": self._inject,
            "monitor": lambda request: ServerReply(monitor=self.monitor.report()),
        }
        self._open = threading.Semaphore(MAX_CONNECTIONS)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Step the physics on the calling thread until ``stopped()``."""
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        period_ns = int(self._period_s * 1e9)
        due = time.monotonic_ns()
        while not stopped() and not self._closing.is_set():
            time.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
            with self._lock:
                self._step()
            due = max(due + period_ns, time.monotonic_ns() - period_ns)  # a computer that slept does not catch up

    def close(self) -> None:
        self._closing.set()
        self._listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    # --- physics thread, lock held ---

    def _step(self) -> None:
        now = time.monotonic_ns()
        silent_s = (now - self._fed_ns) / 1e9 if self._fed_ns else 0.0
        if not self._latched and silent_s > self.watchdog_s:
            self._latched, self._latched_ns, self._silent_since_ns = "watchdog", now, self._fed_ns
            self.monitor.tripped(silent_s * 1000.0)
            log.warning("no command for %.0f ms: stopping", silent_s * 1000.0)
        if self._latched:
            self._decelerate()
        self.robot.apply(self._action)
        self.robot.advance()
        self._tick += 1
        speed = float(np.linalg.norm(self.robot.read().tool_velocity))
        if self._latched == "watchdog" and speed < STANDSTILL_M_S:
            self.monitor.stood_still((time.monotonic_ns() - self._silent_since_ns) / 1e6)

    def _decelerate(self) -> None:
        """Shorten the command evenly until it is zero; rotation and gripper stop at once."""
        keep = np.zeros_like(self._action)
        speed = float(np.linalg.norm(self._action[self._moving] * self._scale[self._moving])) / self._period_s
        left = max(0.0, 1.0 - DECELERATION_M_S2 * self._period_s / speed) if speed > 0 else 0.0
        keep[self._moving] = self._action[self._moving] * left
        self._action = keep

    def _snapshot(self) -> Snapshot:
        robot = self.robot
        reading, evaluation, advice = robot.read(), robot.evaluate(), robot.advice()
        return Snapshot(
            tick=self._tick,
            stopped=self._latched,
            observation=reading.observation.tolist(),
            tool_position=reading.tool_position.tolist(),
            tool_velocity=reading.tool_velocity.tolist(),
            tool_yaw=reading.tool_yaw,
            gripper_width_m=reading.gripper_width_m,
            force_n=reading.force_n.tolist(),
            joints=reading.joints.tolist(),
            gripper_force_n=reading.gripper_force_n,
            reward=evaluation.reward,
            success=evaluation.success,
            terminated=evaluation.terminated,
            truth=advice.values,
            expert_action=advice.expert_action,
            state=robot.save(),
            qpos=robot.data.qpos.tolist(),
            variables=robot.variables.tolist(),
            camera_offset=robot.camera_offset.tolist(),
            camera_frozen=robot.camera_frozen,
        )

    # --- requests, lock held ---

    def _hello(self, request: Request) -> ServerReply:
        """A new session: what was commanded before counts no more; the robot stands until the first command.

        The only way out of a latched stop. Refused while another session drives: a robot has one commander.
        """
        drives = self._fed_ns and not self._latched and time.monotonic_ns() - self._fed_ns <= self.watchdog_s * 1e9
        if drives and request.session != self._session:
            self.monitor.refused("second_commander")
            return ServerReply(error="another bridge drives this robot; stop that one first")
        self._session, self._seq, self._fed_ns = secrets.token_hex(8), -1, 0
        self._action = np.zeros_like(self._action)
        self._latched = ""
        self.monitor.standstill()
        return ServerReply(session=self._session, spec=self._spec, watchdog_s=self.watchdog_s, parameters=self.robot.parameters)

    def _command(self, request: Request) -> ServerReply:
        if request.seq <= self._seq:
            self.monitor.refused("old_sequence")
            return ServerReply(error="command with an old sequence number")
        self._seq = request.seq
        age_s = (time.monotonic_ns() - request.t_ns) / 1e9
        if not 0.0 <= age_s <= self.watchdog_s:
            # it waited in the socket of a process that hung: what was meant for then is not done now
            self.monitor.refused("late")
            return ServerReply(error=f"the command was sent {age_s:.3f} s ago; a command lives {self.watchdog_s} s")
        if self._latched and request.t_ns < self._latched_ns:
            # decided before the robot stopped, so its sender could not know; one that is decided later must ask for no motion
            self.monitor.refused("overtaken")
            return ServerReply()
        sound = self.monitor.command(request.action, self.robot.read().tool_position.tolist(), bool(self._latched))
        if not sound:
            return ServerReply(error="the command is not what this robot can execute")
        self._fed_ns = time.monotonic_ns()
        if not self._latched:
            self._action = np.array(request.action)
        return ServerReply()

    def _stop(self, request: Request) -> ServerReply:
        if not self._latched:
            self._latched, self._latched_ns = "stop", time.monotonic_ns()
        self._action = np.zeros_like(self._action)
        self.monitor.standstill()
        return ServerReply()

    def _reset(self, request: Request) -> ServerReply:
        self.robot.reset(request.seed)
        self._action, self._fed_ns = np.zeros_like(self._action), 0
        self.monitor.standstill()
        return ServerReply(snapshot=self._snapshot())

    def _restore(self, request: Request) -> ServerReply:
        self.robot.restore(request.state)
        self._action, self._fed_ns = np.zeros_like(self._action), 0
        self.monitor.standstill()
        return ServerReply(snapshot=self._snapshot())

    def _inject(self, request: Request) -> ServerReply:
        self.robot.inject(request.name, request.value)
        return ServerReply(snapshot=self._snapshot())

    # --- connections ---

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return  # closed
            if not self._open.acquire(blocking=False):
                stream.close()
                continue
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        decoder, encoder = msgspec.msgpack.Decoder(Request), msgspec.msgpack.Encoder()
        try:
            with stream:
                if stream.family == socket.AF_INET:
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while not self._closing.is_set():
                    reply = self._answer(decoder.decode(sim_wire.receive(stream)))
                    sim_wire.send(stream, encoder.encode(reply))
        except (OSError, msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
            log.info("connection ended: %s", error)
        finally:
            self._open.release()

    def _answer(self, request: Request) -> ServerReply:
        with self._lock:
            if request.op in _COMMANDERS and request.session != self._session:
                self.monitor.refused("foreign_session")
                return ServerReply(error=f"{request.op} of another session")
            try:
                return self._handlers[request.op](request)
            except RobotError as error:
                return ServerReply(error=str(error))
