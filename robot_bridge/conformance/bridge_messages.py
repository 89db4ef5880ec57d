"""Checks of what a bridge makes of messages that are malformed, too large or of another version. None moves its robot."""

import time
from typing import Any

from takeover.data.schema import PROTOCOL_VERSION, Observation
from takeover.robot_bridge.conformance.peers import padded, raw
from takeover.robot_bridge.conformance.report import Failed, Suite, need
from takeover.robot_bridge.conformance.rig import Rig
from takeover.robot_bridge.protocol.topics import topic
from takeover.robot_bridge.recordable import answer_bytes

MALFORMED: Suite[Rig] = Suite()
ANSWERS: Suite[Rig] = Suite()
check = MALFORMED.check

WRONG: list[tuple[str, Any]] = [  # (required field of an answer, a value of another type); Ellipsis: left out
    *((name, ...) for name in ("session", "from_seq", "actions", "valid_until_seq", "policy_version")),
    ("session", 7),
    ("from_seq", "newest"),
    ("from_seq", 1.5),
    ("actions", "up"),
    ("actions", [0.0]),
    ("actions", [["up"]]),
    ("valid_until_seq", None),
    ("policy_version", "newest"),
]
GOOD, TOO_LARGE, AT_LIMIT, BAD = 67, 72, 71, 66  # policy versions by which answers are told apart
TRIES = 10  # of an answer that must be used: the connection may just be made again


def hello(**changes: Any) -> dict[str, Any]:
    return {"type": "hello", "protocol": PROTOCOL_VERSION, "sender": "check-raw", "role": "operator", "software": "check"} | changes


@check("said hello with protocol 999, also with a field that only that version knows", "an error that names both versions, and no spec")
def version_mismatch(rig: Rig) -> str:
    errors = []
    for changes in ({}, {"mood": "good"}):
        with rig.raw() as client:
            envelope = client.ask(hello(protocol=999, **changes))
        if envelope is None:
            raise Failed("no answer")
        reply = envelope.reply
        need(reply.error and reply.spec is None, "it was accepted")
        need("999" in reply.error and str(PROTOCOL_VERSION) in reply.error, f"the error names not both versions: {reply.error}")
        errors.append(reply.error)
    return errors[0]


@check(
    "sent requests with an unknown field, an unknown type, a missing field, a wrong type; envelopes with unknown fields and wrong types",
    "each answered with an error",
)
def bad_requests(rig: Rig) -> str:
    envelopes: dict[str, dict[str, Any]] = {
        "unknown field of the envelope": {"urgent": True},
        "request_id of the wrong type": {"request_id": "one"},
        "newest_state_seq of the wrong type": {"newest_state_seq": "new"},
        "type of another message": {"type": "command"},
        "request of the wrong type": {"request": "lease"},
    }
    bad: dict[str, dict[str, Any]] = {
        "unknown field": {"type": "lease", "sender": "check-raw", "speed": 9},
        "unknown request": {"type": "fly", "sender": "check-raw"},
        "missing field": {"type": "hold"},
        "wrong type": {"type": "lease", "sender": 7},
    }
    with rig.raw() as client:
        need(client.ask(hello()) is not None, "no answer to hello")
        for what, request in bad.items():
            envelope = client.ask(request)
            if envelope is None:
                raise Failed(f"{what}: no answer")
            need(envelope.reply.error, f"{what}: granted")
        for what, fields in envelopes.items():
            envelope = client.ask(hello(), **fields)
            if envelope is None:
                raise Failed(f"{what}: no answer")
            need(envelope.reply.error, f"{what}: granted")
    return f"{len(bad) + len(envelopes)} errors"


@check("asked for the lease in the name of somebody else than said hello", "refused")
def foreign_name(rig: Rig) -> str:
    with rig.raw() as client:
        need(client.ask(hello()) is not None, "no answer to hello")
        envelope = client.ask({"type": "lease", "sender": "check-somebody-else", "release": True})
        need(envelope is not None and envelope.reply.error, "granted, or not answered")
        return envelope.reply.error if envelope is not None else ""


def _alive(rig: Rig, after: str) -> None:
    try:
        rig.now()
    except Failed:
        raise Failed(f"no heartbeat any more after {after}") from None
    with rig.raw() as client:
        need(client.ask(hello(), 2.0) is not None, f"control does not answer any more after {after}")


@check("sent garbage to `command`, `policy_action` and `control`", "nothing executed, the bridge goes on")
def malformed(rig: Rig) -> str:
    nested = b"\x91" * 5000 + b"\xc0"
    for name in ("command", "policy_action"):
        for body in (b"", b"\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xa5hell", nested, b"\x93\x01\x02\x03", raw("", {"type": name})[1:]):
            rig.peers.outgoing.append((name, name.encode() + b"\0" + body))
        rig.peers.outgoing.append((name, b"nonsense without a topic"))
        rig.peers.outgoing.append((name, raw(name + "2", {"type": name})))
    with rig.raw() as client:
        for data in (b"", b"control", b"control\0", b"control\0\xc1", b"control\0" + nested, b"control\0\xdf\xff\xff\xff\xff"):
            client.send(data)
            client.receive(0.05)
    time.sleep(0.1)
    _alive(rig, "malformed messages")
    return "heartbeat and control go on"


@check(
    "sent 1 MiB to `command` and `control`, 8 MiB to `policy_action`, and a hello of one byte more than the limit",
    "refused, the bridge goes on",
)
def oversized(rig: Rig) -> str:
    for name, size in (("command", 1 << 20), ("policy_action", 8 << 20)):
        rig.peers.outgoing.append((name, raw(name, {"type": name, "session": "x" * size})))
    limit = topic("control").max_bytes
    asked = {"request_id": 1, "request": hello(software="x" * (limit - 536))}
    short = limit + 1 - len(raw("control", asked))
    for software in ("x" * (1 << 20), "x" * (limit - 536 + short)):
        with rig.raw() as client:
            client.send(raw("control", asked | {"request": hello(software=software)}))
            envelope = client.receive(0.3)
            need(envelope is None or envelope.reply.error, f"a hello whose `software` has {len(software)} bytes was accepted")
    time.sleep(0.1)
    _alive(rig, "oversized messages")
    return "heartbeat and control go on"


def _newest(rig: Rig) -> Observation:
    rig.until(lambda _: bool(rig.peers.observations), "observation")
    return rig.peers.observations[-1][1]


def _answer(rig: Rig, version: int, **changes: Any) -> dict[str, Any]:
    """An answer to the newest observation that stands still, as a map."""
    seen = _newest(rig)
    fields = {"type": "policy_action", "session": seen.session, "from_seq": seen.seq, "policy_version": version}
    fields |= {"actions": [[0.0] * rig.spec.action.size], "valid_until_seq": seen.seq}
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def _must_be_used(rig: Rig, version: int, size: int = 0) -> None:
    """An answer of ``size`` bytes (0: as long as it is) becomes the newest one."""
    for _ in range(TRIES):
        fields = _answer(rig, version) | ({"padding": ""} if size else {})
        rig.peers.outgoing.append(("policy_action", padded("policy_action", fields, "padding", size)))
        time.sleep(0.05)
        if rig.now().policy_version == version:
            return
    raise Failed(f"a good answer{f' of {size} bytes' if size else ''} was not used: policy_version {rig.now().policy_version}")


@ANSWERS.check(
    "in mode ready, answered with each required field left out, and with values of wrong types",
    "none used, the bridge goes on, and a good answer is used afterwards",
)
def answers_field_by_field(rig: Rig) -> str:
    rig.free()
    rig.peers.answer = None
    for name, value in WRONG:
        rig.peers.outgoing.append(("policy_action", raw("policy_action", _answer(rig, BAD, **{name: value}))))
        time.sleep(0.03)
        what = f"an answer {'without' if value is ... else 'with a wrong'} {name}"
        try:
            state = rig.now()
        except Failed:
            raise Failed(f"no heartbeat any more after {what}") from None
        need(state.policy_version != BAD, f"{what} was used")
    _must_be_used(rig, GOOD)
    return f"{len(WRONG)} refused"


@ANSWERS.check(
    "in mode ready, answered with as many bytes as the limit is (a field that nobody knows makes it so long) and one byte more",
    "the first used, the second not; the bridge goes on",
)
def answers_of_the_limit(rig: Rig) -> str:
    rig.free()
    rig.peers.answer = None
    limit = answer_bytes(rig.spec.action.size)
    _must_be_used(rig, AT_LIMIT, limit)
    for _ in range(3):
        fields = _answer(rig, TOO_LARGE) | {"padding": ""}
        rig.peers.outgoing.append(("policy_action", padded("policy_action", fields, "padding", limit + 1)))
        time.sleep(0.1)
        need(rig.now().policy_version != TOO_LARGE, f"an answer of {limit + 1} bytes was used")
    _must_be_used(rig, GOOD)
    return f"{limit} bytes used, {limit + 1} not"
