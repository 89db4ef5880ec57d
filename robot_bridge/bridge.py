"""The bridge put together: robot, cameras, sockets, loop. `app.processes.bridge` runs it; tests run it the same way."""

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable

import msgspec
from ulid import ULID

from takeover.data import audit
from takeover.data.schema import RunConfig, State
from takeover.robot_bridge.camera_thread import CameraThread
from takeover.robot_bridge.cameras import CameraSource
from takeover.robot_bridge.control import ControlLoop
from takeover.robot_bridge.episode_book import EpisodeBook
from takeover.robot_bridge.io import BridgeIO
from takeover.robot_bridge.lockstep import LockstepLoop
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.protocol import Endpoints
from takeover.robot_bridge.realtime import RealTimeLoop
from takeover.robot_bridge.robots.base import Robot
from takeover.robot_bridge.safety import SafetyFilter
from takeover.robot_bridge.sight import check_line_of_sight, nobody_sees
from takeover.robot_bridge.status import StatusBoard

log = logging.getLogger("bridge")

IO_WAIT_S = 0.1
FIRST_PICTURE_S = 5.0
REFUSAL_NOTE_S = 1.0


class Bridge:
    """Binds every socket and connects the robot when made. Raises `EndpointError`, `RobotError` or `ValueError` (limits)."""

    def __init__(self, config: RunConfig, robot: Robot, cameras: CameraSource | None, software: str = "") -> None:
        self.config = config
        self.session = str(ULID()).lower()
        lockstep = config.clock == "lockstep"
        check_line_of_sight(config)
        endpoints = Endpoints.of(config)
        self._endpoints = endpoints
        if lockstep and endpoints.link is not None:
            raise ValueError("lockstep is for one computer; a bridge on a network runs in real time")
        endpoints.prepare()
        robot.connect()
        spec = robot.spec
        if lockstep and not spec.simulated:
            raise ValueError(f"robot {spec.robot_id} is real: it runs in real time; in lockstep nobody need be there and no command is old")
        SafetyFilter(spec, config.limits)  # raises for what it could not limit: before anybody can reach this bridge
        if cameras is not None:
            spec = msgspec.structs.replace(spec, cameras=cameras.specs)
        spec = msgspec.structs.replace(spec, policy_cameras=config.policy_cameras or spec.policy_cameras)
        known = [camera.name for camera in spec.cameras] if cameras is not None else []
        if nobody_sees(config, spec, known):
            raise ValueError(
                f"line_of_sight: robot {spec.robot_id} is real and has no camera, so nobody would see what it does; "
                'set line_of_sight = "yes" in station.toml if the people who drive see the robot itself, else give it a camera'
            )
        if unknown := [name for name in spec.policy_cameras if name not in known]:
            raise ValueError(f"policy_cameras: {', '.join(unknown)} is no camera of this station; known: {', '.join(known) or 'none'}")
        self._refused = 0
        self._refusal_noted_s = -REFUSAL_NOTE_S
        self._count_refusal: Callable[[str, str], None] | None = None  # strangers may come before there is a record to tell it
        endpoints.listen(self._client_refused)
        self._note_start()
        self.io = BridgeIO(endpoints, self.session, spec, robot.stop, lockstep=lockstep)
        self._count_refusal = self.io.connection_refused
        self.cameras: CameraThread | None = None
        if cameras is not None:
            seen = spec.policy_cameras
            self.cameras = CameraThread(cameras, endpoints, self.io.records, synchronous=lockstep, policy_cameras=seen)
        if (cameras_thread := self.cameras) is not None:
            quality = cameras_thread.quality
            self.io.on_view_report = lambda sender, age_ms, driver: quality.report(sender, age_ms, time.monotonic(), driver)
        book = EpisodeBook(config, spec, self.io.records, software)
        loop: type[ControlLoop] = LockstepLoop if lockstep else RealTimeLoop
        self.control = loop(config, robot, self.io, book, self.cameras)
        if not lockstep:  # there an episode's file is the same in every run
            self.io.where = self.control.where
        self.io.actor.driven = self.control.driven
        self._board = StatusBoard(self.control)
        self._io_stop = threading.Event()

    def own_garbage(self) -> None:
        """For a process that is nothing but this bridge: no collector may pause the control thread between two steps."""
        if isinstance(self.control, RealTimeLoop):
            gc.collect()
            gc.freeze()
            gc.disable()
            self.control.collects_garbage = True

    def run(self, stopped: Callable[[], bool], ready: Callable[[], None] = lambda: None) -> None:
        """Run on the calling thread until ``stopped()``; then the robot is stopped and everything closed."""
        sys.setswitchinterval(0.0002)  # a busy rendering or I/O thread must not keep the control thread waiting for 5 ms
        control = self.control
        control.reading = control.robot.read()
        control.change(ModeEvent.CONNECT)
        if self.cameras is not None:
            self.cameras.start()
        io_thread: threading.Thread | None = None
        if isinstance(control, RealTimeLoop):
            self.io.compose_state = self._compose_alive
            io_thread = threading.Thread(target=self._run_io, name="io", daemon=True)
            io_thread.start()
        else:
            self.io.compose_state = self._board.compose
        log.info("session %s, %s, clock %s", self.session, control.spec.robot_id, self.config.clock)
        try:
            self._first_pictures()
            ready()
            control.run(stopped)
        finally:
            control.stop_robot()
            if io_thread is not None:
                self._io_stop.set()
                self.io.state_now()
                io_thread.join(2.0)
            if self.cameras is not None:
                self.cameras.close()
            self.io.pump(0.0)
            self.io.close()
            self._endpoints.close()
            control.robot.close()

    def _note_start(self) -> None:
        """In the audit log: limits that differ from the run before, and whether people see the robot itself."""
        workspace = self.config.workspace
        try:
            for name, (before, now) in audit.note_limits(workspace, "bridge", msgspec.to_builtins(self.config.limits)).items():
                log.warning("limit %s was %s in the run before, is %s now", name, before, now)
            audit.note_sight(workspace, "bridge", self.config.line_of_sight)
        except OSError as error:
            log.error("audit log: %s", error)

    def _client_refused(self, stream: str, public_key: str) -> None:
        """Authenticator's thread: somebody without an admitted key, or with one that is not for this stream."""
        self._refused += 1
        now_s = time.monotonic()
        if now_s - self._refusal_noted_s >= REFUSAL_NOTE_S:  # strangers shall not fill the disk
            self._refusal_noted_s = now_s
            log.warning("refused a connection to %s with key %s; %d since the start", stream, public_key, self._refused)
            try:
                audit.append(self.config.workspace, f"key {public_key}", "client_refused", stream=stream, since_start=self._refused)
            except OSError as error:
                log.error("audit log: %s", error)
        if self._count_refusal is not None:
            self._count_refusal(stream, public_key)

    def _first_pictures(self) -> None:
        """Rendering threads exist before the control thread asks for priority: they would inherit it."""
        if self.cameras is None:
            return
        self.cameras.offer("", -1)
        deadline = time.monotonic() + FIRST_PICTURE_S
        while not self.cameras.error and self.cameras.worst_age_ms() < 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.cameras.error:
            log.error("no pictures: %s", self.cameras.error)

    def _compose_alive(self, seq: int, now_ns: int) -> State | None:
        """No heartbeat for a control thread that is stuck: everybody shall see that the link is lost."""
        if isinstance(self.control, RealTimeLoop) and not (self.control.check_alive(now_ns) and self.control.heartbeat_due(now_ns)):
            return None
        return self._board.compose(seq, now_ns)

    def _run_io(self) -> None:
        while not self._io_stop.is_set():
            try:
                self.io.pump(IO_WAIT_S)
            except Exception:
                # without this thread nobody could stop the robot: stand still and go on listening
                log.exception("I/O step failed; the robot is stopped")
                self.io.inbox.stop("the bridge's I/O failed; see its log")
                self.control.stop_robot()
