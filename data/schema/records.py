"""The lossless stream from the bridge to the recorder: what an episode consists of.

Every record has ``(session, rec_seq)``; ``rec_seq`` counts every record of a bridge session from 0 without gaps, so the
recorder deduplicates after a re-send and acknowledges with one number.
"""

import msgspec

from takeover.data.schema.enums import ControlMode, EpisodeKind, Mode, Outcome, OutcomeSource
from takeover.data.schema.specs import RobotSpec


class Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    session: str
    rec_seq: int


class EpisodeStart(Record, frozen=True, kw_only=True, tag="episode_start"):
    episode_id: str  # ULID, lower case
    number: int  # 0, 1, 2, ... within the session, per kind
    kind: EpisodeKind
    spec: RobotSpec
    station_id: str
    operator: str  # pseudonym
    start_seed: int  # the task's start is a function of this
    policy_version: int  # newest accepted when the episode began; 0: none
    policy_sha256: str
    config_sha256: str
    wall_ns: int
    t_ns: int
    parameters: dict[str, float] = msgspec.field(default_factory=dict)
    software: str = ""
    unattended: bool = False  # practice with nobody there: slow and with tighter limits
    consent_version: str = ""  # what the operator agreed to; "": not noted
    probe: int = -1  # 0, 1, ... within the session: a no-help probe, drawn by chance out of normal work; -1: none
    probe_version: int = 0  # the one that was to drive in it; 0: none was accepted yet


class PolicyImage(msgspec.Struct, frozen=True, kw_only=True):
    """uint8 RGB picture for the policy, row-major (height, width, 3)."""

    camera: str
    height: int
    width: int
    data: bytes


class Step(Record, frozen=True, kw_only=True, tag="step"):
    """One control step: what was seen, what was wanted by whom, what was applied, and what came of it.

    Sent when the next observation has been read, so a step is a whole transition (s, a, r, s'). Held steps (mode HOLD,
    RESETTING after an episode never) are sent too, with ``control_mode`` PAUSED or SAFETY_HOLD; they are not among an episode's N
    steps and are never trained on. Actions are canonical, [-1, 1]^A.
    """

    seq: int  # control step counter of the session, never reset
    episode_id: str
    episode_step: int  # 0.. among the N steps (held steps repeat the count they paused at)
    train_step: int  # 0.. over all non-held steps of kind policy in the session, -1 for others: the lockstep index
    run_id: int  # 0.. within the episode; a hold, gap or abort ends a run
    kind: EpisodeKind
    t_observation_ns: int  # monotonic
    t_decision_ns: int
    t_applied_ns: int
    wall_ns: int
    mode: Mode
    control_mode: ControlMode
    hold_reason: str = ""
    observation: list[float]
    next_observation: list[float]
    images: list[PolicyImage] = msgspec.field(default_factory=list)
    next_images: list[PolicyImage] = msgspec.field(default_factory=list)  # on an episode's last step only; else the next step has them
    source: list[int]  # a `Source` per action group, in the order of ActionSpec.groups
    policy_action: list[float] | None  # what the policy wanted, asked in every mode; None: missing
    policy_from_seq: int  # the observation it was inferred from; -1: missing
    policy_version: int
    human_action: list[float] | None  # None where absent
    asked_action: list[float]  # after arbitration and ramp, before the safety filter
    action: list[float]  # applied
    intervention_id: int = -1  # 0.. within the episode; survives a hold; -1: nobody took over
    safety_bits: int = 0
    spread: float = 0.0
    scores: dict[str, float] = msgspec.field(default_factory=dict)
    device_id: str = ""
    device_alive: bool = False
    command_age_ms: float = -1.0
    picture_age_ms: float = -1.0
    reward: float = 0.0
    reward_source: str = "task"
    reward_version: int = 0  # of what gave the reward, a learned model's number; 0: it has none
    subtask: str = ""  # as far as it is known while recording; labels say it later
    terminated: bool = False
    truncated: bool = False
    sim_state: bytes = b""  # exact simulator state *before* the action; constant length, a multiple of 8; empty: not a simulator


class CameraFrame(Record, frozen=True, kw_only=True, tag="camera_frame"):
    """A full-size picture. Published on ``camera/<name>`` (rec_seq -1) and recorded losslessly while an episode runs."""

    camera: str
    counter: int
    t_source_ns: int
    width: int
    height: int
    jpeg: bytes
    episode_id: str = ""
    seq: int = -1  # control step it belongs to


class Event(Record, frozen=True, kw_only=True, tag="event"):
    """A mark, safety event, device change or error; ``kind`` is a short snake_case word."""

    kind: str
    source: str  # process or device
    t_ns: int
    wall_ns: int
    text: str = ""
    episode_id: str = ""
    seq: int = -1
    value: float = 0.0
    sim_state: bytes = b""


class OutcomeChange(Record, frozen=True, kw_only=True, tag="outcome_change"):
    """An operator's correction of an outcome after the episode ended (late key, undo). Becomes a label.

    ``source`` other than `operator`: what was recorded, and by what, holds again, since a person took their outcome back.
    """

    episode_id: str
    outcome: Outcome
    previous: Outcome
    author: str
    event_step: int
    source: OutcomeSource = OutcomeSource.OPERATOR
    wall_ns: int


class EpisodeEnd(Record, frozen=True, kw_only=True, tag="episode_end"):
    episode_id: str
    outcome: Outcome
    outcome_source: OutcomeSource
    event_step: int  # step at which the outcome happened; may be dated back
    steps: int
    human_steps: int  # source human, ramps included, hold excluded
    takeovers: int
    autonomous: bool  # no human step
    discarded: bool = False  # a demonstration its maker threw away: kept, excluded
    t_ns: int
    wall_ns: int


AnyRecord = EpisodeStart | Step | CameraFrame | Event | OutcomeChange | EpisodeEnd


class RecorderHello(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="recorder_hello"):
    """Recorder -> bridge on (re)connection: what it has durably of this session (-1: nothing)."""

    session: str
    acked_rec_seq: int


class RecordAck(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="record_ack"):
    """Recorder -> bridge, also its heartbeat (>= 5 Hz): every record up to and including this one is on disk."""

    session: str
    acked_rec_seq: int
    disk_free_bytes: int
    episodes_closed: int
    error: str = ""  # e.g. disk full; the bridge holds
    notice: str = ""  # what somebody should know, but no reason to hold: an episode that cannot be closed


RecorderMessage = RecorderHello | RecordAck


class Committed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="committed"):
    """Recorder -> learner, console: durably on disk up to ``cursor``. Carries the records themselves (camera frames left out)
    so that a reader without a gap needs no disk; one with a gap (``first`` > its cursor + 1) reads the store."""

    session: str
    first: int  # rec_seq of the first record this message covers
    cursor: int  # rec_seq of the last one
    records: list[EpisodeStart | Step | Event | OutcomeChange | EpisodeEnd]
    closed_episode: str = ""  # id of an episode file that was finished and entered in the catalog
