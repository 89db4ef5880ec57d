"""What an episode, a block of them and a step are while they are made: plain data. `EpisodeBook` keeps and records them."""

from collections import deque
from dataclasses import dataclass, field

from takeover.data.schema import ControlMode, EpisodeKind, Mode, PolicyAction, PolicyImage, SafetyBit, Source
from takeover.robot_bridge.arbitration import Human
from takeover.robot_bridge.robots.base import FloatArray, Reading


class EpisodeError(ValueError):
    """A request about episodes that cannot be done; says why."""


@dataclass
class Block:
    """What `Start` asked for: ``size`` episodes of one kind (0: until told otherwise). ``max_failures`` > 0: unattended practice."""

    kind: EpisodeKind
    size: int
    done: int = 0
    finishing: bool = False
    max_failures: int = 0
    failures: int = 0

    @property
    def complete(self) -> bool:
        return self.finishing or (self.size > 0 and self.done >= self.size)


@dataclass
class Episode:
    """One episode from its reset on; recorded from `EpisodeBook.open` on."""

    id: str
    number: int
    kind: EpisodeKind
    start_seed: int
    recorded: bool = False
    steps: int = 0  # held ones excluded
    human_steps: int = 0
    takeovers: int = 0
    run_id: int = 0
    run_broken: bool = False  # the next step that is not held begins a new run
    intervention_id: int = -1
    intervention_open: bool = False
    intervention_driver: str = ""  # of the newest one; "": nobody has driven in it yet
    driver: str = ""  # pseudonym on record: the operator, then whoever drove last
    probe: int = -1  # number of the no-help probe that it is; -1: none
    probe_version: int = 0
    ended_by: str = ""  # who gave its outcome while it ran
    newest_seqs: deque[int] = field(default_factory=deque)  # control steps of its newest driven ones, as far back as a key is dated


@dataclass(frozen=True)
class PendingStep:
    """A step whose outcome is not known before the next reading."""

    seq: int
    reading: Reading
    mode: Mode
    control_mode: ControlMode
    hold_reason: str
    held: bool
    source: tuple[Source, ...]
    policy: PolicyAction | None
    policy_action: list[float] | None
    human: Human | None
    human_action: list[float] | None
    asked: FloatArray
    action: FloatArray
    safety_bits: SafetyBit
    t_decision_ns: int
    t_applied_ns: int
    wall_ns: int
    picture_age_ms: float
    sim_state: bytes
    images: list[PolicyImage] = field(default_factory=list)  # the very ones that the policy was shown
