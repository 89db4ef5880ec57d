"""What a learner ingests again after a restart: the committed stream as it lies in the store, cut where its checkpoint was.

The episode that runs counts too: its steps are in a journal, not in a closed file. Left out, they would come a second time over the
wire and be counted twice, while the checkpoint's counters already hold them.
"""

import logging
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from takeover.data.hdf5_image import DamagedFile
from takeover.data.schema import EpisodeEnd, EpisodeKind, EpisodeStart, Event, OutcomeChange, RobotSpec, RunConfig, Step
from takeover.data.spaces import differences, spaces_of
from takeover.data.store import iter_episode_records, open_records
from takeover.policies.base import Learner, LearnerError
from takeover.policies.same_settings import carried_on, differing

log = logging.getLogger("learner")

CommittedRecord = EpisodeStart | Step | Event | OutcomeChange | EpisodeEnd


class OtherSettings(LearnerError):
    """A checkpoint was made by another learner, with other settings or for another robot; says which and what to do."""


TRAINED_KINDS = (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY)


def ingestion_log(
    workspace: Path,
    task: str,
    cursors: Mapping[str, int],
    relabelled: Container[str] = (),
    on_damaged: Callable[[str, DamagedFile], None] | None = None,
) -> tuple[list[CommittedRecord], list[CommittedRecord]]:
    """(seen, rest): records of trained episodes of ``task`` up to ``cursors`` (newest rec_seq of each session), and what came after.

    Sessions in the order they were recorded, each in the order of its stream. The rest ends with the last closed episode; what runs
    beyond it is read as a gap of the stream. Late outcomes of ``relabelled`` episodes are left to their labels; episodes that labels
    leave out are in neither. A damaged file is told to ``on_damaged`` and passed over; without it raises `DamagedFile` naming the file.
    """
    waiting = open_records(workspace)  # before the files: an episode that is just being closed is in one or the other
    sessions: dict[str, dict[tuple[int, bool], CommittedRecord]] = {}
    for start, steps, end in iter_episode_records(workspace, task, on_damaged=on_damaged):
        if start.kind in TRAINED_KINDS:
            whole: list[CommittedRecord] = [start, *steps]
            records = sessions.setdefault(start.session, {})
            records.update(((record.rec_seq, False), record) for record in whole)
            # the end of an episode that was cut off was never in the stream: it comes after the last record there is
            records[(end.rec_seq, False) if end.rec_seq >= 0 else (whole[-1].rec_seq, True)] = end
    last = {session: max(records)[0] for session, records in sessions.items()}
    for record in _trained(waiting, task):
        if isinstance(record, OutcomeChange) and record.episode_id in relabelled:
            continue  # its label says what holds now
        if record.rec_seq <= max(cursors.get(record.session, -1), last.get(record.session, -1)):
            sessions.setdefault(record.session, {}).setdefault((record.rec_seq, False), record)
    seen: list[CommittedRecord] = []
    rest: list[CommittedRecord] = []
    for session, records in sessions.items():
        for key in sorted(records):
            (seen if key[0] <= cursors.get(session, -1) else rest).append(records[key])
    return seen, rest


def with_pictures(
    workspace: Path, task: str, records: Iterable[CommittedRecord], on_damaged: Callable[[str, DamagedFile], None] | None = None
) -> Iterable[CommittedRecord]:
    """The same records, steps of closed episodes with their pictures, of one episode at a time: all would not fit into memory."""
    pictured: dict[int, Step] = {}
    for record in records:
        if isinstance(record, EpisodeStart):
            found = iter_episode_records(workspace, task, images=True, episode_ids=[record.episode_id], on_damaged=on_damaged)
            pictured = {step.rec_seq: step for _, steps, _ in found for step in steps}
        yield pictured.get(record.rec_seq, record) if isinstance(record, Step) else record


def _trained(records: Iterable[CommittedRecord], task: str) -> Iterable[CommittedRecord]:
    """Those of episodes of the task that are trained on, and outcomes that came late."""
    episodes: set[str] = set()
    for record in records:
        if isinstance(record, EpisodeStart) and record.spec.task_id == task and record.kind in TRAINED_KINDS:
            episodes.add(record.episode_id)
        if isinstance(record, OutcomeChange) or getattr(record, "episode_id", "") in episodes:
            yield record


def check_same_settings(folder: Path, state: Mapping[str, Any], learner: Learner, spec: RobotSpec) -> None:
    """Raises `OtherSettings` when ``state``, a checkpoint in ``folder``, is not one of this learner with these settings and this robot."""
    differ = differing(state["values"]["parameters"], learner.state()["values"]["parameters"])
    if state["values"]["learner"] != learner.name:
        differ.insert(0, f"the learner was {state['values']['learner']} and is {learner.name}")
    saved_robot = spaces_of(msgspec.convert(state["run"]["spec"], RobotSpec))
    differ += [f"the robot's {what} was {was} and is {now}" for what, was, now in differences(saved_robot, spaces_of(spec))]
    if differ:
        raise OtherSettings(
            f"{folder} holds what was learned with other settings: {'; '.join(differ)}. Set them back to go on, "
            f"or move that folder away to learn anew from the recorded episodes. The policies there are stay as they are"
        )


def kept_settings(config: RunConfig, state: Mapping[str, Any]) -> dict[str, Any]:
    """Settings beyond those of ``config`` with which its learner does what the version did that made ``state``, a checkpoint."""
    if state["values"]["learner"] != config.learner:
        return {}  # refused later, by name
    given = config.learner_parameters
    before = {name: value for name, value in state.get("kept", {}).items() if name not in given}
    kept = before | carried_on(config.learner, state["values"]["parameters"], given)
    if kept:
        log.warning("going on with settings of an earlier version: %s", ", ".join(f"{name} = {value}" for name, value in kept.items()))
    return kept
