"""A slow actor that answers with chunks of actions, with pyzmq and msgpack only: docs/protocol.md put to work.

python examples/chunking_actor.py SOCKET_FOLDER [LATENCY_S] [ROWS]

It waits LATENCY_S for every answer, as a large policy would compute, and answers with ROWS actions: the way to the goal as it can be
foretold from one observation. What it drives towards are the components of the observation called `to_..._NAME` for an action NAME.
"""

import fcntl
import itertools
import os
import sys
import time

import msgpack
import zmq

PROTOCOL = 1
GAIN = 0.3  # of the distance, per step
HELLO_PERIOD_S = 0.5


class Refused(Exception):
    """The bridge does not want to talk to us, or another actor is there; says why."""


def connect(folder, name, kind, **options):
    """One socket per stream. Options are those of ZeroMQ; nothing is kept for a peer that is gone."""
    socket = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    for option, value in options.items():
        socket.setsockopt(getattr(zmq, option), value)
    socket.connect(f"ipc://{folder}/{name}.sock")
    return socket


def bind(folder, name, kind):
    """A socket of our own, until we end. Raises Refused where a living process has it: ZeroMQ would take its path without a word."""
    while True:
        lock = os.open(f"{folder}/{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)  # never closed, the lock goes with it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another process has {name}.sock; stop it first") from None
        if os.fstat(lock).st_nlink:
            break
        os.close(lock)  # whoever had it has taken the file away meanwhile: such a lock keeps nobody out
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())  # only to say who it is
    socket = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.bind(f"ipc://{folder}/{name}.sock")
    return socket


def pack(name, message):
    return name.encode() + b"\0" + msgpack.packb(message)


def unpack(name, data):
    """The message, or None for what is none: telemetry that cannot be read is skipped."""
    try:
        message = msgpack.unpackb(data.removeprefix(name.encode() + b"\0"))
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
    return message if isinstance(message, dict) else None


def handshake(folder):
    """Say hello until the bridge answers; returns (session, spec). Raises Refused."""
    control = connect(folder, "control", zmq.DEALER)
    hello = {"type": "hello", "protocol": PROTOCOL, "sender": "chunking-actor", "role": "learner", "software": "example 1"}
    for request_id in itertools.count(1):
        control.send(pack("control", {"request_id": request_id, "request": hello}))
        deadline = time.monotonic() + HELLO_PERIOD_S
        while control.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            envelope = unpack("control", control.recv())
            if envelope is None or envelope.get("request_id") != request_id:
                continue  # an answer to an older one
            reply = envelope["reply"]
            if reply.get("error") or not reply.get("spec"):
                raise Refused(reply.get("error") or "the bridge told no robot")
            control.close()
            return reply["session"], reply["spec"]
    raise AssertionError("unreachable")


class Policy:
    """Drives every component of the action towards zero distance."""

    def __init__(self, spec):
        self.scale = spec["action"]["scale"]
        observed = spec["observation"]["names"]
        self.index = []  # per action: the component of the observation that says how far it is; -1: none
        for name in spec["action"]["names"]:
            matches = [
                i for i, seen in enumerate(observed) if seen.startswith("to_") and (seen.endswith("_" + name) or seen == "to_" + name)
            ]
            self.index.append(matches[0] if matches else -1)

    def chunk(self, observation, rows):
        """(rows, A) in [-1, 1]: row i is for the step i after ``observation``, foretold from the rows before."""
        left = [observation[i] if 0 <= i < len(observation) else 0.0 for i in self.index]
        actions = []
        for _ in range(rows):
            row = [min(max(GAIN * distance / scale, -1.0), 1.0) for distance, scale in zip(left, self.scale, strict=True)]
            left = [distance - value * scale for distance, value, scale in zip(left, row, self.scale, strict=True)]
            actions.append(row)
        return actions


def serve(folder, latency_s, rows):
    session, spec = handshake(folder)
    policy = Policy(spec)
    status = bind(folder, "actor_status", zmq.PUB)  # what the console shows of us; only one actor answers
    print(f"driving {spec['robot_id']} on {spec['task_id']}, session {session}", flush=True)
    # CONFLATE: the newest observation only. IMMEDIATE: an answer for a bridge that is gone is dropped, not kept.
    observations = connect(folder, "observation", zmq.SUB, SUBSCRIBE=b"observation\0", CONFLATE=1)
    answers = connect(folder, "policy_action", zmq.PUSH, IMMEDIATE=1, SNDHWM=1)
    status_due, version = 0.0, 1
    since_ns = time.monotonic_ns()
    while True:
        if time.monotonic() >= status_due:
            status_due = time.monotonic() + 0.4
            fields = {
                "version": version,
                "sha256": "",
                "since_ns": since_ns,
                "rate_hz": 1 / max(latency_s, 0.02),
                "inference_ms": latency_s * 1e3,
            }
            status.send(pack("actor_status", {"type": "actor_status", **fields}))
        if not observations.poll(100):
            continue
        observation = unpack("observation", observations.recv())
        if observation is None or observation.get("type") != "observation":
            continue
        if observation["session"] != session:  # the bridge was started again: shake hands again, the robot may be another
            session, spec = handshake(folder)
            policy = Policy(spec)
            continue
        if observation.get("required_version", 0) not in (0, version):
            continue  # another version is asked for: only that one may answer
        if latency_s and not observation.get("lockstep"):
            time.sleep(latency_s)  # in place of the computation
        chunk = policy.chunk(observation["observation"], rows)
        answer = {
            "type": "policy_action",
            "session": session,
            "from_seq": observation["seq"],
            "actions": chunk,
            "valid_until_seq": observation["seq"] + len(chunk) - 1,
            "policy_version": version,
        }
        try:
            answers.send(pack("policy_action", answer), zmq.NOBLOCK)
        except zmq.Again:
            pass  # the bridge is gone or does not read


def main():
    if not 2 <= len(sys.argv) <= 4:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    latency_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.3
    rows = int(sys.argv[3]) if len(sys.argv) > 3 else 50
    try:
        serve(sys.argv[1], latency_s, rows)
    except Refused as error:
        print(f"chunking_actor: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise SystemExit(main())
