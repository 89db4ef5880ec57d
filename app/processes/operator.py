"""The operator process: the scripted operator drives through the same commands as a person at the console.

In lockstep it answers every control step once; in real time it repeats its newest command at 50 Hz. Started on demand beside a
console (to make scripted demonstrations) it drives in demonstrations only and never keeps the lease from a person.
"""

import logging
import time
from collections import deque

import msgspec

from takeover import __version__
from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.mapping import to_canonical
from takeover.app.inputs.scripted import ScriptedDevice
from takeover.app.operators.scripted import ScriptedOperator
from takeover.app.processes.common import ProcessContext, StartupError, run_process
from takeover.data.schema import (
    Command,
    EpisodeKind,
    Lease,
    Outcome,
    Privileged,
    Reply,
    Resume,
    RobotSpec,
    Role,
    RunConfig,
    SetOutcome,
    State,
)
from takeover.robot_bridge.protocol import ControlClient, Endpoints, RequestTimeout, Subscriber, WatchedPush, wait

SENDER = "operator"
COMMAND_PERIOD_S = 0.02
LEASE_PERIOD_S = 0.2
HANDSHAKE_TIMEOUT_S = 1.0

log = logging.getLogger("operator")


class OperatorLoop:
    """Owns the sockets. One thread."""

    def __init__(self, config: RunConfig) -> None:
        endpoints = Endpoints.of(config)
        self._config = config
        self._lockstep = config.clock == "lockstep"
        self._client = ControlClient(endpoints, SENDER, Role.OPERATOR)
        self._commands: WatchedPush[Command] = WatchedPush(endpoints, "command", Command)
        self._privileged: Subscriber[Privileged] = Subscriber(endpoints, "privileged", Privileged, latest=not self._lockstep)
        self._states: Subscriber[State] = Subscriber(endpoints, "state", State)
        self._session = ""
        self._lease = ""
        self._lease_asked_s = 0.0
        self._leases_asked: deque[int] = deque(maxlen=64)  # request ids that are not answered yet
        self._spec: RobotSpec | None = None
        self._device: ScriptedDevice | None = None
        self._state_seq = 0
        self._command_seq = 0
        self._newest: Privileged | None = None
        self._answer: Command | None = None

    def run(self, context: ProcessContext) -> None:
        while not context.stop.is_set() and not self._handshake():
            pass
        context.ready()
        next_command_s = time.monotonic()
        while not context.stop.is_set():
            timeout_s = 0.1 if self._lockstep else max(0.0, next_command_s - time.monotonic())
            wait([self._privileged], timeout_s)
            self._read_state()
            self._drain_replies()
            self._keep_lease()
            while (privileged := self._privileged.receive()) is not None:
                self._observe(privileged)
            if not self._lockstep and time.monotonic() >= next_command_s:
                next_command_s = max(next_command_s + COMMAND_PERIOD_S, time.monotonic())
                self._repeat()
        if self._lease:
            self._client.send(Lease(sender=SENDER, release=True))

    def close(self) -> None:
        for socket in (self._client, self._commands, self._privileged, self._states):
            socket.close()

    # --- session and lease ---

    def _handshake(self) -> bool:
        try:
            reply = self._client.hello(f"takeover {__version__}", HANDSHAKE_TIMEOUT_S)
        except RequestTimeout:
            return False
        if reply.error:
            raise StartupError(reply.error)
        self._adopt(reply)
        return True

    def _adopt(self, reply: Reply) -> None:
        if reply.spec is None:
            raise StartupError("the bridge's handshake has no robot specification")
        if not reply.spec.simulated:
            raise StartupError("the scripted operator needs a simulator's truth; this robot is real")
        log.info("bridge session %s", reply.session)
        self._session = reply.session
        self._spec = reply.spec
        try:
            operator = ScriptedOperator(self._config.operator_parameters, self._config.seed)
        except ValueError as error:
            raise StartupError(str(error)) from error
        self._device = ScriptedDevice(operator, reply.spec)
        self._lease, self._lease_asked_s = "", 0.0
        self._leases_asked.clear()
        self._newest = self._answer = None

    def _wants_to_drive(self) -> bool:
        if self._config.operator == "scripted":
            return True
        return self._newest is not None and self._newest.episode_kind == EpisodeKind.DEMONSTRATION

    def _keep_lease(self) -> None:
        """Commands renew it, but between episodes there are none."""
        now_s = time.monotonic()
        if now_s - self._lease_asked_s < LEASE_PERIOD_S:
            return
        self._lease_asked_s = now_s
        if self._wants_to_drive():
            self._leases_asked.append(self._client.send(Lease(sender=SENDER, device_kind="scripted")))
        elif self._lease:
            self._client.send(Lease(sender=SENDER, release=True))
            self._lease = ""
            self._leases_asked.clear()

    def _drain_replies(self) -> None:
        while (envelope := self._client.poll()) is not None:
            reply = envelope.reply
            if envelope.request_id in self._leases_asked:
                self._leases_asked.remove(envelope.request_id)
                self._lease = reply.lease  # refused: none, see the console's link
            if reply.error:
                log.info("refused: %s", reply.error)

    def _read_state(self) -> None:
        state = self._states.receive()
        if state is None:
            return
        self._state_seq = self._client.newest_state_seq = state.seq
        self._commands.arrived(state.command_age_ms if state.commander == SENDER else 0.0)
        if state.session != self._session:
            self._handshake()

    # --- driving ---

    def _observe(self, privileged: Privileged) -> None:
        if privileged.session != self._session and not self._handshake():
            return
        if privileged.session != self._session or self._device is None:
            return
        resent = self._newest is not None and self._newest.seq == privileged.seq
        self._newest = privileged
        self._device.observe(privileged)
        if self._lockstep and self._answer is not None and resent:
            # The bridge asked again: the same decision, but in a new command under the lease as it is now.
            self._command_seq += 1
            self._answer = msgspec.structs.replace(self._answer, seq=self._command_seq, lease=self._lease, newest_state_seq=self._state_seq)
            self._push()
        elif self._lockstep:
            self._send(self._device.poll(), privileged.seq)

    def _repeat(self) -> None:
        if self._device is not None and self._newest is not None and self._lease and self._wants_to_drive():
            self._send(self._device.poll(), -1)

    def _send(self, reading: DeviceReading, for_step_seq: int) -> None:
        if self._spec is None:
            return
        self._command_seq += 1
        self._answer = Command(
            session=self._session,
            sender=SENDER,
            seq=self._command_seq,
            lease=self._lease,
            device_id=reading.device_id,
            device_kind=reading.kind,
            device_alive=reading.alive,
            deadman=reading.deadman,
            neutral=reading.neutral,
            focused=True,
            gui_alive=True,
            action=to_canonical(reading, self._spec, "base", 1.0, 0.0),
            authority=self._spec.action.group_names,
            newest_state_seq=self._state_seq,
            for_step_seq=for_step_seq,
        )
        self._push()
        if "resume" in reading.presses:
            self._client.send(Resume(sender=SENDER))
        for outcome in (Outcome.SUCCESS, Outcome.FAILURE):
            if outcome.value in reading.presses:
                episode = self._newest.episode_id if self._newest is not None else ""
                self._client.send(SetOutcome(sender=SENDER, outcome=outcome, episode_id=episode))

    def _push(self) -> None:
        if self._answer is not None and self._lease:  # in lockstep the bridge asks again until there is one
            self._commands.send(self._answer)


def main(context: ProcessContext) -> None:
    loop = OperatorLoop(context.config)
    try:
        loop.run(context)
    finally:
        loop.close()


if __name__ == "__main__":
    raise SystemExit(run_process("operator", main))
