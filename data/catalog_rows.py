"""The rows that queries of the catalog return."""

import msgspec


class EpisodeRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One episode as the catalog knows it. ``outcome`` is the current one (label over record); ``excluded`` likewise."""

    id: str
    session_id: str
    number: int
    kind: str
    robot_id: str
    task_id: str
    operator: str
    started_ns: int
    ended_ns: int
    control_hz: float
    steps: int
    human_steps: int
    held_steps: int
    takeovers: int
    autonomous: bool
    outcome: str
    outcome_source: str
    event_step: int
    discarded: bool
    recovered: bool
    policy_version: int
    policy_sha256: str
    start_seed: int
    has_pictures: bool
    first_rec_seq: int
    rec_ranges: str
    path: str
    sha256: str
    size_bytes: int
    recorded_outcome: str = ""
    excluded: bool = False

    @property
    def success(self) -> bool:
        return self.outcome == "success"


class SegmentRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):  # thousands at once; none refers to itself
    """One flagged stretch of an episode with its current labels {field: value}."""

    id: str
    episode_id: str
    kind: str
    number: int
    start_step: int
    end_step: int
    start_s: float
    end_s: float
    started_ns: int
    trigger: str
    detail: str
    operator: str
    policy_version: int
    episode_number: int
    episode_kind: str
    session_id: str
    task_id: str
    episode_outcome: str
    has_pictures: bool
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class PolicyRow(msgspec.Struct, frozen=True, kw_only=True):
    session_id: str
    version: int
    sha256: str
    parent: int
    learner: str
    task_id: str
    created_ns: int
    updates: int
    train_step: int
    metrics: dict[str, float]


class EvaluationRow(msgspec.Struct, frozen=True, kw_only=True):
    session_id: str
    policy_version: int
    policy_sha256: str
    task_id: str
    protocol: str
    successes: int
    n: int
    created_ns: int
    wall_s: float


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    station_id: str
    robot_id: str
    task_id: str
    operator: str
    started_ns: int
    software: str
    config_sha256: str
    episodes: int = 0
    steps: int = 0


class LabelEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a labeler did; also a line of ``labels.jsonl``."""

    id: str
    target: str
    episode_id: str
    field: str
    value: str
    previous: str
    author: str
    wall_ns: int
    action: str = "set"
    refers_to: str = ""
    blind: bool = False


class LabelUse(msgspec.Struct, frozen=True, kw_only=True):
    """The first update of a learner that a label had an effect on, and the first published weights with it (0: none yet)."""

    event_id: str
    learner: str
    target: str
    update_number: int
    policy_version: int
    wall_ns: int
