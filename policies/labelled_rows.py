"""Labels on stored transitions: what they leave out leaves the buffers at once, and comes back when the label is taken back."""

from collections.abc import Container, Iterator

import msgspec
import numpy as np
import torch

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import EpisodeKind, Outcome
from takeover.policies.rebuild import DEMONSTRATIONS, ONLINE, Kept, Rebuild
from takeover.policies.transition_buffer import Columns, TransitionBuffer


class LabelledRows:
    """Holds the rows that labels took out, and what was recorded where labels changed it. Episodes go by the buffers' keys."""

    def __init__(self, demonstrations: TransitionBuffer, online: TransitionBuffer, columns: Columns, success_reward: float = 1.0) -> None:
        self._success_reward = success_reward
        self._buffers = (demonstrations, online)
        self._columns = columns
        self._labels: dict[int, EpisodeLabels] = {}
        self._kinds: dict[int, EpisodeKind] = {}
        self._out: tuple[dict[int, Kept], dict[int, Kept]] = ({}, {})
        self._recorded: dict[int, dict[int, tuple[float, float]]] = {}
        self._charged: dict[int, dict[int, float]] = {}  # of a row's reward, what is not the task's: it stays whatever labels say
        self._driven: dict[int, set[int]] = {}  # steps that a person drove in demonstrations
        self.rebuild: Rebuild | None = None  # while what a checkpoint had seen is ingested again

    def begin(self, key: int, kind: EpisodeKind) -> None:
        """An episode that is recorded now, without labels."""
        self._kinds[key] = kind

    def ended(self, key: int, labels: EpisodeLabels) -> None:
        """How it was recorded to end; changes no row."""
        self._labels[key] = labels

    def of(self, key: int) -> EpisodeLabels | None:
        return self._labels.get(key)

    def keep_out(self, key: int, step: int, row: torch.Tensor) -> None:
        """A row of a demonstration that nobody may imitate as long as it counts as discarded."""
        if self.rebuild is not None:
            self.rebuild.keep(step, row)
            return
        self._out[DEMONSTRATIONS].setdefault(key, {})[step] = (row, -1)

    def rows_out(self) -> Iterator[torch.Tensor]:
        """Every row (width,) that labels keep out of the buffers now."""
        for place in self._out:
            for kept in place.values():
                yield from (row for row, _ in kept.values())
        if self.rebuild is not None:
            yield from self.rebuild.rows_out()

    def oldest(self) -> int:
        """Key of the oldest episode with rows, in the buffers or kept out, a demonstration only where nothing else is left; -1: none.

        Of a demonstration only what is in the online buffer counts: what a person showed is never the oldest."""
        shown, there = self.demonstrations(), set[int]()
        for buffer, out in zip(self._buffers, self._out, strict=True):
            there.update(np.unique(buffer.episode[: buffer.size]).tolist(), (key for key, kept in out.items() if kept))
        online = self._buffers[ONLINE]
        there_online = set(np.unique(online.episode[: online.size]).tolist()) | {key for key, kept in self._out[ONLINE].items() if kept}
        return min(there - shown, default=min(there_online, default=-1))

    def give_up(self, key: int) -> None:
        """Let every row of an episode go, of a demonstration those in the online buffer: there is no room for them."""
        places = (ONLINE,) if key in self.demonstrations() else (DEMONSTRATIONS, ONLINE)
        for place in places:
            self._buffers[place].drop(self._buffers[place].of_episode(key))
            self._out[place].pop(key, None)

    def charge(self, key: int, step: int, reward: float) -> None:
        """A part of the step's recorded reward, or one that is added to it now, which no label changes (gripper cost, takeover reward)."""
        charged = self._charged.setdefault(key, {})
        charged[step] = charged.get(step, 0.0) + reward

    def note_driven(self, key: int, steps: set[int]) -> None:
        """Which steps of a demonstration a person drove, ramps left out."""
        self._driven[key] = steps

    def apply(self, key: int, labels: EpisodeLabels) -> int:
        """Make the buffers what these labels say; returns how many rows left them."""
        self._labels[key] = labels
        if self.rebuild is not None:
            self.rebuild.labelled[key] = None
            return 0
        before = sum(buffer.size for buffer in self._buffers)
        demonstration = self._kinds.get(key) == EpisodeKind.DEMONSTRATION
        aborted = demonstration and labels.outcome == Outcome.ABORTED
        if demonstration:
            # a failed demonstration is experience, but nothing to imitate
            failed = labels.outcome == Outcome.FAILURE
            self._move(key, *((DEMONSTRATIONS, ONLINE) if failed else (ONLINE, DEMONSTRATIONS)))
        for place in (DEMONSTRATIONS, ONLINE):
            buffer = self._buffers[place]
            found = buffer.of_episode(key)
            steps = {int(step) for step in buffer.step[found]} | set(self._out[place].get(key, {}))
            wanted = labels.imitated if place == DEMONSTRATIONS else labels.counts
            self._settle(place, key, {step for step in steps if not aborted and wanted(step)})
            self._reward(buffer, key, labels)
        return before - sum(buffer.size for buffer in self._buffers)

    def forget_gone(self) -> Container[int]:
        """Let go of everything known of episodes that have no row left, in the buffers or kept out; returns the keys of the others.

        Demonstrations stay, they are counted. Rows that labels keep out go once the ring has let go of younger ones: it would not have them
        any more."""
        shown = self.demonstrations()
        left = set(shown)
        for buffer, out in zip(self._buffers, self._out, strict=True):
            for key in [key for key, kept in out.items() if not kept or (key < buffer.passed and key not in shown)]:
                del out[key]
            left.update(np.unique(buffer.episode[: buffer.size]).tolist(), out)
        self._let_go(left)
        return left

    def _let_go(self, left: set[int]) -> None:
        for known in (self._labels, self._kinds, self._recorded, self._charged, self._driven):
            for key in known.keys() - left:
                del known[key]

    def demonstrations(self) -> set[int]:
        """Keys of those that are known, which is all of them."""
        return {key for key, kind in self._kinds.items() if kind == EpisodeKind.DEMONSTRATION}

    def places_out(self) -> torch.Tensor:
        """(K, 4) int64: buffer, episode, step and correction of every row that labels keep out. For `Rebuild`."""
        found = [
            (place, key, step, correction)
            for place, out in enumerate(self._out)
            for key, kept in out.items()
            for step, (_, correction) in kept.items()
        ]
        return torch.tensor(sorted(found), dtype=torch.int64).reshape(-1, 4)

    def rebuilt(self, keys: set[int]) -> bool:
        """The rows of the episodes ``keys`` are in their places: labels apply to them now. Whether that moves any."""
        rebuild, self.rebuild = self.rebuild, None
        if rebuild is None:
            return False
        self._out = rebuild.out
        self._let_go(keys)
        moved = [self.apply(key, self._labels[key]) for key in rebuild.labelled if key in keys]
        return any(moved)

    def exclude(self, key: int, episode_id: str) -> int:
        return self.apply(key, msgspec.structs.replace(self._labels.get(key) or EpisodeLabels(episode_id=episode_id), excluded=True))

    def relabel(self, key: int, episode_id: str, outcome: Outcome, event_step: int) -> None:
        known = self._labels.get(key) or EpisodeLabels(episode_id=episode_id)
        self.apply(key, msgspec.structs.replace(known, outcome=outcome, event_step=event_step, relabelled=True))

    def excluded(self, key: int) -> bool:
        labels = self._labels.get(key)
        return labels is not None and labels.thrown_away

    def given_an_outcome(self, key: int) -> bool:
        """Whether it is a demonstration that somebody has called a success or a failure."""
        labels = self._labels.get(key)
        given = labels is not None and labels.relabelled and labels.outcome in (Outcome.SUCCESS, Outcome.FAILURE)
        return given and self._kinds.get(key) == EpisodeKind.DEMONSTRATION

    def failed(self, key: int) -> bool:
        """Whether it ended in a failure, so that a demonstration is none to follow."""
        labels = self._labels.get(key)
        return labels is not None and labels.outcome in (Outcome.FAILURE, Outcome.ABORTED)

    def _settle(self, place: int, key: int, wanted: set[int]) -> None:
        """Rows of ``wanted`` steps are in the buffer, the others out of it."""
        buffer, out = self._buffers[place], self._out[place].setdefault(key, {})
        found = buffer.of_episode(key)
        self._take(buffer, found[[int(step) not in wanted for step in buffer.step[found]]], out)
        back = sorted(wanted & out.keys())
        if back:
            kept = [out.pop(step) for step in back]
            buffer.restore(torch.stack([row for row, _ in kept]), key, back, [correction for _, correction in kept])

    def _take(self, buffer: TransitionBuffer, leaving: np.ndarray, out: Kept) -> None:
        for i in leaving:
            out[int(buffer.step[i])] = (buffer.rows[i].clone(), int(buffer.correction[i]))
        buffer.drop(leaving)

    def _move(self, key: int, source: int, target: int) -> None:
        driven, buffer = self._driven.get(key, set()), self._buffers[source]
        found = buffer.of_episode(key)
        out = self._out[source].setdefault(key, {})
        self._take(buffer, found[[int(step) in driven for step in buffer.step[found]]], out)
        for step in sorted(driven & out.keys()):
            self._out[target].setdefault(key, {})[step] = out.pop(step)

    def _reward(self, buffer: TransitionBuffer, key: int, labels: EpisodeLabels) -> None:
        """Success: reward 1 and the end at the event; failure: reward 0 and the end; otherwise as recorded, or no end at all.

        What the step was charged is on top of 1 or 0, as it is of what was recorded."""
        columns, recorded, charged = self._columns, self._recorded.setdefault(key, {}), self._charged.get(key, {})
        judged = labels.relabelled and labels.outcome in (Outcome.SUCCESS, Outcome.FAILURE)
        for i in buffer.of_episode(key):
            step = int(buffer.step[i])
            reward, mask = recorded.setdefault(step, (float(buffer.rows[i, columns.reward]), float(buffer.rows[i, columns.mask])))
            if judged and step == labels.event_step:
                reward, mask = (self._success_reward if labels.outcome == Outcome.SUCCESS else 0.0) + charged.get(step, 0.0), 0.0
            elif labels.relabelled and not judged and mask == 0.0:
                reward, mask = charged.get(step, 0.0), 1.0
            buffer.rows[i, columns.reward], buffer.rows[i, columns.mask] = reward, mask
