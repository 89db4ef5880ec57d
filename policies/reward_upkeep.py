"""Keeping a learned reward up while the station works: after some vetoes the next version is trained, and replay is scored anew by it.

Nothing here is part of a learner's state. The new version is a file, and what it says of recorded episodes are labels in the log, which a
running learner reads before its next batch as it reads any label: so a learner that resumes has the same ingestion log as before.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import EpisodeRow
from takeover.data.episode_file import EpisodeReader
from takeover.data.hdf5_image import DamagedFile
from takeover.data.outcome_labels import outcome_events
from takeover.data.schema import EpisodeEnd
from takeover.data.workspace import Workspace
from takeover.policies.reward_compare import WorseReward
from takeover.policies.reward_data import rows_of
from takeover.policies.reward_evidence import count_vetoes, judge
from takeover.policies.reward_fit import RewardCancelled
from takeover.policies.reward_rescore import rescore
from takeover.policies.reward_settings import NEGATIVE_MARK, RewardError
from takeover.policies.reward_store import RewardManifest, newest_for, rewards_folder
from takeover.policies.reward_training import request_like, train_reward

PENDING = "pending.json"
MOST_SHOWN = 200
NEWS_S = 600.0  # so long a new version is news
RETRY_S = 300.0  # after data that did not do, with no veto more


@dataclass(frozen=True)
class _Seen:
    """What of an episode's file bears on vetoes; it never changes."""

    file_sha256: str
    end: EpisodeEnd
    marks: int  # "not success", at steps that count


class RewardUpkeep:
    """One robot and task. ``retrain_after``: vetoes since the newest version was trained that make the next one due; 0: never.

    A veto is a success by a classifier that a person took back, or a mark *not success*.
    """

    def __init__(self, workspace: str | Path, robot_id: str, task_id: str, retrain_after: int) -> None:
        if retrain_after < 0:
            raise ValueError(f"retrain_after = {retrain_after}; 0 (never) or more vetoes")
        self.notice = ""  # what everyone should know
        self.figures: dict[str, float] = {}
        self._where = Workspace(workspace)
        self._robot_id, self._task_id, self._retrain_after = robot_id, task_id, retrain_after
        self._catalog: Catalog | None = None  # one for the whole run: each new connection pool leaves some memory behind
        self._seen: dict[str, _Seen] = {}
        self._changes = -1  # of the catalog, at the last look that was finished
        self._version = -1  # that was the newest then
        self._news_until_s = float("inf")  # the notice is good news, which grow old
        self._none = False  # the notice is that there is no classifier
        self._refused = (0, float("-inf"))  # how many vetoes there were when the data did not do, and when

    def look(self, goes_on: Callable[[], bool]) -> bool:
        """Train and score anew if that is due; True when there is a new version. ``goes_on()`` False stops it: nothing is published, the
        scoring that is under way is taken up by the next look.

        Data that cannot make a classifier (one class, too little), or makes a worse one, leaves the present one and is said in ``notice``;
        it is tried again when there are more vetoes, or when something was recorded or labelled and five minutes are over.

        Raises the catalog's own errors, `LabelError`, `OSError`, and `RewardError` for a broken manifest.
        """
        newest = newest_for(self._where.path, self._robot_id, self._task_id)
        if newest is None:
            self.figures, self._none = {}, True
            self.notice = (
                f'reward = "classifier", and there is none for {self._robot_id}:{self._task_id}: '
                "`takeover reward train` makes one; until then keys alone end episodes with success"
            )
            return False
        if self._none or time.monotonic() >= self._news_until_s:
            self.notice, self._none, self._news_until_s = "", False, float("inf")
        self._finish_scoring(newest, goes_on)
        if not self._retrain_after or not self._where.catalog_path.exists():
            self._show(newest, 0)
            return False
        self._catalog = catalog = self._catalog or Catalog.open(self._where)
        changes = catalog.change_counter()
        if (changes, newest.version) == (self._changes, self._version):
            return False
        vetoes = self._count(catalog, rows_of(catalog, self._robot_id, self._task_id), goes_on)
        if vetoes is None:
            return False
        new = max(0, vetoes - newest.data.get("vetoes", newest.data.get("vetoed_episodes", 0)))
        self._show(newest, new)
        made = False
        if new >= self._retrain_after and (new != self._refused[0] or time.monotonic() >= self._refused[1] + RETRY_S):
            trained = self._train(newest, new, goes_on)
            if trained is None:
                return False
            made = trained
        self._changes, self._version = changes, newest.version
        return made

    def close(self) -> None:
        """Let the catalog go; the next look opens it again."""
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None

    def _count(self, catalog: Catalog, rows: list[EpisodeRow], goes_on: Callable[[], bool]) -> int | None:
        """Vetoes in all episodes that count; None when stopped. Every file is read once."""
        given = outcome_events(catalog, [row.id for row in rows])
        total = 0
        for row in rows:
            seen = self._seen.get(row.id)
            if seen is None or seen.file_sha256 != row.sha256:
                if not goes_on():
                    return None
                try:
                    seen = _read(self._where.path / row.path, row.sha256)
                except (DamagedFile, FileNotFoundError):
                    continue  # training says which
                self._seen[row.id] = seen
            total += count_vetoes(judge(seen.end, given.get(row.id, [])), seen.marks)
        return total

    def _train(self, before: RewardManifest, new: int, goes_on: Callable[[], bool]) -> bool | None:
        """Whether there is a next version; None when stopped."""

        def progress(done: int, total: int) -> bool:
            self.figures["training"] = done / max(1, total)
            return goes_on()

        _note_pending(self._where.path, before.version)
        try:
            made, _ = train_reward(self._where, request_like(self._where, self._robot_id, self._task_id), progress, refuse_worse=True)
        except RewardCancelled:
            _forget_pending(self._where.path)
            return None
        except RewardError as error:
            _forget_pending(self._where.path)
            self._refused, self._news_until_s = (new, time.monotonic()), float("inf")
            why = "is worse" if isinstance(error, WorseReward) else "cannot be trained"
            self.notice = f"learned reward: version {before.version} stays after {new} vetoes, the next {why}: {error}"
            return False
        except OSError:
            _forget_pending(self._where.path)
            raise
        finally:
            self.figures.pop("training", None)
        self._show(made, 0)
        self._finish_scoring(made, goes_on)
        return True

    def _finish_scoring(self, newest: RewardManifest, goes_on: Callable[[], bool]) -> None:
        """Score replay by a version that was trained here, also one whose scoring a stop or a crash cut short."""
        after = _pending(self._where.path)
        if after is None or newest.version <= after:
            return
        try:
            found, problems = rescore(self._where, newest.version, lambda done, total: goes_on())
        except RewardCancelled:
            return
        _forget_pending(self._where.path)
        self.notice = _said(newest, sum(row.changed for row in found), problems)
        self._news_until_s = time.monotonic() + NEWS_S

    def _show(self, manifest: RewardManifest, vetoes: int) -> None:
        self.figures = {
            "version": float(manifest.version),
            "threshold": manifest.threshold,
            "precision": manifest.metrics["precision"],
            "recall": manifest.metrics["recall"],
            "vetoes": float(vetoes),
            "wanted": float(self._retrain_after),
        }


def _read(path: Path, sha256: str) -> _Seen:
    with EpisodeReader(path) as episode:
        later = set(episode.column("seq")[1:].tolist())  # a mark at the first step is of a state that no step led to
        marks = sum(event.kind == "mark" and event.text == NEGATIVE_MARK and event.seq in later for event in episode.events)
        return _Seen(sha256, episode.end, marks)


def _said(made: RewardManifest, changed: int, problems: list[str]) -> str:
    if made.against is not None:
        quality = made.against.said()
    else:
        m = made.metrics
        right, seen, there = int(m["found"]), int(m["found"] + m["early"] + m["false"]), int(m["found"] + m["early"] + m["missed"])
        quality = f"of {seen} successes it sees in held-out episodes {right} are, of {there} there it finds {right}"
    more = f"; not read: {problems[0][:MOST_SHOWN]}" if problems else ""
    return f"learned reward: version {made.version} counts now, after vetoes; {quality}; {changed} recorded outcomes changed{more}"


def _note_pending(workspace: Path, version: int) -> None:
    """What is newer than ``version`` is to be scored by: written before the training, so that a crash after it loses nothing."""
    folder = rewards_folder(workspace)
    temporary = folder / f".{PENDING}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps({"after": version}) + "\n")
    temporary.replace(folder / PENDING)


def _forget_pending(workspace: Path) -> None:
    (rewards_folder(workspace) / PENDING).unlink(missing_ok=True)


def _pending(workspace: Path) -> int | None:
    path = rewards_folder(workspace) / PENDING
    try:
        return int(json.loads(path.read_text())["after"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RewardError(f"{path}: {error}; remove it, and run `takeover reward score`") from error
