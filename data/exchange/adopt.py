"""Foreign episodes become ours: records as a bridge would have sent them, a closed file, a row in the catalog."""

from dataclasses import dataclass

import msgspec
import numpy as np

from takeover.data.catalog import Catalog
from takeover.data.entry import entry_of, entry_of_file
from takeover.data.episode_build import DEMO
from takeover.data.episode_file import episode_path, write_episode
from takeover.data.episode_read import open_episode, read_bounds
from takeover.data.episode_schema import EpisodeRecords
from takeover.data.exchange.errors import ExchangeError
from takeover.data.exchange.fits import TaskFit
from takeover.data.exchange.foreign import ForeignEpisode, check, content_digest
from takeover.data.exchange.pictures import PictureError, picture_size
from takeover.data.index import rebuild_index
from takeover.data.schema import CameraFrame, ControlMode, EpisodeEnd, EpisodeKind, EpisodeStart, Mode, PolicyImage, Source, Step
from takeover.data.workspace import MAX_EPISODE_BYTES, Workspace, WorkspaceError, fsync_folder

RECORDS_PER_EPISODE = 1 << 24  # rec_seq of an imported session: episode i begins at i times this
_INTEGERS = ("run_id", "t_observation_ns", "t_decision_ns", "t_applied_ns", "wall_ns", "policy_from_seq", "policy_version", "safety_bits")


@dataclass
class Imported:
    """How many episodes were made, and how many were there already from an earlier try."""

    made: int = 0
    present: int = 0
    steps: int = 0


class Adopter:
    """Enters foreign episodes of one source into a workspace. ``session`` is a plain name; rec_seq counts within it."""

    def __init__(self, workspace: Workspace, catalog: Catalog, session: str, software: str) -> None:
        self.workspace, self.catalog, self.session, self.software = workspace, catalog, session, software
        self.result = Imported()
        self._fit = TaskFit(workspace, catalog)
        workspace.require_space(MAX_EPISODE_BYTES * 2)

    def add(self, episode: ForeignEpisode, index: int) -> bool:
        """Make the episode; returns whether it is new. The same one again is skipped, another of its id is refused with `ExchangeError`."""
        check(episode)
        self._fit.check(episode.where, episode.id, episode.spec, ways="under another task's name (--task) or ")
        start = self._start(episode, index, content_digest(episode))
        path = episode_path(self.workspace, start)
        if self._present(episode, start.config_sha256):
            self.result.present += 1
            return False
        if path.exists():  # written by a try that did not come to enter it
            with open_episode(path) as file:
                noted, _ = read_bounds(file[DEMO])
            if noted.config_sha256 != start.config_sha256:
                raise ExchangeError(f"{episode.where}: {path} exists and is another episode of that id; import with another prefix")
            entry = entry_of_file(self.workspace, path)
        else:
            records = self._records(episode, start)
            made, sha256, size = write_episode(self.workspace, records)
            fsync_folder(made.parent.parent)
            entry = entry_of(records, made.relative_to(self.workspace.path).as_posix(), sha256, size)
        self.catalog.add_episode(entry.session, entry.episode, entry.segments)
        self.result.made += 1
        self.result.steps += len(episode)
        return True

    def _present(self, episode: ForeignEpisode, digest: str) -> bool:
        found = self.catalog.episodes(ids=[episode.id])
        if not found:
            return False
        path = self.workspace.path / found[0].path
        if path.exists():
            with open_episode(path) as file:
                noted, _ = read_bounds(file[DEMO])
            if noted.config_sha256 == digest:
                return True
        raise ExchangeError(f"{episode.where}: the workspace has another episode {episode.id} already; import with another prefix")

    def _start(self, episode: ForeignEpisode, index: int, digest: str) -> EpisodeStart:
        given = episode.start
        t_ns = int(episode.columns["t_observation_ns"][0]) if "t_observation_ns" in episode.columns else 0
        made = EpisodeStart(
            session=self.session,
            rec_seq=index * RECORDS_PER_EPISODE,
            episode_id=episode.id,
            number=index,
            kind=episode.kind,
            spec=episode.spec,
            station_id="import",
            operator=episode.operator,
            start_seed=-1,
            policy_version=0,
            policy_sha256="",
            config_sha256=digest,
            wall_ns=episode.wall_ns,
            t_ns=t_ns,
            software=self.software,
        )
        if given is None:
            return made
        changed = {
            name: getattr(made, name) for name in ("session", "rec_seq", "episode_id", "operator", "config_sha256", "software", "spec")
        }
        return msgspec.structs.replace(given, **changed)

    def _records(self, episode: ForeignEpisode, start: EpisodeStart) -> EpisodeRecords:
        records = EpisodeRecords(start)
        sources = _sources(episode)
        ids = _intervention_ids(episode, sources)
        number = start.rec_seq
        for i in range(len(episode)):
            number += 1
            step = _step(episode, start, i, number, sources[i].tolist(), int(ids[i]))
            records.steps.append(step)
            for camera in sorted(episode.jpegs):
                number += 1
                records.frames.append(_frame(episode, start, camera, i, number, step))
        human = int((sources == Source.HUMAN).any(axis=1).sum())
        last = records.steps[-1]
        records.end = EpisodeEnd(
            session=self.session,
            rec_seq=number + 1,
            episode_id=episode.id,
            outcome=episode.outcome,
            outcome_source=episode.outcome_source,
            event_step=episode.event_step if episode.event_step >= 0 else len(episode) - 1,
            steps=len(episode),
            human_steps=human,
            takeovers=len(set(ids[ids >= 0].tolist())),
            autonomous=human == 0,
            discarded=episode.discarded,
            t_ns=last.t_applied_ns,
            wall_ns=last.wall_ns,
        )
        return records


def _sources(episode: ForeignEpisode) -> np.ndarray:
    """(n, G) whose action it was: as the file says; else the person's in demonstrations and interventions, the policy's otherwise."""
    groups = len(episode.spec.action.groups)
    if "source" in episode.columns:
        return np.asarray(episode.columns["source"], np.int64).reshape(len(episode), groups)
    human = np.full(len(episode), episode.kind is EpisodeKind.DEMONSTRATION)
    if episode.intervention is not None:
        human |= episode.intervention.astype(bool)
    return np.where(human, int(Source.HUMAN), int(Source.POLICY))[:, None].repeat(groups, axis=1)


def _intervention_ids(episode: ForeignEpisode, sources: np.ndarray) -> np.ndarray:
    """(n,) as the file says; else counted from onset to onset, -1 where nobody took over."""
    if "intervention_id" in episode.columns:
        return np.asarray(episode.columns["intervention_id"], np.int64)
    human = (sources == Source.HUMAN).any(axis=1)
    onsets = human & ~np.concatenate([[False], human[:-1]])
    return np.where(human, np.cumsum(onsets) - 1, -1)


def _step(episode: ForeignEpisode, start: EpisodeStart, i: int, rec_seq: int, source: list[int], intervention: int) -> Step:
    columns, human = episode.columns, Source.HUMAN in source
    period_ns = round(1e9 / start.spec.control_hz)
    whole = {name: int(columns[name][i]) for name in _INTEGERS if name in columns}
    t_ns = whole.get("t_observation_ns", start.t_ns + i * period_ns)
    action = episode.action[i].tolist()
    control = (
        ControlMode(int(columns["control_mode"][i])) if "control_mode" in columns else ControlMode.HUMAN if human else ControlMode.POLICY
    )

    def wanted(name: str, default: list[float] | None) -> list[float] | None:
        if f"{name}_valid" not in columns:
            return default
        return columns[name][i].tolist() if columns[f"{name}_valid"][i] else None

    return Step(
        session=start.session,
        rec_seq=rec_seq,
        seq=int(columns["seq"][i]) if "seq" in columns else i,
        episode_id=start.episode_id,
        episode_step=i,
        train_step=-1,
        run_id=whole.get("run_id", 0),
        kind=start.kind,
        t_observation_ns=t_ns,
        t_decision_ns=whole.get("t_decision_ns", t_ns),
        t_applied_ns=whole.get("t_applied_ns", t_ns),
        wall_ns=whole.get("wall_ns", start.wall_ns + i * period_ns),
        mode=Mode.TAKEOVER if human else Mode.POLICY,
        control_mode=control,
        observation=episode.observation[i].tolist(),
        next_observation=episode.next_observation[i].tolist(),
        images=_policy_images(episode.small, i),
        next_images=_policy_images(episode.small_after, i) if _ends_run(columns, i, len(episode)) else [],
        source=source,
        policy_action=wanted("policy_action", None if human else action),
        policy_from_seq=whole.get("policy_from_seq", -1),
        policy_version=whole.get("policy_version", start.policy_version),
        human_action=wanted("human_action", action if human else None),
        asked_action=columns["asked_action"][i].tolist() if "asked_action" in columns else action,
        action=action,
        intervention_id=intervention,
        safety_bits=whole.get("safety_bits", 0),
        spread=float(columns["spread"][i]) if "spread" in columns else 0.0,
        command_age_ms=float(columns["command_age_ms"][i]) if "command_age_ms" in columns else -1.0,
        reward=float(episode.reward[i]),
        reward_source="imported",
        terminated=bool(episode.terminated[i]),
        truncated=bool(episode.truncated[i]),
        sim_state=episode.states[i].tobytes() if episode.states is not None else b"",
    )


def _ends_run(columns: dict[str, np.ndarray], i: int, n: int) -> bool:
    return i == n - 1 or ("run_id" in columns and columns["run_id"][i] != columns["run_id"][i + 1])


def _policy_images(pictures: dict[str, np.ndarray], i: int) -> list[PolicyImage]:
    return [
        PolicyImage(camera=camera, height=stack.shape[1], width=stack.shape[2], data=stack[i].tobytes())
        for camera, stack in sorted(pictures.items())
    ]


def _frame(episode: ForeignEpisode, start: EpisodeStart, camera: str, i: int, rec_seq: int, step: Step) -> CameraFrame:
    try:
        height, width = picture_size(episode.jpegs[camera][i])
    except PictureError as error:
        raise ExchangeError(f"{episode.where}: pictures of {camera}, step {i}: {error}") from error
    return CameraFrame(
        session=start.session,
        rec_seq=rec_seq,
        camera=camera,
        counter=i,
        t_source_ns=step.t_observation_ns,
        width=width,
        height=height,
        jpeg=episode.jpegs[camera][i],
        episode_id=start.episode_id,
        seq=step.seq,
    )


def refresh_index(workspace: Workspace, catalog: Catalog) -> None:
    """Make ``index.hdf5`` anew after an import. A running recorder does it itself within half a minute."""
    try:
        lock = workspace.lock("recorder")
    except WorkspaceError:
        return
    with lock:
        rebuild_index(workspace, catalog)
