"""The conformance suite of an actor: `check_actor` plays a bridge for any."""

import contextlib
import itertools
import math
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from takeover.data.schema import PROTOCOL_VERSION, ActionGroup, ActionSpec, ActorStatus, Mode, ObservationSpec, RobotSpec
from takeover.robot_bridge.conformance.actor_rig import STOP_S, ActorRig, stop
from takeover.robot_bridge.conformance.report import Failed, Result, Skipped, Suite, need, unknown
from takeover.robot_bridge.protocol import Endpoints, Subscriber

MAX_ROWS = 1024
DECIDED_AT = 0.7  # of the period: later is late
LISTEN_S = 2.0
STATUS_S = 2.0  # an actor that says how it is says so twice a second
FOREIGN_VERSION = 987_654_321
FIRST = ("handshake", "answers")  # the other checks build on them

POINT = RobotSpec(
    robot_id="check",
    task_id="reach",
    prompt="Reach the goal",
    control_hz=20.0,
    max_steps=1000,
    action=ActionSpec(
        kind="ee_delta",
        frame="base",
        names=["x", "y"],
        units=["m", "m"],
        scale=[0.01, 0.01],
        groups=[ActionGroup(name="arm", start=0, stop=2)],
        gripper="none",
    ),
    observation=ObservationSpec(names=["x", "y", "to_goal_x", "to_goal_y"], units=["m"] * 4),
    cameras=[],
    simulated=True,
    has_watchdog=True,
    can_reset=True,
    workspace_low=[-1.0, -1.0, 0.0],
    workspace_high=[1.0, 1.0, 0.0],
)


ACTOR: Suite[ActorRig] = Suite()
check = ACTOR.check


@check("waited for its hello", f"protocol {PROTOCOL_VERSION}, a sender, no unknown fields")
def handshake(rig: ActorRig) -> str:
    rig.wait(lambda: bool(rig.bridge.hellos or rig.bridge.errors), "hello", rig.start_s)
    need(not rig.bridge.errors, "; ".join(rig.bridge.errors[:2]))
    hello = rig.bridge.hellos[0]
    need(hello.protocol == PROTOCOL_VERSION, f"protocol {hello.protocol}")
    need(hello.sender and hello.software, f"sender {hello.sender!r}, software {hello.software!r}")
    return f"{hello.sender}, role {hello.role}, {hello.software}"


@check("published observations at the control rate", "answers, all of this session, to observations that were sent, from_seq never falling")
def answers(rig: ActorRig) -> str:
    rig.bridge.pace_hz = rig.spec.control_hz
    rig.wait(lambda: bool(rig.bridge.answers), "answer", rig.start_s)
    first = rig.bridge.answers[0]
    rig.latency_s = max(0.0, first.t_s - rig.bridge.sent.get(first.answer.from_seq, first.t_s))
    begin = time.monotonic()
    time.sleep(max(LISTEN_S, 4 * rig.latency_s))
    got = rig.answers_since(begin)
    need(len(got) >= 2, f"{len(got)} answers")
    sent = dict(rig.bridge.sent)
    for item in got:
        need(item.answer.session == rig.bridge.session, f"session {item.answer.session}")
        need(item.answer.from_seq in sent, f"from_seq {item.answer.from_seq} was never sent")
    need(all(a.answer.from_seq <= b.answer.from_seq for a, b in itertools.pairwise(got)), "from_seq falls")
    need(rig.bridge.bad_answers == 0, f"{rig.bridge.bad_answers} answers could not be read")
    latencies = sorted(item.t_s - sent[item.answer.from_seq] for item in got)
    rig.latency_s = latencies[-1]
    return f"{len(got)} answers, latency {latencies[len(latencies) // 2] * 1000:.0f} ms (median), {latencies[-1] * 1000:.0f} ms (most)"


@check(
    "looked at every answer so far",
    f"1 to {MAX_ROWS} rows of A finite numbers in [-1, 1], valid_until_seq >= from_seq, policy_version >= 1",
)
def rows(rig: ActorRig) -> str:
    lengths = set()
    for item in list(rig.bridge.answers):
        answer = item.answer
        where = f"answer to {answer.from_seq}"
        lengths.add(len(answer.actions))
        need(1 <= len(answer.actions) <= MAX_ROWS, f"{where}: {len(answer.actions)} rows")
        for i, row in enumerate(answer.actions):
            need(len(row) == rig.spec.action.size, f"{where}: row {i} has {len(row)} numbers, A = {rig.spec.action.size}")
            need(all(math.isfinite(value) for value in row), f"{where}: row {i} is not finite")
            need(all(abs(value) <= 1.0 + 1e-6 for value in row), f"{where}: row {i} is outside of [-1, 1]: {row}")
        need(answer.valid_until_seq >= answer.from_seq, f"{where}: valid_until_seq {answer.valid_until_seq}")
        need(answer.policy_version >= 1, f"{where}: policy_version {answer.policy_version}")
    need(lengths, "no answer")
    return f"{min(lengths)} to {max(lengths)} rows"


@check(
    "looked whether every step had its row in time (0.7 of the period)", "at least 9 of 10 steps; two missing in a row would hold the robot"
)
def every_step_covered(rig: ActorRig) -> str:
    period_s = 1.0 / rig.spec.control_hz
    repeats = math.floor(min(max(3 * period_s, 0.120), 0.200) / period_s)
    begin = time.monotonic()
    time.sleep(LISTEN_S)
    sent = {seq: t for seq, t in dict(rig.bridge.sent).items() if begin <= t <= begin + LISTEN_S - period_s}
    got = list(rig.bridge.answers)
    missing = []
    for seq, t_s in sent.items():
        newest = [item.answer for item in got if item.t_s <= t_s + DECIDED_AT * period_s and item.answer.from_seq <= seq]
        answer = newest[-1] if newest else None
        covered = answer is not None and seq <= answer.valid_until_seq and seq - answer.from_seq < len(answer.actions) + repeats
        if not covered:
            missing.append(seq)
    need(len(missing) <= 0.1 * len(sent), f"{len(missing)} of {len(sent)} steps without an answer in time: {missing[:6]}")
    return f"{len(sent) - len(missing)} of {len(sent)} steps"


@check("went through the modes ready, policy, takeover and hold", "answers in every mode")
def every_mode(rig: ActorRig) -> str:
    for mode in (Mode.POLICY, Mode.TAKEOVER, Mode.HOLD, Mode.READY):
        rig.bridge.mode = mode
        first = rig.bridge.seq + 1
        rig.wait(lambda first=first: rig.bridge.answers[-1].answer.from_seq > first, f"answer in mode {mode}", rig.patience_s)  # type: ignore[misc]
    return "four modes"


@check("said flush", "an answer to the flush or what came after it, within twice the latency + 1 s")
def flush(rig: ActorRig) -> str:
    begin = time.monotonic()
    at = rig.bridge.seq + 2
    rig.bridge.flush()
    rig.wait(lambda: rig.bridge.answers[-1].answer.from_seq >= at, "answer after the flush", rig.patience_s)
    return f"after {(time.monotonic() - begin) * 1000:.0f} ms"


@check("sent 100 observations at once", "the newest is answered within twice the latency + 1 s: no queue of old ones is worked off")
def newest_first(rig: ActorRig) -> str:
    with rig.paused():
        for _ in range(100):
            rig.bridge.publish(rig.bridge.observation())
        begin = time.monotonic()
        rig.answered(rig.bridge.seq)
        return f"after {(time.monotonic() - begin) * 1000:.0f} ms"


@check("sent an observation with an unknown field", "answered: telemetry may grow")
def unknown_field(rig: ActorRig) -> str:
    with rig.paused():
        observation = rig.bridge.observation()
        fields = msgspec.to_builtins(observation) | {"mood": [1, {"deep": None}]}
        rig.bridge.sent[observation.seq] = time.monotonic()
        rig.bridge.send_raw(b"observation\0" + msgspec.msgpack.encode(fields))
        rig.answered(observation.seq)
    return "answered"


@check("sent garbage on `observation`", "the actor goes on")
def malformed(rig: ActorRig) -> str:
    with rig.paused():
        for body in (b"", b"\xc1", b"\xff", b"\xdd\xff\xff\xff\xff", b"\x93\x01\x02\x03", b"\x91" * 5000, b"\xa5hell"):
            rig.bridge.send_raw(b"observation\0" + body)
            time.sleep(0.05)
        observation = rig.bridge.observation()
        rig.bridge.publish(observation)
        rig.answered(observation.seq)
    return "answers go on"


@check("sent nothing for 1.5 s, then went on", "no answers meanwhile, then answers again")
def silence(rig: ActorRig) -> str:
    with rig.paused():
        begin = time.monotonic()
        time.sleep(1.5)
        need(not rig.answers_since(begin), f"{len(rig.answers_since(begin))} answers to nothing")
    rig.wait(lambda: bool(rig.answers_since(begin + 1.5)), "answer after the silence", rig.patience_s)
    return "answers go on"


@check("asked for one step in lockstep, and asked again", "answered exactly that step, both times with the same actions")
def lockstep_repeats(rig: ActorRig) -> str:
    with rig.paused():
        observation = rig.bridge.observation(lockstep=True)
        rig.bridge.publish(observation)
        first = rig.answered(observation.seq)
        time.sleep(0.3)
        begin = time.monotonic()
        rig.bridge.publish(observation)
        rig.wait(lambda: bool(rig.answers_since(begin)), "second answer", rig.patience_s)
        second = rig.answers_since(begin)[-1]
        need(second.answer.from_seq == observation.seq, f"from_seq {second.answer.from_seq}, asked {observation.seq}")
        need(second.answer.actions == first.answer.actions, "other actions the second time")
    return "the same"


@check(
    f"asked for the answer of version {FOREIGN_VERSION}, which no actor has",
    "no answer: only that version may answer",
)
def another_version(rig: ActorRig) -> str:
    known = {item.answer.policy_version for item in list(rig.bridge.answers)}
    with rig.paused():
        observation = rig.bridge.observation(required_version=FOREIGN_VERSION)
        begin = time.monotonic()
        rig.bridge.publish(observation)
        time.sleep(rig.patience_s)
        got = [item.answer.policy_version for item in rig.answers_since(begin) if item.answer.from_seq == observation.seq]
        need(FOREIGN_VERSION not in got, f"it says that it is version {FOREIGN_VERSION}, but was {sorted(known)}")
        need(not got, f"it answered as version {got[:1]}")
    return "no answer"


@check("began another session, as a bridge that was started again", "answers for the new session, none for the old one any more")
def new_session(rig: ActorRig) -> str:
    with rig.paused():
        rig.bridge.restart("01check2")
    wanted = rig.bridge.session
    rig.wait(lambda: rig.bridge.answers[-1].answer.session == wanted, "answer for the new session", rig.patience_s + 3.0)
    begin = time.monotonic()
    time.sleep(rig.latency_s + 0.5)
    old = [item for item in rig.answers_since(begin) if item.answer.session != wanted]
    need(not old, f"{len(old)} answers for the old session")
    return "answers for the new session"


@check(
    "started a second one beside it, and ended that one after a while",
    "the first goes on to answer, and its `actor_status` still reaches whoever subscribes: who binds keeps a lock",
)
def second_takes_no_path(rig: ActorRig) -> str:
    if rig.process is None:
        raise Skipped("the actor was not started by this check")
    if not _says_status(rig):
        raise Skipped("it publishes no `actor_status`: there is no path to take")
    known = len(rig.bridge.hellos)
    second = rig.launch()
    try:
        deadline = time.monotonic() + rig.start_s
        while len(rig.bridge.hellos) == known and second.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        with contextlib.suppress(subprocess.TimeoutExpired):
            second.wait(STATUS_S)  # to bind what it binds, or to see that it may not
        status = second.poll()
    finally:
        stop(second)
    need(_says_status(rig), f"no `actor_status` of the first within {STATUS_S:g} s: the second took its path")
    begin = time.monotonic()
    rig.wait(lambda: bool(rig.answers_since(begin)), "answer of the first", rig.patience_s)
    return "the second ran until it was ended" if status is None else f"the second ended with status {status}"


def _says_status(rig: ActorRig) -> bool:
    """Whether a new subscriber hears how the actor is."""
    with Subscriber[ActorStatus](Endpoints(rig.folder), "actor_status", ActorStatus) as statuses:
        return statuses.receive(STATUS_S) is not None


@check("sent SIGTERM", f"ended within {STOP_S:g} s")
def ends_when_told(rig: ActorRig) -> str:
    if rig.process is None:
        raise Skipped("the actor was not started by this check")
    need(rig.process.poll() is None, f"it had ended before, with status {rig.process.returncode}")
    begin = time.monotonic()
    rig.process.terminate()
    try:
        status = rig.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"still there after {STOP_S:g} s") from None
    return f"status {status} after {(time.monotonic() - begin) * 1000:.0f} ms"


@check(
    "started it again and refused its hello: a bridge of another version",
    "no answers; it says hello again, or ends with a status other than 0",
)
def refused_handshake(rig: ActorRig) -> str:
    if not rig.is_command:
        raise Skipped("the actor was not started by this check")
    rig.bridge.refuse = f"protocol {PROTOCOL_VERSION} asked for, this bridge speaks 999"
    known = len(rig.bridge.hellos)
    rig.bridge.pace_hz = rig.spec.control_hz
    begin = time.monotonic()
    process = rig.launch()
    try:
        deadline = begin + rig.start_s
        while len(rig.bridge.hellos) == known and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        need(len(rig.bridge.hellos) > known, "no hello")
        time.sleep(2.0)
        status = process.poll()
        got = list(rig.answers_since(begin))
        need(not got, f"{len(got)} answers without a handshake")
        if status is not None:
            need(status != 0, "it ended with status 0")
            return f"ended with status {status}"
        need(len(rig.bridge.hellos) > known + 1, "neither another hello nor an end")
        return f"{len(rig.bridge.hellos) - known} hellos"
    finally:
        stop(process)


def load_spec(path: str) -> RobotSpec:
    """What robot to be: a RobotSpec as JSON; the point on a table for an empty ``path``. Raises `Failed`."""
    if not path:
        return POINT
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=RobotSpec)
    except OSError as error:
        raise Failed(f"cannot read {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise Failed(f"{path}: {error}") from error


def check_actor(
    actor: str, spec: RobotSpec, *, start_s: float, only: Collection[str] = (), told: Callable[[Result], None] = lambda _: None
) -> list[Result]:
    """``actor``: a command with ``{sockets}`` in it, or the folder in which an actor already waits for its bridge.

    Raises `Failed` when the command cannot be started, `EndpointError` when the folder cannot be used.
    """
    if names := unknown(only, ACTOR):
        raise Failed(f"no such check: {', '.join(names)}")
    with contextlib.ExitStack() as stack:
        folder = actor
        if "{sockets}" in actor:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="takeover-check-"))
        rig = ActorRig(actor, folder, spec, start_s)
        stack.callback(rig.close)
        if rig.is_command:
            rig.process = rig.launch()
        return ACTOR.run(rig, told, {*only, *FIRST} if only else ())
