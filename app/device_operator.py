"""A person with a gamepad or SpaceMouse in a terminal: the same commands as the console sends, without a window."""

import logging
import threading
import time
from collections.abc import Collection

from takeover import __version__
from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.manager import KINDS, DeviceManager
from takeover.app.inputs.mapping import Frame, to_canonical
from takeover.app.outcome_episode import episode_meant
from takeover.data.drivers import UNNAMED, Driver
from takeover.data.schema import (
    Command,
    ControlRequest,
    Hold,
    Lease,
    Mark,
    Next,
    Outcome,
    Resume,
    RobotSpec,
    Role,
    SetOutcome,
    SpeedScale,
    State,
    Stop,
)
from takeover.robot_bridge.protocol import ControlClient, Endpoints, RequestTimeout, Subscriber, WatchedPush

SENDER = "terminal"
PERIOD_S = 0.02
LEASE_PERIOD_S = 0.2
STOP_TOLD_NS = 500_000_000
SPEEDS = (0.25, 0.5, 0.75, 1.0)

log = logging.getLogger("terminal")


class DeviceOperator:
    """A thread that reads the devices and commands the bridge at 50 Hz. Use as a context manager."""

    def __init__(self, endpoints: Endpoints, frame: Frame = "view", kinds: Collection[str] = KINDS, driver: Driver = UNNAMED) -> None:
        """``driver``: who drives, for the record, see `ControlClient`."""
        self._endpoints = endpoints
        self._kinds = kinds
        self._driver = driver
        self._frame = frame
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="terminal-operator")
        self._speed = 1.0
        self._sequence = 0
        self._lease = ""
        self._told_stop_ns = 0  # of which STOP it was said that it is not confirmed
        self.reading: DeviceReading | None = None

    def __enter__(self) -> "DeviceOperator":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        manager = DeviceManager(kinds=self._kinds)
        client = ControlClient(self._endpoints, SENDER, Role.OPERATOR, self._driver)
        commands: WatchedPush[Command] = WatchedPush(self._endpoints, "command", Command)
        states: Subscriber[State] = Subscriber(self._endpoints, "state", State)
        state: State | None = None
        session, spec = "", None
        lease_asked_s, asked = 0.0, -1
        try:
            while not self._closing.wait(min(PERIOD_S, 0.5 / spec.control_hz) if spec is not None else PERIOD_S):
                if (news := states.receive()) is not None:
                    state = news
                    client.saw(state)
                    commands.arrived(state.command_age_ms if state.commander == SENDER else 0.0)
                if state is None:
                    continue
                if state.session != session:
                    session, spec = self._shake_hands(client)
                if not client.unseen and time.monotonic() - lease_asked_s > LEASE_PERIOD_S:
                    lease_asked_s = time.monotonic()
                    asked = client.send(Lease(sender=SENDER))
                while (envelope := client.poll()) is not None:
                    if envelope.request_id == asked:
                        self._lease = envelope.reply.lease  # refused: none, see the console's link
                    if envelope.reply.error:
                        log.info("refused: %s", envelope.reply.error)
                self._tell_of_stop(client.stop_pressed_ns)
                if spec is not None:
                    self.reading = manager.poll()
                    if self._lease and not client.unseen:
                        commands.send(self._command(self.reading, session, spec, state))
                    for press in self.reading.presses:
                        if (request := self._request(press, state)) is not None:
                            client.send(request)
        finally:
            client.finish_stop()
            client.send(Lease(sender=SENDER, release=True))
            for item in (client, commands, states):
                item.close()
            manager.close()

    def _tell_of_stop(self, pressed_ns: int) -> None:
        """Once per STOP that the bridge does not confirm at once; ``pressed_ns`` 0: none waits."""
        if pressed_ns and pressed_ns != self._told_stop_ns and time.monotonic_ns() - pressed_ns > STOP_TOLD_NS:
            self._told_stop_ns = pressed_ns
            log.warning("the bridge has not confirmed the STOP: the robot may still move; it is sent again until it arrives")

    def _shake_hands(self, client: ControlClient) -> tuple[str, RobotSpec | None]:
        self._lease = ""
        try:
            reply = client.hello(f"takeover {__version__}")
        except RequestTimeout:
            return "", None
        return reply.session, reply.spec

    def _command(self, reading: DeviceReading, session: str, spec: RobotSpec, state: State) -> Command:
        self._sequence += 1
        return Command(
            session=session,
            sender=SENDER,
            seq=self._sequence,
            lease=self._lease,
            device_id=reading.device_id,
            device_kind=reading.kind,
            device_alive=reading.alive,
            deadman=reading.deadman,
            neutral=reading.neutral,
            focused=True,
            gui_alive=True,  # this very thread reads the device: when it hangs, no command is sent at all
            action=to_canonical(reading, spec, self._frame, self._speed, state.tool_yaw),
            authority=spec.action.group_names,
            newest_state_seq=state.seq,
        )

    def _request(self, press: str, state: State) -> ControlRequest | None:
        if press in ("speed_up", "speed_down"):
            index = SPEEDS.index(self._speed) + (1 if press == "speed_up" else -1)
            self._speed = SPEEDS[min(max(index, 0), len(SPEEDS) - 1)]
            return SpeedScale(sender=SENDER, scale=self._speed)
        requests: dict[str, ControlRequest] = {
            "success": SetOutcome(sender=SENDER, outcome=Outcome.SUCCESS, episode_id=episode_meant(state)),
            "failure": SetOutcome(sender=SENDER, outcome=Outcome.FAILURE, episode_id=episode_meant(state)),
            "mark": Mark(sender=SENDER),
            "hold": Hold(sender=SENDER),
            "resume": Resume(sender=SENDER),
            "next": Next(sender=SENDER),
            "undo": Next(sender=SENDER, discard=True),
            "stop": Stop(sender=SENDER, reason="device"),
        }
        return requests.get(press)
