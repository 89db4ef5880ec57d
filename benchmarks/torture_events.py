"""What `benchmarks.torture` does to a station, and how it judges whether the robot stood when it had to."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from takeover.data.schema import Mode, Source, State, Step

# threads that can be stuck (tests/faults/hooks); what else a process has is struck with the whole of it
THREADS = {
    "bridge": ("control", "io", "camera"),
    "recorder": ("recorder",),
    "actor": ("actor",),
    "learner": ("learner",),
    "evaluator": ("evaluator",),
    "operator": ("operator",),
    "console": ("gui", "link", "devices"),
}
PROCESSES = ("bridge", "recorder", "actor", "learner", "evaluator", "operator", "console")
ROBOT = "robot"  # the simulator server, whose monitor is the witness
MOVING = (Mode.POLICY, Mode.TAKEOVER)
HALTED = (Mode.HOLD, Mode.OFFLINE, Mode.STOPPED, Mode.READY)
TURN_MS = 100.0  # until a thread that is to be stuck comes to the place
WATCHDOG_MS, STANDSTILL_MS = 200.0, 350.0  # the robot's own watchdog and a period; and its deceleration


@dataclass(frozen=True)
class Limits:
    """For how long after the fault motion may still come: of a person, of the policy (ms). None: the fault does not concern it."""

    human_ms: float | None
    policy_ms: float | None


LIMITS = {
    "bridge/io": Limits(200.0, 200.0),  # a stale command (150 ms), two answers in a row missing, and a step
    "recorder": Limits(700.0, 700.0),  # 500 ms without a heartbeat, and a step
    "actor": Limits(None, 200.0),  # a person may go on driving
    "operator": Limits(200.0, 600.0),  # a stale command; the lease (500 ms), and a step
    ROBOT: Limits(250.0, 250.0),  # answers within two periods, three errors in a row
}


@dataclass(frozen=True)
class Strike:
    """One event, as the seed has it: independent of what happened before."""

    index: int
    do: str  # "kill", "stop" (and continue) or "stick"
    process: str
    thread: str
    seconds: float  # of a stop or a stuck thread; of a robot that was killed, until another one is started
    wait_s: float  # of undisturbed driving before it

    @property
    def target(self) -> str:
        return f"{self.process}/{self.thread}" if self.thread else self.process

    @property
    def by_watchdog(self) -> bool:
        """Whether nobody but the robot's own watchdog can stop it."""
        return self.process == "bridge" and self.thread in ("", "control")

    @property
    def limits(self) -> Limits | None:
        """None: what moves the robot does not need this."""
        extra = TURN_MS if self.do == "stick" else 0.0
        found = LIMITS.get(self.target) or (LIMITS.get(self.process) if self.process != "bridge" else None)
        if found is None:
            return None
        human, policy = (None if limit is None else limit + extra for limit in (found.human_ms, found.policy_ms))
        return Limits(human, policy)

    def __str__(self) -> str:
        return f"{self.do} {self.target}" + (f" {self.seconds:.1f} s" if self.do != "kill" or self.process == ROBOT else "")


def strike(seed: int, index: int) -> Strike:
    """Event number ``index``: a process, one of three faults, how long."""
    chance = random.Random(f"torture {seed} {index}")
    do = chance.choice(("kill", "stop", "stick"))
    if do == "stick":
        process = chance.choice(sorted(THREADS))
        thread = chance.choice(THREADS[process])
    else:
        process, thread = chance.choice((*PROCESSES, ROBOT)), ""
    return Strike(index, do, process, thread, round(chance.uniform(0.3, 3.0), 1), round(chance.uniform(0.2, 1.5), 2))


def moved_by(step: Step) -> str:
    """ "human", "policy" or "" when it stood."""
    if not any(step.action):
        return ""
    return "human" if Source.HUMAN in step.source else "policy"


@dataclass(frozen=True)
class Motion:
    """Motion that still needed what was struck: ``last_ms`` after the fault, against ``limit_ms``. ``judged``: the fault outlasted it."""

    last_ms: float
    limit_ms: float
    judged: bool


def motion(struck: Strike, fault_ns: int, end_ns: int, steps: Sequence[Step], states: Sequence[State]) -> Motion:
    """Judge the recorded steps of the outage (``fault_ns`` to ``end_ns``, both monotonic).

    After a kill the process may be back a little before the launcher says so: once the bridge has held, it has done its part, and it
    lets nobody resume whose partners are missing.
    """
    limits = struck.limits
    if limits is None:
        return Motion(0.0, 0.0, False)
    if struck.process == ROBOT and limits.policy_ms is not None:
        # a robot that hangs or is gone completes no step: when the bridge said that it moves nothing any more
        halts = [state.t_ns for state in states if state.t_ns > fault_ns and state.mode in (*HALTED, Mode.RESETTING)]
        return Motion((min([end_ns, *halts]) - fault_ns) / 1e6, limits.policy_ms, True)
    held_ns = end_ns
    if struck.do == "kill":
        holds = [state.t_ns for state in states if state.t_ns > fault_ns and state.mode in HALTED]
        held_ns = min([end_ns, *holds])
    allowed = {"human": limits.human_ms, "policy": limits.policy_ms}
    worst: Motion | None = None
    outage_ms = (end_ns - fault_ns) / 1e6
    if not any(fault_ns < step.t_applied_ns < end_ns for step in steps):
        return Motion(0.0, 0.0, False)  # between episodes: nothing is recorded, nothing can be judged
    for who, limit_ms in allowed.items():
        if limit_ms is None:
            continue
        moved = [step.t_applied_ns for step in steps if fault_ns < step.t_applied_ns < held_ns and moved_by(step) == who]
        last_ms = (max(moved) - fault_ns) / 1e6 if moved else 0.0
        if outage_ms <= limit_ms:
            continue
        if worst is None or last_ms / limit_ms > worst.last_ms / worst.limit_ms:
            worst = Motion(last_ms, limit_ms, True)
    return worst or Motion(0.0, 0.0, False)


def moved_while_held(steps: Sequence[Step]) -> int:
    return sum(step.mode is Mode.HOLD and any(step.action) for step in steps)
