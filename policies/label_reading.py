"""How labels reach a learner that runs: read since the last look, applied before the next batch, noted with the update that used them."""

import logging
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from takeover.data.catalog import Catalog
from takeover.data.catalog_errors import CATALOG_FAILURES, reason_of
from takeover.data.episode_labels import EpisodeLabels
from takeover.data.hdf5_image import DamagedFile
from takeover.data.outcome_labels import outcomes_given_by
from takeover.data.schema import EpisodeEnd, EpisodeKind, EpisodeStart, OutcomeChange, Step
from takeover.data.store import iter_episode_records
from takeover.data.training_labels import labelled_episodes, note_uses, note_version, training_events_after, training_labels
from takeover.policies.base import Learner
from takeover.policies.reward_settings import version_of

log = logging.getLogger("learner")


def says_more(labels: EpisodeLabels) -> bool:
    """Whether labels say anything besides an outcome."""
    return labels.excluded or bool(labels.left_out or labels.not_imitated or labels.onsets)


class LabelReading:
    """The labels of one task's episodes, as far as a learner has read them. ``name`` is how the catalog calls the learner."""

    def __init__(
        self, catalog: Catalog, name: str, task: str, amend: Callable[[EpisodeLabels], EpisodeLabels] = lambda labels: labels
    ) -> None:
        self._catalog = catalog
        self._name = name
        self._task = task
        self._amend = amend  # what is left out for other reasons stays out
        self._changes = -1
        self._newest = 0  # number of the newest event that was read
        self._known: dict[str, EpisodeLabels] = {}
        self._left_out: set[str] = set()  # excluded when the learner started, and not ingested since
        self._missing: set[str] = set()  # of those, what was taken back in since
        self._streamed: set[str] = set()  # episodes whose outcomes are given by the stream alone
        self._unused: list[tuple[str, str]] = []  # events of which no update has seen the effect yet
        self._published = True
        self.problem = ""  # why it is not in the catalog which labels were used; empty when it is
        self.reward_version = 0  # the newest classifier whose outcomes were applied while the learner runs

    def begin(self, streamed: Iterable[OutcomeChange] = ()) -> None:
        """Every label there is, for the episodes that are ingested from now on.

        ``streamed``: outcomes that count at their place in the stream. The labels that were made of them say nothing here, unless somebody
        else has given such an episode an outcome, too."""
        self._changes = self._catalog.change_counter()
        self._newest, _ = training_events_after(self._catalog, self._newest)
        self._known = training_labels(self._catalog, labelled_episodes(self._catalog, self._task))
        self._left_out = self._catalog.excluded_episode_ids()
        self._streamed = outcomes_given_by(self._catalog, {(change.episode_id, change.wall_ns) for change in streamed})
        recorded = training_labels(self._catalog, sorted(self._known.keys() & self._streamed), recorded_outcome=True)
        self._known = {name: labels for name, labels in (self._known | recorded).items() if name not in recorded or says_more(labels)}

    @property
    def relabelled(self) -> Container[str]:
        """Episodes whose labels say what their outcome is, whatever the stream says."""
        return self._known.keys() - self._streamed

    def state(self) -> dict[str, Any]:
        """For a checkpoint: how far labels were read, and which of them no update has seen yet."""
        return {"newest": self._newest, "unused": list(self._unused), "left_out": sorted(self._left_out)}

    def taken_back(self, state: Mapping[str, Any]) -> set[str]:
        """Episodes that were left out when the learner started that made ``state``, and count by now. After `begin`."""
        return set(state.get("left_out", ())) - self._left_out

    def restore(self, state: Mapping[str, Any], learner: Learner) -> None:
        """After `begin` and the ingestion of what a checkpoint had seen: labels given since are in the next update, and noted with it."""
        if state:
            self._left_out = {episode_id for episode_id in self._left_out if not learner.holds(episode_id)}
            _, events = training_events_after(self._catalog, state["newest"])
            self._unused = [(event, target) for event, target in state["unused"]]
            others = [event for event in events if not (event.field == "outcome" and event.episode_id in self._streamed)]
            self._unused += [(event.id, event.target) for event in others if learner.holds(event.episode_id)]

    def on_record(self, record: object, learner: Learner | None) -> None:
        """After the training has seen it: an episode that ends gets the labels it already has."""
        if isinstance(record, EpisodeEnd) and learner is not None and record.episode_id in self._known:
            learner.apply_labels(self._amend(self._known[record.episode_id]))

    def on_new_record(self, record: object, learner: Learner | None) -> None:
        """As `on_record`, of a record that no checkpoint had seen: a discarded episode that was taken in until its end was not left out."""
        self.on_record(record, learner)
        if isinstance(record, EpisodeEnd) and learner is not None and learner.holds(record.episode_id):
            self._left_out.discard(record.episode_id)

    def amend_all(self, episode_ids: Iterable[str]) -> None:
        """Have ``amend`` see the labels of episodes whose end `on_record` has not seen."""
        for episode_id in episode_ids:
            if episode_id in self._known:
                self._amend(self._known[episode_id])

    def reread(self, learner: Learner, episode_runs: bool) -> bool:
        """Apply what has changed; True when there are episodes to ingest again (`come_back`), which waits for a running one to end."""
        changes = self._catalog.change_counter()
        if changes != self._changes:
            self._changes = changes
            self._newest, events = training_events_after(self._catalog, self._newest)
            self.reward_version = max([self.reward_version, *(version_of(event.author) for event in events)])
            changed = training_labels(self._catalog, sorted({event.episode_id for event in events}))
            self._known |= changed
            mine: set[str] = set()
            for episode_id, labels in changed.items():
                if learner.apply_labels(self._amend(labels)):
                    mine.add(episode_id)
                elif not labels.excluded and episode_id in self._left_out:
                    self._missing.add(episode_id)
                    mine.add(episode_id)
            self._unused += [(event.id, event.target) for event in events if event.episode_id in mine]
        return bool(self._missing) and not episode_runs

    def come_back(
        self, workspace: Path, on_damaged: Callable[[str, DamagedFile], None] | None = None
    ) -> Iterator[tuple[EpisodeStart, list[Step], EpisodeEnd]]:
        """Episodes that were excluded when the learner started and count again; damaged ones as of `iter_episode_records`."""
        wanted, self._missing = self._missing, set()
        found = iter_episode_records(workspace, self._task, images=True, episode_ids=sorted(wanted), on_damaged=on_damaged)
        for start, steps, end in found:
            if start.kind in (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY) and start.episode_id in self._left_out:
                self._left_out.discard(start.episode_id)
                yield start, steps, end

    def on_update(self, updates: int) -> None:
        """After an update: it was the first with everything that was applied before it."""
        if not self._unused:
            return
        used = self._unused
        try:
            note_uses(self._catalog, self._name, used, updates, time.time_ns())
        except CATALOG_FAILURES as error:  # a full disk: noted with a later update, which uses them as well
            self.problem = f"labels are learned from ({len(used)}), but that cannot be noted: {reason_of(error)}"
            return
        self._unused, self.problem = [], ""
        self._published = False
        log.info("update %d is the first with %d labels", updates, len(used))

    def on_published(self, version: int) -> None:
        """After weights were published: the first with what was used."""
        if not self._published:
            note_version(self._catalog, self._name, version)
            self._published = True
