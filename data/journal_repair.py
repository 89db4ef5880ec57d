"""Episodes out of journals that are left over, also of those no recorder could make one of."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from takeover.data.catalog import Catalog
from takeover.data.entry import entry_of
from takeover.data.episode_build import step_problem
from takeover.data.episode_file import episode_path, read_records, write_episode
from takeover.data.episode_migrate import NewerFile
from takeover.data.episode_schema import EpisodeError
from takeover.data.hdf5_image import DamagedFile, check_seal
from takeover.data.open_episode import OpenEpisode
from takeover.data.people import note_operators
from takeover.data.schema import AnyRecord, EpisodeStart, Step

if TYPE_CHECKING:
    from takeover.data.repair import Repair

UNKNOWN = -1
"""Number and start seed of an episode whose start record is lost."""


def repair_journals(work: "Repair", catalog: Catalog, with_start: bool) -> None:
    """Close every episode that has a journal and can be closed; its journal is set aside then, and stays where it is otherwise.

    ``with_start``: those whose start record is there, or those whose start is lost.
    """
    found: dict[str, list[Path]] = {}
    for path in _journals(work, with_start):
        found.setdefault(path.name.rsplit(".", 2)[0], []).append(path)
    for index, (episode_id, paths) in enumerate(found.items()):  # one after the other: each may be large
        if not work.step(index, len(found)):
            work.report.left.append("stopped before every journal was closed; call repair again")
            return
        try:
            episode = OpenEpisode(work.workspace, episode_id)
            for path in paths:
                episode.read_part(path)
            if (episode.has_start or not episode.records) is with_start:
                _close(work, catalog, episode)
        except (ValueError, OSError, SQLAlchemyError) as error:  # contradicting records, a name that is none, a disk that is full
            names = ", ".join(work.name(path) for path in paths)
            work.report.left.append(f"{names}: {error}; kept")


def _journals(work: "Repair", with_start: bool) -> list[Path]:
    folder = work.workspace.journal
    found = []
    for path in sorted([*folder.glob("*.mcap"), *work.workspace.unreadable.glob("*.mcap")]):
        parts = path.name.rsplit(".", 2)
        if len(parts) == 3 and parts[1].isdecimal():
            found.append(path)
        elif with_start:
            work.report.left.append(f"{work.name(path)}: is not named like a journal, <episode>.<part>.mcap; left where it is")
    return sorted(found, key=lambda path: (path.name.rsplit(".", 2)[0], int(path.name.rsplit(".", 2)[1])))


def _close(work: "Repair", catalog: Catalog, journal: OpenEpisode) -> None:
    names = ", ".join(work.name(path) for path in journal.paths)
    if not journal.records:
        _set_aside(work, journal)
        work.report.done.append(f"{names}: holds no whole record; moved to set-aside")
        return
    history = []
    if not journal.has_start:
        start, origin = _made_up_start(journal.records, catalog, work)
        journal.records.insert(0, start)
        history.append({"what": "start record made up by repair", "from": origin, "lost": "number, start_seed, parameters"})
    episode = journal.gather()
    odd = [step for step in episode.steps if step_problem(episode.start, step)]
    if odd:  # the journal keeps them
        episode.steps = [step for step in episode.steps if not step_problem(episode.start, step)]
        why = step_problem(episode.start, odd[0])
        history.append({"what": "steps left out that contradict the robot", "seq": ", ".join(str(step.seq) for step in odd), "first": why})
    if journal.problems and (episode.recovered or history):
        history.append({"what": "recovered from a damaged journal", "journal": "; ".join(journal.problems)})
    episode.recovered = episode.recovered or bool(history)
    episode.history = history
    path = episode_path(work.workspace, episode.start)
    if path.exists() and _has_all(path, episode.steps):
        _set_aside(work, journal)
        work.report.done.append(f"{names}: its episode was closed already as {work.name(path)}; moved the journal to set-aside")
        return
    if path.exists():  # damaged: a whole file that has less than the journal raises in _has_all
        work.set_aside(path)
    path, sha256, size = write_episode(work.workspace, episode)
    entry = entry_of(episode, work.name(path), sha256, size)
    catalog.add_episode(entry.session, entry.episode, entry.segments)
    note_operators(catalog, entry)
    _set_aside(work, journal)
    made_up = "; its start record was lost and is made up" if history and "made up" in history[0]["what"] else ""
    steps = f"{entry.episode['steps']} steps" + (f" of {episode.end.steps}" if episode.end is not None and episode.recovered else "")
    work.report.done.append(f"{names}: made {work.name(path)} of it, {steps}{made_up}; moved the journal to set-aside")


def _has_all(path: Path, steps: list[Step]) -> bool:
    """Whether a closed file is whole and has these steps; False when it is damaged. Raises when it is whole and lacks some."""
    try:
        check_seal(path)
        stored = {step.rec_seq for step in read_records(path, sealed=True)[1]}
    except NewerFile:
        raise
    except DamagedFile:
        return False
    lacking = [step.seq for step in steps if step.rec_seq not in stored]
    if lacking:
        raise EpisodeError(f"{path} is whole but lacks {len(lacking)} steps of the journal, the first is seq {lacking[0]}")
    return True


def _set_aside(work: "Repair", journal: OpenEpisode) -> None:
    for path in journal.paths:
        work.set_aside(path)


def _made_up_start(records: list[AnyRecord], catalog: Catalog, work: "Repair") -> tuple[EpisodeStart, str]:
    """A start like that of the nearest episode of the same session, and that episode's id. Raises `EpisodeError`."""
    steps = [record for record in records if isinstance(record, Step)]
    if not steps:
        raise EpisodeError("the journal has neither a start nor a step")
    first = min(steps, key=lambda step: step.rec_seq)
    rows = sorted(catalog.episodes(session_id=first.session), key=lambda row: abs(row.first_rec_seq - first.rec_seq))
    for row in rows:
        try:
            like = read_records(work.workspace.path / row.path)[0]
        except (DamagedFile, OSError):
            continue
        spec = like.spec
        if (spec.action.size, spec.observation.size, len(spec.action.groups)) != (
            len(first.action),
            len(first.observation),
            len(first.source),
        ):
            continue
        start = EpisodeStart(
            session=first.session,
            rec_seq=min(record.rec_seq for record in records) - 1,
            episode_id=first.episode_id,
            number=UNKNOWN,
            kind=first.kind,
            spec=spec,
            station_id=like.station_id,
            operator=like.operator,
            start_seed=UNKNOWN,
            policy_version=first.policy_version,
            policy_sha256=like.policy_sha256 if like.policy_version == first.policy_version else "",
            config_sha256=like.config_sha256,
            wall_ns=first.wall_ns,
            t_ns=first.t_observation_ns,
            software=like.software,
            unattended=like.unattended,
            consent_version=like.consent_version,
        )
        return start, row.id
    raise EpisodeError(
        f"no start record, and no other episode of session {first.session} with {len(first.action)} action and {len(first.observation)} "
        "observation numbers to take the robot's description from"
    )
