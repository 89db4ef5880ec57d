"""What the checks of a bridge work with: the peers, a control client, and waiting for what must come."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from takeover.data.schema import (
    Clear,
    ControlRequest,
    EpisodeKind,
    Finish,
    Lease,
    Mode,
    Observation,
    PolicyAction,
    Ready,
    Reply,
    Resume,
    RobotSpec,
    Role,
    Start,
    State,
    Step,
)
from takeover.robot_bridge.conformance.peers import Answer, Peers, RawClient
from takeover.robot_bridge.conformance.report import Failed, Skipped, need
from takeover.robot_bridge.protocol import ControlClient, Endpoints

ME = "bridge-check"
DEVICE = "check-0"
AMPLITUDE = 0.2  # of a canonical action: gentle on any robot
SPARE_S = 2.5  # of an episode that a check needs at least
SPARE_ROWS_S = 0.3  # of the chunks with which our own policy stands still
WAIT_S = 4.0
SLACK_S = 0.35  # beyond what the protocol says: a busy computer is no fault of the bridge

__all__ = ["AMPLITUDE", "DEVICE", "ME", "SLACK_S", "Answer", "Rig", "all_finite"]


def all_finite(steps: Iterable[Step], applied_only: bool = False) -> None:
    """No step asked (unless ``applied_only``) or applied what is not finite or not canonical."""
    for step in steps:
        for numbers in [step.action] if applied_only else [step.asked_action, step.action]:
            need(all(math.isfinite(value) and abs(value) <= 1.0 + 1e-9 for value in numbers), f"step {step.seq}: {numbers}")


def _told(state: State) -> str:
    """What a state says that a failed wait may come from."""
    ages = [f"{name} {getattr(state, name):.0f}" for name in ("policy_age_ms", "command_age_ms", "recorder_age_ms")]
    who = f"commander {state.commander!r}"
    return f"mode {state.mode} {state.hold_reason} {state.hold_detail}".strip() + f" ({', '.join([who, *ages])})"


class Rig:
    """A bridge under test. Raises `Failed` when it does not even answer the handshake."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.peers = Peers(endpoints)
        self.peers.start()
        self.client = ControlClient(endpoints, ME, Role.OPERATOR)
        self.hello = self._hello()
        self.token = ""
        self.foreign = ""  # why this bridge belongs to somebody else just now
        state = self.until(lambda state: True, "a state")
        if state.commander:
            self.foreign = f"{state.commander} holds the lease"
        elif state.mode is not Mode.READY:
            self.foreign = f"the bridge is in mode {state.mode}, not ready"
        elif 0 <= state.recorder_age_ms < 1000:
            self.foreign = "a recorder is at work"
        elif 0 <= state.policy_age_ms < 1000:
            self.foreign = "an actor is at work"

    def _hello(self) -> Reply:
        try:
            reply = self.client.hello("takeover bridge check", 3.0)
        except TimeoutError:
            self.close()
            raise Failed("no answer to the handshake within 3 s; is a bridge running there?") from None
        if reply.spec is None:
            self.close()
            raise Failed(f"the handshake was refused: {reply.error or 'no spec in the reply'}")
        return reply

    def close(self) -> None:
        self.peers.close()
        self.client.close()

    @property
    def spec(self) -> RobotSpec:
        if self.hello.spec is None:
            raise Failed("the handshake told no robot")
        return self.hello.spec

    @property
    def period_s(self) -> float:
        return 1.0 / self.spec.control_hz

    @property
    def command_life_s(self) -> float:
        return min(max(3.0 * self.period_s, 0.120), 0.200)

    @property
    def spare_rows(self) -> int:
        return max(2, round(SPARE_ROWS_S * self.spec.control_hz))

    @property
    def silence_s(self) -> float:
        """Until a policy that falls silent, or is not heard, must have led to a hold."""
        return 0.5 + SPARE_ROWS_S + 4 * self.period_s + SLACK_S

    # --- asking and waiting ---

    def ask(self, request: ControlRequest, timeout_s: float = 2.0) -> Reply:
        self.client.newest_state_seq = self.peers.state.seq if self.peers.state is not None else -1
        return self.client.ask(request, timeout_s)

    def done(self, request: ControlRequest) -> None:
        """Ask for what must be granted."""
        error = self.ask(request).error
        need(not error, f"{type(request).__name__} was refused: {error}")

    def refused(self, request: ControlRequest) -> str:
        """Ask for what must be refused; returns the error."""
        error = self.ask(request).error
        need(error, f"{type(request).__name__} was granted")
        return error

    def raw(self) -> RawClient:
        return RawClient(self.endpoints)

    def now(self) -> State:
        """A state that was sent after this call."""
        seen = self.peers.state.seq if self.peers.state is not None else -1
        return self.until(lambda state: state.seq > seen + 1, "the heartbeat", 2.0)

    def until(self, condition: Callable[[State], bool], what: str, timeout_s: float = WAIT_S) -> State:
        """The first of the coming states for which ``condition`` holds; raises `Failed` with the last one."""
        deadline = time.monotonic() + timeout_s
        seen = -1
        while time.monotonic() < deadline:
            state = self.peers.state
            if state is not None and state.seq != seen:
                seen = state.seq
                if condition(state):
                    return state
            time.sleep(0.002)
        state = self.peers.state
        last = _told(state) if state is not None else "no state at all"
        raise Failed(f"no {what} within {timeout_s:g} s; {last}")

    def together(self, *requests: ControlRequest) -> list[str]:
        """Send them in one go; their errors, in the same order."""
        self.client.newest_state_seq = self.now().seq
        sent = [self.client.send(request) for request in requests]
        errors: dict[int, str] = {}
        deadline = time.monotonic() + WAIT_S
        while not errors.keys() >= set(sent):
            need(time.monotonic() < deadline, f"{', '.join(type(request).__name__ for request in requests)}: not all answered")
            if (envelope := self.client.poll(0.1)) is not None:
                errors[envelope.request_id] = envelope.reply.error
        return [errors[number] for number in sent]

    def mode(self, mode: Mode, timeout_s: float = WAIT_S) -> State:
        return self.until(lambda state: state.mode is mode, f"mode {mode}", timeout_s)

    def hold(self, *reasons: str, timeout_s: float = WAIT_S) -> State:
        """Wait for a hold for one of ``reasons``."""
        state = self.mode(Mode.HOLD, timeout_s)
        need(state.hold_reason in reasons, f"held for {state.hold_reason!r} ({state.hold_detail}), expected {' or '.join(reasons)}")
        return state

    def stays(self, mode: Mode, duration_s: float) -> None:
        """Nothing but ``mode`` for a while."""
        until = time.monotonic() + duration_s
        while time.monotonic() < until:
            state = self.peers.state
            need(state is None or state.mode is mode, f"went to mode {state.mode if state else ''} {state.hold_reason if state else ''}")
            time.sleep(0.005)

    # --- the operator's hand ---

    def lease(self) -> None:
        """Take the lease and send neutral commands from now on."""
        reply = self.ask(Lease(sender=ME, device_kind="gamepad"))
        need(reply.lease, f"the lease was refused: {reply.error}")
        self.token = reply.lease
        self.hand()

    def hand(self, deadman: bool = False, action: list[float] | None = None, **changes: Any) -> None:
        """What the device says from now on; neutral by default."""
        size = self.spec.action.size
        self.peers.frozen_state_seq = None
        fields: dict[str, Any] = {
            "session": self.hello.session,
            "sender": ME,
            "lease": self.token,
            "device_id": DEVICE,
            "device_kind": "gamepad",
            "device_alive": True,
            "deadman": deadman,
            "neutral": not deadman and not any(action or []),
            "focused": True,
            "gui_alive": True,
            "action": action if action is not None else [0.0] * size,
            "authority": self.spec.action.group_names,
        }
        self.peers.command = fields | changes

    def push(self, value: float = AMPLITUDE) -> list[float]:
        """An action with its first component at ``value``."""
        return [value] + [0.0] * (self.spec.action.size - 1)

    def fields(self, **changes: Any) -> dict[str, Any]:
        """A whole command as a map, for sending it changed."""
        command = self.peers.made()
        return {"type": "command"} | {name: getattr(command, name) for name in command.__struct_fields__} | changes

    # --- the policy ---

    def answered(
        self, observation: Observation, rows: list[list[float]] | None = None, valid: int | None = None, **changes: Any
    ) -> PolicyAction:
        """An answer to ``observation``; by default standing still, long enough for a check that is itself late for once."""
        rows = rows if rows is not None else [[0.0] * self.spec.action.size] * self.spare_rows
        fields: dict[str, Any] = {
            "session": observation.session,
            "from_seq": observation.seq,
            "actions": rows,
            "valid_until_seq": observation.seq + len(rows) - 1 if valid is None else valid,
            "policy_version": 1,
        }
        return PolicyAction(**(fields | changes))

    def stand_still(self) -> None:
        """The policy answers every observation with zero, the device is neutral, the recorder keeps up."""
        self.peers.answer = self.answered
        self.peers.acknowledge = True
        self.peers.recorder = True
        self.hand()

    # --- episodes ---

    def free(self) -> None:
        """Skip unless this bridge can be had for oneself."""
        if self.foreign:
            raise Skipped(self.foreign)

    def ready(self) -> None:
        """End whatever runs: mode ready, with lease, recorder and an answering policy."""
        self.free()
        if self.peers.command is None or not self.now().commander:
            self.lease()
        self.stand_still()
        state = self.now()
        if state.mode is Mode.STOPPED:
            self.done(Clear(sender=ME))
        elif state.block_running:
            self.ask(Finish(sender=ME, now=True))
        self.until(lambda state: state.mode is Mode.READY and not state.block_running, "end of the block of episodes", 6.0)

    def policy(self, spare_s: float = SPARE_S) -> State:
        """An episode in mode policy, with the policy standing still and at least ``spare_s`` to go."""
        self.free()
        if self.peers.command is None or not self.now().commander:
            self.lease()
        self.stand_still()
        state = self.now()
        left_s = (state.episode_max_steps - state.episode_step) * self.period_s
        if state.mode in (Mode.POLICY, Mode.TAKEOVER, Mode.HOLD) and state.episode_id and left_s > spare_s:
            if state.mode is Mode.HOLD:
                self.until(lambda state: self._heard(state), "fresh command and answer")
                self.done(Resume(sender=ME))
            self.mode(Mode.POLICY)
        else:
            self.ready()
            self.partners()
            self.done(Start(sender=ME, kind=EpisodeKind.POLICY))
            self.until(lambda state: state.mode is Mode.POLICY or self._reset_by_hand(state), "mode policy", 20.0)
        time.sleep(3 * self.period_s)  # the deadman is seen released
        return self.mode(Mode.POLICY)

    def partners(self) -> None:
        """Until the bridge hears our operator, actor and recorder."""
        if not self.now().commander:
            self.lease()  # it lapsed: for half a second this computer was too busy to command
        self.until(lambda state: self._heard(state) and self._recorded(state), "answers from our own actor and recorder")

    def _heard(self, state: State) -> bool:
        return 0 <= state.policy_age_ms < 150 and 0 <= state.command_age_ms < 100

    def _recorded(self, state: State) -> bool:
        return 0 <= state.recorder_age_ms < 400 and not state.gate.get("recorder")

    def _reset_by_hand(self, state: State) -> bool:
        if state.mode is Mode.READY and state.block_running:
            self.ask(Ready(sender=ME))
        return False

    def takeover(self, action: list[float] | None = None) -> State:
        """From mode policy: press the deadman."""
        self.policy()
        self.hand(deadman=True, action=action if action is not None else self.push())
        return self.mode(Mode.TAKEOVER)

    def steps_after(self, rec_seq: int) -> list[Step]:
        """Recorded steps after a record, as they have arrived."""
        return [record for record in list(self.peers.records) if isinstance(record, Step) and record.rec_seq > rec_seq]

    def recorded(self, since: int, count: int) -> list[Step]:
        """Wait for ``count`` recorded steps after record ``since``."""
        deadline = time.monotonic() + WAIT_S
        while len(steps := self.steps_after(since)) < count:
            if time.monotonic() > deadline:
                raise Failed(f"{len(steps)} of {count} steps were recorded within {WAIT_S:g} s")
            time.sleep(0.01)
        return steps
