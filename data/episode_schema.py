"""What is stored of every step, in one table used by the writer, the reader and the checks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from takeover.data.schema import (
    AnyRecord,
    CameraFrame,
    ControlMode,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Event,
    Outcome,
    OutcomeSource,
    Source,
    Step,
)

SCHEMA_VERSION = 2  # older files are read through `takeover.data.episode_migrate`
PRE_INTERVENTION_S = 0.75  # intv_labels -10: the steps this long before an onset
INTERVENTION_LABEL = 1
PRE_INTERVENTION_LABEL = -10


class EpisodeError(ValueError):
    """The records do not make an episode: no start, rows of different length, an id that is not a name."""


@dataclass(frozen=True)
class Column:
    """A scalar per step in ``hil/<name>``. ``back`` turns what is stored into what the record had."""

    name: str
    dtype: str  # numpy; "S": text, as long as needed
    back: Callable[[Any], Any] | None = None


COLUMNS: tuple[Column, ...] = (
    Column("rec_seq", "i8"),
    Column("seq", "i8"),
    Column("episode_step", "i4"),
    Column("train_step", "i8"),
    Column("run_id", "i4"),
    Column("t_observation_ns", "i8"),
    Column("t_decision_ns", "i8"),
    Column("t_applied_ns", "i8"),
    Column("wall_ns", "i8"),
    Column("mode", "S"),
    Column("control_mode", "i1"),
    Column("hold_reason", "S"),
    Column("policy_from_seq", "i8"),
    Column("policy_version", "i4"),
    Column("intervention_id", "i4"),
    Column("safety_bits", "i4"),
    Column("spread", "f8"),
    Column("device_id", "S"),
    Column("device_alive", "u1", bool),
    Column("command_age_ms", "f8"),
    Column("picture_age_ms", "f8"),
    Column("reward", "f8"),
    Column("reward_source", "S"),
    Column("reward_version", "i4"),
    Column("subtask", "S"),
    Column("terminated", "u1", bool),
    Column("truncated", "u1", bool),
)
ACTION_COLUMNS = ("policy_action", "human_action", "asked_action", "action")  # (N, A) f8, canonical; NaN rows where absent
OPTIONAL_ACTIONS = ("policy_action", "human_action")

EVENT_DTYPE_FIELDS = ("rec_seq", "t_ns", "wall_ns", "seq", "value", "kind", "source", "text")


@dataclass
class EpisodeRecords:
    """Everything the stream said about one episode."""

    start: EpisodeStart
    steps: list[Step] = field(default_factory=list)  # held ones included, by rec_seq
    frames: list[CameraFrame] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    end: EpisodeEnd | None = None
    recovered: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)  # what was done to it after it was recorded: repair, forgetting

    @property
    def episode_id(self) -> str:
        return self.start.episode_id

    def rec_seqs(self) -> list[int]:
        """Sequence numbers of all records that are here."""
        numbers = [self.start.rec_seq]
        numbers += [record.rec_seq for group in (self.steps, self.frames, self.events) for record in group]
        if self.end is not None and self.end.rec_seq >= 0:
            numbers.append(self.end.rec_seq)
        return sorted(numbers)


def gather(records: Sequence[AnyRecord]) -> EpisodeRecords:
    """Sort one episode's records by type; a record that came twice counts once. Raises `EpisodeError` without an EpisodeStart."""
    unique = {record.rec_seq: record for record in records}
    episode: EpisodeRecords | None = None
    for record in unique.values():
        if isinstance(record, EpisodeStart):
            episode = EpisodeRecords(record)
    if episode is None:
        raise EpisodeError("the journal has no episode_start record")
    for number in sorted(unique):
        record = unique[number]
        if isinstance(record, Step):
            episode.steps.append(record)
        elif isinstance(record, CameraFrame):
            episode.frames.append(record)
        elif isinstance(record, Event):
            episode.events.append(record)
        elif isinstance(record, EpisodeEnd):
            episode.end = record
    return episode


def is_held(step: Step) -> bool:
    """Whether a step is kept but is not among the episode's N steps."""
    return step.control_mode in (ControlMode.PAUSED, ControlMode.SAFETY_HOLD)


def is_human(step: Step) -> bool:
    """Human authority over any action group, ramps included."""
    return Source.HUMAN in step.source


def ending(episode: EpisodeRecords) -> EpisodeEnd:
    """The EpisodeEnd as received, or, for a recording that was cut off, one that claims nothing: outcome unknown, source fault."""
    if episode.end is not None:
        return episode.end
    driven = [step for step in episode.steps if not is_held(step)]
    human = sum(is_human(step) for step in driven)
    last = episode.steps[-1] if episode.steps else None
    return EpisodeEnd(
        session=episode.start.session,
        rec_seq=-1,
        episode_id=episode.start.episode_id,
        outcome=Outcome.UNKNOWN,
        outcome_source=OutcomeSource.FAULT,
        event_step=max(0, len(driven) - 1),
        steps=len(driven),
        human_steps=human,
        takeovers=len({step.intervention_id for step in driven if step.intervention_id >= 0}),
        autonomous=human == 0,
        t_ns=last.t_applied_ns if last else episode.start.t_ns,
        wall_ns=last.wall_ns if last else episode.start.wall_ns,
    )


def action_modes(kind: EpisodeKind, driven: Sequence[Step]) -> np.ndarray:
    """Sirius' ``action_modes``: -1 demonstration, 0 policy, 1 intervention. (N,) i1."""
    if kind is EpisodeKind.DEMONSTRATION:
        return np.full(len(driven), -1, np.int8)
    return np.array([INTERVENTION_LABEL if is_human(step) else 0 for step in driven], np.int8)


def intervention_labels(modes: np.ndarray, control_hz: float) -> np.ndarray:
    """Sirius' ``intv_labels``: ``modes`` with -10 for the policy's steps within 0.75 s before each onset. (N,) i1."""
    labels = modes.copy()
    length = round(PRE_INTERVENTION_S * control_hz)
    for i in range(1, len(modes)):
        if modes[i] == INTERVENTION_LABEL and modes[i - 1] != INTERVENTION_LABEL:
            before = labels[max(0, i - length) : i]
            before[before == 0] = PRE_INTERVENTION_LABEL
    return labels
