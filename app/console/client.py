"""The console's link to the station: one thread that owns every socket.

In: the newest state, pictures, statuses and finished episodes, in slots the GUI reads when it paints. Out: commands at 50 Hz from
the driving device, control requests, STOP. Commands claim authority only while the GUI's heartbeat is young; STOP from a
device goes out from this thread, so it works while the GUI is blocked.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from takeover.app.console.client_slots import Notice, StationSlots, refusal_text
from takeover.app.inputs.base import DeviceReading
from takeover.app.outcome_episode import episode_meant
from takeover.data.drivers import UNNAMED, Driver
from takeover.data.schema import (
    PROTOCOL_VERSION,
    ActorStatus,
    CameraFrame,
    Command,
    Committed,
    ControlRequest,
    EvaluatorStatus,
    Hello,
    LauncherReply,
    LauncherRequest,
    LearnerStatus,
    Lease,
    Mode,
    Outcome,
    ProcessStatus,
    Reply,
    RobotSpec,
    Role,
    SetOutcome,
    State,
    Stop,
    ViewReport,
)
from takeover.data.schema import Hold as HoldRequest
from takeover.data.schema import Mark as MarkRequest
from takeover.data.schema import Next as NextRequest
from takeover.data.schema import Resume as ResumeRequest
from takeover.data.schema import UndoOutcome as UndoRequest
from takeover.robot_bridge.protocol import ClockOffset, ControlClient, Dealer, Endpoints, Subscriber, WatchedPush, wait

GUI_HEARTBEAT_MS = 100.0
COMMAND_PERIOD_S = 0.02
REPLY_TIMEOUT_S = 1.5
_TICK_S = 0.005  # longest sleep: bounds how late a STOP or a request leaves
_LEASE_RENEWED_S, _LEASE_RETRY_S = 0.2, 0.5  # with it, often enough that it never lapses between two; without it
_log = logging.getLogger("console")


class DeviceSource(Protocol):
    """What drives: `takeover.app.inputs.manager.DeviceManager`, or one device alone."""

    def poll(self) -> DeviceReading: ...


@dataclass
class _Pending:
    request: ControlRequest
    sent_ns: int
    done: Callable[[Reply], None] | None


Mapper = Callable[[DeviceReading, RobotSpec], list[float]]


class ConsoleClient(StationSlots):
    """Create, `start`, read the slots, `close`. Slots are replaced whole, so reading them needs no lock."""

    def __init__(
        self,
        endpoints: Endpoints,
        sender: str,
        devices: DeviceSource,
        to_action: Mapper,
        software: str = "takeover console",
        driver: Driver = UNNAMED,
    ) -> None:
        """``driver``: who drives, for the record, see `ControlClient`."""
        super().__init__()
        self._driver = driver
        self.sender = sender
        self.devices = devices
        self.lease = ""
        self.want_lease = True
        self._lease_refusal = ""
        self.only_on_press = False  # a scripted operator drives: take the lease only while a person presses
        self.round_trip_ms = -1.0
        self.reading: DeviceReading | None = None
        self.on_speed: Callable[[int], None] | None = None
        self.focused = False
        self.blind = False  # the person here depends on pictures that do not come: what is driven is held
        self.gui_stamp_ns = 0
        self.stop_pressed_ns = 0  # of the STOP that the bridge has not confirmed yet; 0: there is none
        self.deadman_since_ns = 0  # how long the person has been holding it; 0: not held
        self.commands_sent = 0
        self.bad_messages = 0
        self._endpoints = endpoints
        self._to_action = to_action
        self._software = software
        self._outbox: deque[tuple[ControlRequest, Callable[[Reply], None] | None]] = deque()
        self._launcher_outbox: deque[LauncherRequest] = deque()
        self._stop_asked: deque[str] = deque()
        self._ids = 0
        self._seq = 0
        self._clock: ClockOffset | None = None
        self._next_report_ns = 0
        self._next_lease_ns = 0
        self._next_hello_ns = 0
        self._pressed_ns = 0
        self._drivable = False  # the devices' twist can be mapped to this robot's actions
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console-link", daemon=True)

    # --- called from the GUI thread ---

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def stamp_gui(self) -> None:
        """The GUI thread is alive (every 20 ms)."""
        self.gui_stamp_ns = time.monotonic_ns()

    def request(self, request: ControlRequest, done: Callable[[Reply], None] | None = None) -> None:
        """Send soon. Refusals become notices; ``done`` runs on the link thread."""
        self._outbox.append((request, done))

    def stop_robot(self, reason: str) -> None:
        """Latching STOP; any thread."""
        self.stop_pressed_ns = self.stop_pressed_ns or time.monotonic_ns()
        self._stop_asked.append(reason)

    def launcher(self, action: str, process: str = "") -> None:
        """Ask the launcher to start, stop or restart a process, or to shut the station down."""
        self._ids += 1
        self._launcher_outbox.append(LauncherRequest(request_id=self._ids, action=action, process=process))  # type: ignore[arg-type]

    @property
    def holds_lease(self) -> bool:
        state = self.state
        return bool(self.lease) and state is not None and state.commander == self.sender

    def close(self, timeout_s: float = 2.0) -> None:
        """Give the lease back, close the sockets."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # --- the link thread ---

    def _run(self) -> None:
        ends = self._endpoints
        self._inputs: list[tuple[Subscriber[Any], Callable[[Any], None]]] = []
        self._listen("state", State, self._on_state)
        self._listen("learner_status", LearnerStatus, self._on_learner)
        self._listen("actor_status", ActorStatus, self._on_actor)
        self._listen("evaluator_status", EvaluatorStatus, self._on_evaluator)
        self._listen("process_status", ProcessStatus, self._on_processes)
        self._listen("committed", Committed, self._on_committed, latest=False)
        self._cameras: set[str] = set()
        self._command_out: WatchedPush[Command] = WatchedPush(ends, "command", Command)
        self._control = ControlClient(ends, self.sender, Role.OPERATOR, self._driver)
        self._launcher: Dealer[LauncherRequest, LauncherReply] = Dealer(ends, "launcher", LauncherRequest, LauncherReply)
        self._clock = self._control.clock if ends.over_network("control") else None
        self._pending: dict[int, _Pending] = {}
        try:
            self._loop()
            self._say_goodbye()
        except Exception:
            _log.exception("the link thread failed")
            raise
        finally:
            for subscriber, _ in self._inputs:
                subscriber.close()
            self._command_out.close()
            self._control.close()
            self._launcher.close()

    def _loop(self) -> None:
        next_command_s = time.monotonic()
        while not self._closing.is_set():
            self._send_stop()
            self._receive(min(_TICK_S, max(0.0, next_command_s - time.monotonic())))
            self._handshake()
            self._send_requests()
            self._receive_replies()
            self._report_view()
            if time.monotonic() >= next_command_s:
                self._command()
                period_s = min(COMMAND_PERIOD_S, 0.5 / self.spec.control_hz) if self.spec is not None else COMMAND_PERIOD_S
                next_command_s = max(next_command_s + period_s, time.monotonic())

    def _report_view(self) -> None:
        """Over a network, once a second: how late the pictures come, so that the bridge may send smaller ones."""
        now = time.monotonic_ns()
        if self._clock is None or self.spec is None or not self.frames or now < self._next_report_ns:
            return
        self._next_report_ns = now + 1_000_000_000
        here_ns = now + self._clock.offset_ns
        oldest_ns = max(here_ns - frame.t_source_ns for frame in list(self.frames.values()))
        late_ns = oldest_ns - max(0, self._clock.error_ns)  # below 0 where the clocks are known worse than the pictures are late
        self._control.send(ViewReport(sender=self.sender, age_ms=max(0, late_ns) / 1e6))

    @property
    def clock_offset_ns(self) -> int:
        """How far the bridge's clock is ahead; 0 on one computer."""
        return self._clock.offset_ns if self._clock is not None else 0

    @property
    def clock_error_ns(self) -> int:
        """How wrong that may be; -1: on one computer, or not known yet."""
        return self._clock.error_ns if self._clock is not None else -1

    def _say_goodbye(self) -> None:
        self._send_stop()
        self._control.finish_stop()
        while self._launcher_outbox:  # a closing window may just have asked for the shutdown
            self._launcher.send(self._launcher_outbox.popleft())
        if self.lease:
            self._control.send(Lease(sender=self.sender, release=True))
        time.sleep(0.02)  # LINGER is 0: let the last messages leave

    def _listen(self, topic: str, type_: type, handler: Callable[[Any], None], latest: bool = True) -> None:
        self._inputs.append((Subscriber(self._endpoints, topic, type_, latest=latest), handler))

    def _receive(self, timeout_s: float) -> None:
        ready = wait([subscriber for subscriber, _ in self._inputs], timeout_s)
        for subscriber, handler in self._inputs:
            if subscriber in ready and (message := subscriber.receive()) is not None:
                handler(message)
        self.bad_messages = sum(subscriber.bad_messages for subscriber, _ in self._inputs)

    def _on_state(self, message: State) -> None:
        self.state, self.state_ns = message, time.monotonic_ns()
        self._control.saw(message)
        self._command_out.arrived(message.command_age_ms if message.commander == self.sender else 0.0)
        self.states.append(message)

    def _handshake(self) -> None:
        """Say hello to every new bridge session; nothing is commanded before it answered."""
        state, now = self.state, time.monotonic_ns()
        if state is None or state.session == self.session or now < self._next_hello_ns:
            return
        self._next_hello_ns = now + 1_000_000_000
        self.lease = ""
        hello = Hello(protocol=PROTOCOL_VERSION, sender=self.sender, role=Role.OPERATOR, software=self._software)
        self._send(hello, self._greeted)

    def _greeted(self, reply: Reply) -> None:
        if reply.error or reply.spec is None:
            return
        if reply.protocol != PROTOCOL_VERSION:
            self.notices.append(
                Notice(time.monotonic_ns(), f"the bridge speaks protocol {reply.protocol}, this console {PROTOCOL_VERSION}")
            )
            return
        self.session, self.spec = reply.session, reply.spec
        try:  # once, here: the link must live on to carry STOP, whatever the robot's actions are
            self._to_action(self.devices.poll(), reply.spec)
            self._drivable = True
        except ValueError as error:
            self._drivable = False
            self.notices.append(Notice(time.monotonic_ns(), str(error)))
        self._next_lease_ns = 0
        for camera in reply.spec.cameras:
            if camera.name not in self._cameras:
                self._cameras.add(camera.name)
                self._listen(f"camera/{camera.name}", CameraFrame, self._on_frame)

    def _send(self, request: ControlRequest, done: Callable[[Reply], None] | None = None) -> None:
        self._pending[self._control.send(request)] = _Pending(request, time.monotonic_ns(), done)

    def _send_stop(self) -> None:
        while self._stop_asked:
            self._send(Stop(sender=self.sender, reason=self._stop_asked.popleft()))

    def _send_requests(self) -> None:
        while self._outbox:
            self._send(*self._outbox.popleft())
        while self._launcher_outbox:
            self._launcher.send(self._launcher_outbox.popleft())
        self._keep_lease()

    def _keep_lease(self) -> None:
        now = time.monotonic_ns()
        state = self.state
        if not self.session or state is None or self._control.unseen or now < self._next_lease_ns:
            return
        pressed = now - self._pressed_ns < 3_000_000_000
        wanted = self.want_lease and (pressed or not self.only_on_press)
        if not wanted and not self.holds_lease:
            return
        self._next_lease_ns = now + int((_LEASE_RENEWED_S if self.lease else _LEASE_RETRY_S) * 1e9)
        self._send(Lease(sender=self.sender, release=not wanted), self._leased if wanted else self._released)

    def _leased(self, reply: Reply) -> None:
        self.lease = reply.lease  # refused: none, and to go on with the one before would keep that alive against oneself

    def _released(self, reply: Reply) -> None:
        self.lease = ""

    def _receive_replies(self) -> None:
        while (envelope := self._control.poll()) is not None:
            pending = self._pending.pop(envelope.request_id, None)
            if pending is None:
                continue
            now = time.monotonic_ns()
            self.round_trip_ms = (now - pending.sent_ns) / 1e6
            told = refusal_text(pending.request, envelope.reply.error)
            if told and (not isinstance(pending.request, Lease) or told != self._lease_refusal):
                self.notices.append(Notice(now, told))
            if isinstance(pending.request, Lease):
                self._lease_refusal = envelope.reply.error  # asked for again and again: said once
            if pending.done is not None:
                pending.done(envelope.reply)
        if not self._stop_asked:
            self.stop_pressed_ns = self._control.stop_pressed_ns
        late = [key for key, item in self._pending.items() if time.monotonic_ns() - item.sent_ns > REPLY_TIMEOUT_S * 1e9]
        for key in late:
            name = type(self._pending.pop(key).request).__name__
            if name not in ("Lease", "Hello", "Stop"):  # of a STOP the banner tells until it is confirmed
                self.notices.append(Notice(time.monotonic_ns(), f"{name}: the bridge did not answer; it may be down"))
        while (answer := self._launcher.receive()) is not None:
            if answer.error:
                self.notices.append(Notice(time.monotonic_ns(), answer.error))

    def _command(self) -> None:
        reading = self.devices.poll()
        self.reading = reading
        now = time.monotonic_ns()
        self.deadman_since_ns = (self.deadman_since_ns or now) if reading.deadman else 0
        if reading.deadman:
            if self._pressed_ns == 0 or now - self._pressed_ns > 1_000_000_000:
                self._next_lease_ns = 0
            self._pressed_ns = now
        for press in reading.presses:
            self.press(press)
        state = self.state
        if self._control.unseen:
            return
        if not self.session or not self.lease or not self._drivable or state is None or self.spec is None or state.session != self.session:
            return
        self._seq += 1
        sent = self._command_out.send(
            Command(
                session=self.session,
                sender=self.sender,
                seq=self._seq,
                lease=self.lease,
                device_id=reading.device_id,
                device_kind=reading.kind,
                device_alive=reading.alive,
                deadman=reading.deadman,
                neutral=reading.neutral,
                focused=self.focused,
                gui_alive=now - self.gui_stamp_ns < GUI_HEARTBEAT_MS * 1e6 and not (self.blind and state.mode is Mode.TAKEOVER),
                action=self._to_action(reading, self.spec),
                authority=self.spec.action.group_names,
                newest_state_seq=state.seq,
            )
        )
        self.commands_sent += int(sent)

    def press(self, name: str) -> None:
        """Act on a device's or the keyboard's key by name (`DeviceReading.presses`). Any thread."""
        sender = self.sender
        if name == "stop":
            self.stop_robot("STOP pressed on the device")
        elif name in ("success", "failure"):
            self.request(SetOutcome(sender=sender, outcome=Outcome(name), episode_id=episode_meant(self.state)))
        elif name == "hold":
            self.request(HoldRequest(sender=sender))
        elif name == "resume":
            self.request(ResumeRequest(sender=sender))
        elif name == "mark":
            self.request(MarkRequest(sender=sender))
        elif name == "next":
            self.request(NextRequest(sender=sender))
        elif name == "undo":
            self.request(UndoRequest(sender=sender))
        elif name in ("speed_up", "speed_down") and self.on_speed is not None:
            self.on_speed(1 if name == "speed_up" else -1)
