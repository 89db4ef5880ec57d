"""Telemetry, commands and status (MessagePack on the wire); control requests are in `requests`. docs/protocol.md has it for others.

Unknown fields are refused in what can move the robot (`Command`, control requests) and ignored in telemetry.
"""

from typing import Literal

import msgspec

from takeover.data.schema.enums import EpisodeKind, HoldReason, Mode, Outcome
from takeover.data.schema.records import PolicyImage

PROTOCOL_VERSION = 1


class Telemetry(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class Strict(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    pass


class State(Telemetry, frozen=True, kw_only=True, tag="state"):
    """Bridge -> everyone, 50 Hz even when idle: it is the heartbeat. ``seq`` counts State messages."""

    session: str
    seq: int
    t_ns: int
    mode: Mode
    mode_since_ns: int
    hold_reason: HoldReason
    hold_detail: str
    step_seq: int  # newest control step (Observation.seq)
    source: list[int]  # `Source` per action group
    observation: list[float]
    tool_position: list[float]  # m, base frame
    tool_velocity: list[float]  # m/s
    tool_yaw: float
    gripper_width_m: float
    force_n: list[float]
    action: list[float]  # applied last
    human_action: list[float] | None
    policy_action: list[float] | None
    commander: str  # holder of the lease
    device_id: str
    command_age_ms: float  # -1: none
    policy_age_ms: float
    picture_age_ms: dict[str, float]
    speed_scale: float
    episode_id: str
    episode_kind: EpisodeKind | None
    episode_number: int
    episode_step: int
    episode_max_steps: int
    episode_time_s: float
    intervention_id: int
    takeovers: int
    human_steps: int
    block_done: int  # episodes finished of the block asked for by `Start`
    block_size: int  # 0: until told otherwise
    last_outcome: Outcome | None
    last_outcome_episode: str
    policy_version: int
    train_steps: int
    steps_total: int
    steps_dropped: int
    steps_late: int
    lateness_p99_ms: float
    safety_counts: dict[str, int]
    record_backlog: int  # records not yet acknowledged
    recorder_age_ms: float  # since the recorder was last heard; -1: never
    disk_free_bytes: int
    resumes: int
    block_number: int = 0  # blocks begun in this session: tells the state before a `Start` from the one after it
    block_running: bool = False
    scores: dict[str, float] = msgspec.field(default_factory=dict)
    last_outcome_source: str = ""  # an `OutcomeSource`
    unattended: bool = False  # practice with nobody there
    probe: int = -1  # number of the no-help probe that the episode is; -1: none
    probe_version: int = 0  # the version that must drive in it; 0: whichever acts when it begins
    failures: int = 0  # of the block of unattended practice, and how many end it
    max_failures: int = 0
    policy_latency_ms: float = -1.0  # observation sent to answer received, of the newest answer; -1: not known
    refused_commands: int = 0  # commands and answers refused in this session
    bad_messages: int = 0  # that could not be read, on any stream
    refused_connections: int = 0  # over a network: connections and messages without an admitted key
    refused_requests: int = 0  # control requests answered with an error
    last_refusal: str = ""  # the newest of all of these: sender, field, value, what is allowed
    last_refusal_age_ms: float = -1.0  # -1: none
    recorder_notice: str = ""  # what the recorder wants known, no reason to hold: an episode that could not be closed
    gate: dict[str, str] = msgspec.field(default_factory=dict)  # start gate: item -> "" when passed, else what is missing


class Observation(Telemetry, frozen=True, kw_only=True, tag="observation"):
    """Bridge -> actor, every control step."""

    session: str
    seq: int
    t_robot_ns: int
    mode: Mode
    episode_id: str
    episode_step: int
    run_id: int
    observation: list[float]
    images: list[PolicyImage] = msgspec.field(default_factory=list)
    flush: bool = False  # chunks and histories end here: takeover, hold, hand-back, other groups, new episode
    train_step: int = -1
    required_version: int = 0  # the version that must answer, in lockstep and in probes; 0: the newest accepted
    lockstep: bool = False


class PolicyAction(Telemetry, frozen=True, kw_only=True, tag="policy_action"):
    """Actor -> bridge. ``actions`` is (H, A), canonical. Row i is for observation ``from_seq + i``."""

    session: str
    from_seq: int
    actions: list[list[float]]
    valid_until_seq: int
    policy_version: int
    policy_sha256: str = ""
    spread: float = 0.0
    scores: dict[str, float] = msgspec.field(default_factory=dict)
    success: bool = False  # a learned reward calls the observation success: ends the episode where the station says so
    reward_version: int = 0  # of that learned reward; 0: none


class Privileged(Telemetry, frozen=True, kw_only=True, tag="privileged"):
    """Simulators only, a debug topic: the truth that never enters an observation, and the scripted expert's advice."""

    session: str
    seq: int  # that of the Observation
    mode: Mode
    hold_reason: HoldReason
    episode_id: str
    episode_kind: EpisodeKind | None
    episode_number: int
    episode_step: int
    intervention_id: int
    observation: list[float]
    tool_velocity: list[float]
    values: dict[str, list[float]]
    expert_action: list[float]  # canonical; what a perfect operator would command now
    policy_action: list[float] | None  # the last one applied
    lockstep: bool


class Command(Strict, frozen=True, kw_only=True, tag="command"):
    """Console or operator -> bridge, 50 Hz (lockstep: one per observation)."""

    session: str  # the bridge session it was made for; others are refused
    sender: str
    seq: int  # increasing per sender
    lease: str
    device_id: str
    device_kind: Literal["keyboard", "gamepad", "spacemouse", "scripted", "leader", "none"]
    device_alive: bool
    deadman: bool
    neutral: bool  # the device is centred and its deadman released
    focused: bool  # the window has focus; matters while the keyboard drives
    gui_alive: bool  # the GUI thread's heartbeat is young; false releases authority
    action: list[float]  # canonical, [-1, 1]^A
    authority: list[str]  # action groups this device drives
    newest_state_seq: int  # newest State.seq seen: how the bridge judges freshness without comparing clocks
    for_step_seq: int = -1  # lockstep: the observation it answers


class LearnerStatus(Telemetry, frozen=True, kw_only=True, tag="learner_status"):
    """Learner -> bridge (lockstep progress, versions), actor (new weights), console. On every change and >= 2 Hz."""

    learner: str
    phase: str  # "waiting", "cloning", "training", "error"
    progress: float  # of the phase, 0..1
    text: str
    updates: int
    updates_per_s: float
    demonstrations: int
    finished_train_step: int  # updates for every train_step up to this one are done; -1: none
    backlog_steps: int
    newest_version: int
    versions: list[tuple[int, int]]  # the latest (version, acts_from_train_step), oldest first
    versions_published: int
    trusted_version: int = 0
    human_steps: int = 0
    extra_updates: int = 0  # of ``updates``: beyond the held ratio, while the robot was reset
    last_correction: dict[str, float | str] = msgspec.field(default_factory=dict)
    # episode_number, intervention_id, length_s, update, to_batch_s, version, to_acting_s as they become known
    corrections: list[dict[str, float | str]] = msgspec.field(default_factory=list)  # newest last, at most 20
    correction_to_batch_s: list[float] = msgspec.field(default_factory=list)  # the newest 1,000
    correction_to_acting_s: list[float] = msgspec.field(default_factory=list)
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    error: str = ""
    notices: list[str] = msgspec.field(default_factory=list)  # what everyone should know; all of them are in ``text`` too


class ActorStatus(Telemetry, frozen=True, kw_only=True, tag="actor_status"):
    """Actor -> everyone, >= 2 Hz and at every swap."""

    version: int
    sha256: str
    since_ns: int
    rate_hz: float
    inference_ms: float
    refused: str = ""  # why the newest weights were refused
    pinned: int = 0  # the version that a rollback holds the actor to; 0: the newest acts


class EvaluatorStatus(Telemetry, frozen=True, kw_only=True, tag="evaluator_status"):
    busy: bool
    version: int
    done: int
    total: int
    results: list[dict[str, float]] = msgspec.field(default_factory=list)  # {version, successes, n}
    error: str = ""
    notices: list[str] = msgspec.field(default_factory=list)  # what everyone should know: a version that the gate refused, a new reward
    reward: dict[str, float] = msgspec.field(default_factory=dict)  # of the learned reward that is kept up: version, vetoes, ...


class Evaluate(Strict, frozen=True, kw_only=True, tag="evaluate"):
    """To the evaluator's request socket: policy alone, deterministic, on the held-out starts."""

    request_id: int
    version: int
    starts: int = 200


class EvaluateReply(Telemetry, frozen=True, kw_only=True, tag="evaluate_reply"):
    request_id: int
    version: int
    successes: int
    n: int
    outcomes: list[bool]
    wall_s: float
    error: str = ""


class ProcessStatus(Telemetry, frozen=True, kw_only=True, tag="process_status"):
    """Launcher -> console: {name: "starting" | "up" | "restarting" | "stopped" | "failed: ..."} and restart counts."""

    states: dict[str, str]
    restarts: dict[str, int]
    pids: dict[str, int]


class LauncherRequest(Strict, frozen=True, kw_only=True, tag="launcher_request"):
    """Console -> launcher (``launcher`` socket): start, stop or restart one process, or shut the whole station down."""

    request_id: int
    action: Literal["start", "stop", "restart", "shutdown"]
    process: str = ""


class LauncherReply(Telemetry, frozen=True, kw_only=True, tag="launcher_reply"):
    request_id: int
    error: str = ""
