"""Checks of a bridge that never move its robot: handshake, heartbeat, refusals, malformed messages, the lease, the recorder's stream."""

import math
import time

from takeover.data.schema import PROTOCOL_VERSION, Hold, Lease, Mode, Role, SafetyLimits
from takeover.robot_bridge.conformance.peers import padded
from takeover.robot_bridge.conformance.report import Failed, Skipped, Suite, need
from takeover.robot_bridge.conformance.rig import DEVICE, ME, Rig
from takeover.robot_bridge.protocol import ControlClient
from takeover.robot_bridge.protocol.topics import topic

PASSIVE: Suite[Rig] = Suite()
check = PASSIVE.check

LISTEN_S = 1.0
LEASE_LIFE_S = 0.5
REPEATS = 3  # of every command that must be refused


@check("listened to `state` for 1 s", "25 to 60 messages, seq without a gap, one session, the same as in the handshake")
def heartbeat(rig: Rig) -> str:
    begin = time.monotonic()
    time.sleep(LISTEN_S)
    states = [state for t, state in list(rig.peers.states) if t >= begin]
    seqs = [state.seq for state in states]
    sessions = {state.session for state in states}
    need(25 <= len(states) <= 60, f"{len(states)} messages in {LISTEN_S:g} s")
    need(seqs == list(range(seqs[0], seqs[0] + len(seqs))), f"seq has gaps: {seqs[:10]}...")
    need(sessions == {rig.hello.session}, f"sessions {sorted(sessions)}, handshake {rig.hello.session}")
    return f"{len(states)} messages, no gap"


@check("said hello", "protocol, session, and a spec whose lengths agree")
def handshake(rig: Rig) -> str:
    spec = rig.spec
    action = spec.action
    need(rig.hello.protocol == PROTOCOL_VERSION, f"protocol {rig.hello.protocol}")
    need(rig.hello.session, "no session")
    need(spec.control_hz > 0 and spec.max_steps > 0, f"control_hz {spec.control_hz}, max_steps {spec.max_steps}")
    need(len(action.units) == len(action.scale) == action.size >= 1, "names, units and scale of the action differ in length")
    need(all(math.isfinite(scale) and scale > 0 for scale in action.scale), f"scale {action.scale}")
    ends = [0] + [group.stop for group in action.groups]
    need([group.start for group in action.groups] == ends[:-1] and ends[-1] == action.size, "the groups do not cover the action in order")
    need(len(spec.observation.units) == spec.observation.size >= 1, "names and units of the observation differ in length")
    need(len(spec.workspace_low) == len(spec.workspace_high) == len(SafetyLimits().workspace_low), "the workspace has not 3 axes")
    return f"{spec.robot_id} on {spec.task_id}, {spec.control_hz:g} Hz, A = {action.size}, D = {spec.observation.size}"


@check("asked for the lease and a hold without a handshake", "both refused, for want of a hello")
def nothing_before_hello(rig: Rig) -> str:
    errors = []
    with rig.raw() as client:
        for request in ({"type": "lease", "sender": "check-raw"}, {"type": "hold", "sender": "check-raw"}):
            envelope = client.ask(request)
            need(
                envelope is not None and envelope.reply.error and not envelope.reply.lease, f"{request['type']} was granted or not answered"
            )
            errors.append(envelope.reply.error if envelope is not None else "")
    # a hold would be refused in mode ready, a lease while somebody has it
    need(all("hello" in error for error in errors), f"refused, but not for want of a hello: {'; '.join(errors)}")
    return errors[0]


@check("asked for the lease as an observer", "refused")
def observers_do_not_command(rig: Rig) -> str:
    client = ControlClient(rig.endpoints, "check-observer", Role.OBSERVER)
    try:
        client.hello("check", 2.0)
        reply = client.ask(Lease(sender="check-observer"), 2.0)
        need(reply.error and not reply.lease, "granted")
        return reply.error
    finally:
        client.close()


@check(
    "listened to `observation` for 1 s",
    "in real time: at the control rate, seq without a gap, D finite numbers, the session of the handshake",
)
def observations(rig: Rig) -> str:
    begin = time.monotonic()
    time.sleep(LISTEN_S)
    seen = [message for t, message in list(rig.peers.observations) if t >= begin]
    if seen and seen[0].lockstep:
        raise Failed("this bridge runs in lockstep; the suite is for real time")
    seqs = [message.seq for message in seen]
    expected = rig.spec.control_hz * LISTEN_S
    need(0.7 * expected <= len(seen) <= 1.3 * expected + 1, f"{len(seen)} in {LISTEN_S:g} s, expected {expected:g}")
    need(seqs == list(range(seqs[0], seqs[0] + len(seqs))), f"seq has gaps: {seqs[:10]}...")
    for message in seen:
        numbers = message.observation
        need(len(numbers) == rig.spec.observation.size, f"{len(numbers)} numbers, the spec says {rig.spec.observation.size}")
        need(all(math.isfinite(value) for value in numbers), f"not finite: {numbers}")
        need(message.session == rig.hello.session, f"session {message.session}")
    return f"{len(seen)} at {rig.spec.control_hz:g} Hz"


@check("sent commands without the lease, deadman pressed", "refused and counted (`refused_commands`); nobody commands")
def commands_need_the_lease(rig: Rig) -> str:
    rig.free()
    before = rig.now().refused_commands
    rig.hand(deadman=True, action=rig.push(1.0), device_id="check-intruder")
    time.sleep(0.3)
    rig.peers.command = None
    state = rig.now()
    need(state.device_id != "check-intruder" and not state.commander, f"commander {state.commander!r}, device {state.device_id!r}")
    need(state.mode is Mode.READY, f"mode {state.mode}")
    need(state.refused_commands > before, "refused_commands did not grow")
    return f"{state.refused_commands - before} refused"


@check(
    "asked for the lease, again, on another connection under the same name, and as somebody else; let it lapse; gave it back",
    "granted, renewed, refused, refused, granted after 0.5 s, given back",
)
def lease(rig: Rig) -> str:
    rig.free()
    other = ControlClient(rig.endpoints, "check-other", Role.OPERATOR)
    twin = ControlClient(rig.endpoints, ME, Role.OPERATOR)
    try:
        other.hello("check", 2.0)
        twin.hello("check", 2.0)
        first = rig.ask(Lease(sender=ME, device_kind="gamepad"))
        need(first.lease, f"refused: {first.error}")
        need(rig.ask(Lease(sender=ME, device_kind="gamepad")).lease == first.lease, "a renewal gave another token")
        reply = twin.ask(Lease(sender=ME), 2.0)
        need(reply.error and not reply.lease, "another connection got the lease by saying the holder's name")
        twin.ask(Lease(sender=ME, release=True), 2.0)
        need(rig.ask(Lease(sender=ME, device_kind="gamepad")).lease == first.lease, "another connection gave the holder's lease back")
        reply = other.ask(Lease(sender="check-other"), 2.0)
        need(reply.error and not reply.lease, "a second commander got the lease")
        need(ME in reply.error, f"the refusal does not name the holder: {reply.error}")
        time.sleep(LEASE_LIFE_S + 0.2)
        need(not rig.now().commander, "the lease did not lapse after 0.7 s of silence")
        second = other.ask(Lease(sender="check-other", device_kind="gamepad"), 2.0)
        need(second.lease and second.lease != first.lease, f"not granted after it had lapsed: {second.error}")
        rig.token = first.lease
        rig.hand(device_id="check-lapsed")
        time.sleep(0.2)
        rig.peers.command = None
        need(rig.now().device_id != "check-lapsed", "a command with the lapsed token was accepted")
        other.ask(Lease(sender="check-other", release=True), 2.0)
        need(not rig.now().commander, "the lease was not given back")
        return reply.error
    finally:
        other.close()
        twin.close()


@check("took the lease as a script; asked for it as another script, then as a person", "refused, then granted; the script's token is void")
def scripts_give_way(rig: Rig) -> str:
    rig.free()
    other = ControlClient(rig.endpoints, "check-other", Role.OPERATOR)
    try:
        other.hello("check", 2.0)
        script = rig.ask(Lease(sender=ME, device_kind="scripted"))
        need(script.lease, f"refused: {script.error}")
        reply = other.ask(Lease(sender="check-other", device_kind="scripted"), 2.0)
        need(reply.error and not reply.lease, "a script took the lease from another")
        person = other.ask(Lease(sender="check-other", device_kind="gamepad"), 2.0)
        need(person.lease and person.lease != script.lease, f"a script kept the lease from a person: {person.error}")
        rig.token = script.lease
        rig.hand(device_id="check-script", device_kind="scripted")
        time.sleep(0.2)
        rig.peers.command = None
        need(rig.now().device_id != "check-script", "a command with the script's token was accepted")
        other.ask(Lease(sender="check-other", release=True), 2.0)
        return reply.error
    finally:
        other.close()


@check(
    "held the lease and sent, deadman released: a good command, then one of another session, a repeated one, one with an unknown field, "
    "one of another sender, one for an unknown group, four of wrong types, one of a byte more than the limit",
    "the first accepted, the others refused and, but for the last, counted (`refused_commands` or `bad_messages`)",
)
def commands_refused(rig: Rig) -> str:
    rig.free()
    rig.lease()
    rig.until(lambda state: state.device_id == DEVICE, "accepted command")
    old = rig.fields(device_id="check-replayed")
    time.sleep(0.1)
    bad = {
        "check-foreign": rig.fields(session="01somebodyelse", device_id="check-foreign"),
        "check-replayed": old,
        "check-unknown": rig.fields(device_id="check-unknown", turbo=True),
        "check-sender": rig.fields(device_id="check-sender", sender="somebody"),
        "check-group": rig.fields(device_id="check-group", authority=["third_arm"]),
        "check-missing": {key: value for key, value in rig.fields(device_id="check-missing").items() if key != "deadman"},
        "check-type": rig.fields(device_id="check-type", deadman="yes"),
        "check-words": rig.fields(device_id="check-words", action=["fast"] * rig.spec.action.size),
        "check-kind": rig.fields(device_id="check-kind", device_kind="joystick"),
        "check-large": rig.fields(device_id="check-large"),  # the last one: its sender is disconnected
    }
    rig.peers.command = None
    time.sleep(0.05)
    before = rig.now()
    for name, fields in bad.items():
        for ahead in range(REPEATS):
            seq = fields["seq"] if name == "check-replayed" else rig.peers.command_seq + 1 + ahead
            size = topic("command").max_bytes + 1 if name == "check-large" else 0
            rig.peers.outgoing.append(("command", padded("command", fields | {"seq": seq}, "device_id", size)))
        time.sleep(0.04)
        rig.peers.command_seq += REPEATS
    after = rig.now()
    accepted = [state.device_id[:20] for _, state in list(rig.peers.states) if state.device_id.startswith(tuple(bad))]
    need(not accepted, f"accepted: {accepted[:1]}")
    counted = after.refused_commands + after.bad_messages - before.refused_commands - before.bad_messages
    need(counted >= REPEATS * (len(bad) - 1), f"{counted} of {REPEATS * (len(bad) - 1)} are counted in refused_commands and bad_messages")
    rig.done(Lease(sender=ME, release=True))
    return f"{len(bad)} kinds refused"


@check("asked for a hold in mode ready", "refused: nothing moves")
def hold_when_nothing_moves(rig: Rig) -> str:
    rig.free()
    return rig.refused(Hold(sender=ME))


@check(
    "received as recorder, said hello again with nothing acknowledged, then acknowledged all",
    "rec_seq without gaps, sent again after the second hello, `record_backlog` 0 at the end",
)
def record_stream(rig: Rig) -> str:
    rig.free()
    peers = rig.peers
    peers.acknowledge = False
    peers.recorder = True
    time.sleep(0.5)
    if not peers.records:
        peers.acknowledge = True
        raise Skipped("nothing has been recorded in this session yet")
    received = len(peers.records)
    kept, peers.records = peers.records, []
    peers.rejoin = True
    time.sleep(0.5)
    again = len(peers.records)
    need(again >= received, f"{received} records before the second hello, {again} after it")
    need(not kept or [item.rec_seq for item in peers.records[: len(kept)]] == [item.rec_seq for item in kept], "other records came again")
    peers.acknowledge = True
    rig.until(lambda state: state.record_backlog == 0, "record_backlog of 0")
    need(not peers.out_of_order, f"gaps: {peers.out_of_order[:3]}")
    need(all(item.session == rig.hello.session for item in peers.records), "records of another session")
    return f"{again} records, sent twice"
