"""Low-dimensional replay with the demonstration / online split of RLPD with corrections.

What goes where: human steps (not ramps) of policy episodes into both buffers, policy and ramp steps only into the online one,
demonstrations into the demonstration one. Held steps are skipped. Only success and failure end the future; timeouts and holds bootstrap.
What a row is made of is in `row_packing`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from takeover.data.episode_block import StepBlock
from takeover.data.episode_labels import JUDGED, EpisodeLabels
from takeover.data.schema import EpisodeEnd, EpisodeKind, EpisodeStart, Outcome, RobotSpec, Source, Step
from takeover.policies.correction_use import CorrectionUse
from takeover.policies.frames import Frames
from takeover.policies.labelled_rows import LabelledRows
from takeover.policies.quarantine import wrong_start
from takeover.policies.rebuild import Rebuild
from takeover.policies.row_packing import RowPacking
from takeover.policies.step_authority import is_held, is_human
from takeover.policies.takeover_marks import TakeoverMarks
from takeover.policies.transition_buffer import NO_CORRECTION, Columns, TransitionBuffer

HELP_STEPS = 1000  # that `CorrectionReplay.help_share` looks back on
LOOK_EVERY = 64  # episodes, at least, between two looks at which of them have rows left


class CorrectionReplay:
    """Demonstration and online buffers, filled from committed steps."""

    extra_columns = 0  # what a subclass adds to the end of a row

    def __init__(
        self,
        spec: RobotSpec,
        *,
        capacity: int = 200_000,
        gripper_penalty: float = 0.0,
        marks: TakeoverMarks | None = None,
        task_reward: bool = True,
        both_buffers: bool = True,
        frames: Frames | None = None,
    ) -> None:
        """``marks``: options on the steps before takeovers; ``task_reward`` off: the task's reward counts as 0, ends stay ends;
        ``both_buffers`` off: human steps go into the demonstration buffer alone; ``frames``: of the rows."""
        self.spec = spec
        self._marks = marks or TakeoverMarks()
        self._both_buffers = both_buffers
        self._packing = RowPacking(spec, gripper_penalty, task_reward, frames)
        self.columns = Columns.of(spec.observation.size, spec.action.size, self.extra_columns)
        self.demonstrations = TransitionBuffer(capacity, self.columns.width)
        self.online = TransitionBuffer(capacity, self.columns.width)
        self.train_steps = 0  # non-held steps of policy episodes ever ingested
        self.human_steps = 0  # of those, driven by a person
        self.help_share = 0.0  # of the newest `HELP_STEPS` or so, a running average
        self._labelled = LabelledRows(self.demonstrations, self.online, self.columns, success_reward=1.0 if task_reward else 0.0)
        self._complete: set[int] = set()  # demonstrations
        self._keys: dict[str, int] = {}  # of episodes with rows, and of some whose rows are gone
        self._next_key = 0
        self._look_at = LOOK_EVERY  # so many keys, and those without rows are forgotten
        self._pending_demonstration: list[tuple[torch.Tensor, int]] = []
        self._corrections = CorrectionUse()
        self._episode = ""
        self._kind = EpisodeKind.POLICY

    def begin_episode(self, start: EpisodeStart) -> None:
        """Raises `ValueError` when the robot's observation or action space is another one."""
        if problem := wrong_start(start, self.spec):
            raise ValueError(f"episode {start.episode_id} has another observation or action space than this learner's: {problem}")
        self._episode = start.episode_id
        self._kind = start.kind
        if start.episode_id not in self._keys:
            self._keys[start.episode_id] = self._next_key
            self._next_key += 1
        self._labelled.begin(self._keys[start.episode_id], start.kind)
        if self._labelled.rebuild is not None:
            self._labelled.rebuild.begin(self._keys[start.episode_id])
        self._pending_demonstration = []
        self._packing.begin_episode()
        self._marks.begin_episode()

    def trains(self) -> bool:
        """Whether the running episode is of a kind that is trained on."""
        return self._kind in (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY)

    def add(self, step: Step) -> bool:
        """One committed step of the running episode; False when it is of no use to training (held, evaluation)."""
        self._packing.saw(step)
        if not self.trains() or is_held(step):
            return False
        if step.episode_id != self._episode:
            raise ValueError(f"step {step.seq} belongs to episode {step.episode_id}; {self._episode or 'none'} is running")
        row = self._row(step)
        key = self._keys[step.episode_id]
        if self._kind == EpisodeKind.DEMONSTRATION:
            if is_human(step):
                self._pending_demonstration.append((row, step.episode_step))
            else:
                self.online.add(row, key, step.episode_step)
            return True
        self.train_steps += 1
        self.help_share += (float(is_human(step)) - self.help_share) / HELP_STEPS
        if (punished := self._marks.saw(key, step, Source.HUMAN in step.source, self.online, self.columns.reward)) >= 0:
            self._labelled.charge(key, punished, self._marks.takeover_reward)
        correction = NO_CORRECTION
        if is_human(step):
            self.human_steps += 1
            correction = self._corrections.number_of(step.episode_id, step.intervention_id)
            self.demonstrations.add(row, key, step.episode_step, correction)
        if self._both_buffers or not is_human(step):
            self.online.add(row, key, step.episode_step, correction)
        return True

    def end_episode(self, end: EpisodeEnd) -> None:
        """A demonstration counts once it is complete; a late or operator's outcome is written into the stored rows."""
        key = self._keys.get(end.episode_id, -1)
        given = end.outcome_source in JUDGED
        labels = EpisodeLabels(
            episode_id=end.episode_id, outcome=end.outcome, event_step=end.event_step, relabelled=given, excluded=end.discarded
        )
        self._labelled.ended(key, labels)
        if self._kind == EpisodeKind.DEMONSTRATION:
            if end.discarded or end.outcome == Outcome.ABORTED:
                self._keep_out_pending(key)
                self._labelled.apply(key, labels)
            else:
                self._complete.add(key)
                self._labelled.note_driven(key, {step for _, step in self._pending_demonstration})
                # experience alone when it failed: nothing to imitate
                buffer = self.online if end.outcome == Outcome.FAILURE else self.demonstrations
                for row, step in self._pending_demonstration:
                    buffer.add(row, key, step)
            self._pending_demonstration = []
        if given and end.outcome in (Outcome.SUCCESS, Outcome.FAILURE):
            self._labelled.apply(key, labels)
        self._episode = ""
        self._forget_gone_episodes()

    def _keep_out_pending(self, key: int) -> None:
        """A person's steps of a demonstration that does not count, for as long as labels say so."""
        self._labelled.note_driven(key, {step for _, step in self._pending_demonstration})
        for row, step in self._pending_demonstration:
            self._labelled.keep_out(key, step, row)
        self._pending_demonstration = []

    def _note_complete(self, key: int) -> None:
        """A demonstration that was cut off or thrown away is complete once somebody has given it an outcome."""
        if self._labelled.given_an_outcome(key):
            self._complete.add(key)

    def _forget_gone_episodes(self) -> None:
        """Now and then let go of what is known of episodes whose last row has left: a learner runs for days."""
        if len(self._keys) >= self._look_at and self._labelled.rebuild is None:
            left = self._labelled.forget_gone()
            self._keys = {name: key for name, key in self._keys.items() if key in left}
            self._forget_gone_corrections()
            self._look_at = len(self._keys) + max(LOOK_EVERY, len(self._keys) // 4)

    def holds(self, episode_id: str) -> bool:
        """Whether rows of the episode are here, in use or kept out by labels. For some time also when they have left."""
        return episode_id in self._keys

    @property
    def demonstration_episodes(self) -> int:
        """Complete ones that count: those that failed are experience alone."""
        return sum(not (self._labelled.excluded(key) or self._labelled.failed(key)) for key in self._complete)

    @property
    def failed_demonstrations(self) -> int:
        """Complete ones that do not count since they failed."""
        return sum(self._labelled.failed(key) and not self._labelled.excluded(key) for key in self._complete)

    def apply_labels(self, labels: EpisodeLabels) -> bool:
        """Make the episode's rows what its labels say now; False when none is here."""
        key = self._keys.get(labels.episode_id)
        if key is None:
            return False
        self._labelled.apply(key, labels)
        self._note_complete(key)
        self._forget_gone_corrections()
        return True

    def exclude(self, episode_id: str) -> int:
        """Drop an episode's rows from both buffers at once; returns how many. A demonstration may still run: it was cut off."""
        if episode_id not in self._keys:
            return 0
        if episode_id == self._episode and self._pending_demonstration:
            self._keep_out_pending(self._keys[episode_id])
        dropped = self._labelled.exclude(self._keys[episode_id], episode_id)
        self._forget_gone_corrections()
        return dropped

    def relabel(self, episode_id: str, outcome: Outcome, event_step: int) -> None:
        """Success: reward 1 and the end at ``event_step``; failure: reward 0 and the end; steps after it are dropped. Unknown: no reward
        and no end, the steps count. Gripper cost and takeover reward stay."""
        if outcome != Outcome.ABORTED and episode_id in self._keys:
            self._labelled.relabel(self._keys[episode_id], episode_id, outcome, event_step)
            self._note_complete(self._keys[episode_id])
            self._forget_gone_corrections()

    def _forget_gone_corrections(self) -> None:
        """A correction whose rows are gone is not waited for: it would keep the newest row in every batch."""
        if self._corrections and self._labelled.rebuild is None:
            buffers = (self.demonstrations, self.online)
            self._corrections.keep({int(c) for buffer in buffers for c in buffer.correction[: buffer.size].unique()})

    def sample(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, int]:
        """(count, width) rows, the first ``n`` of them from the demonstration buffer, and ``n``.

        Half from each; all from one while the other is empty. While there is a correction of which no batch has held a step, the newest
        human step is in, so that it is in a batch one update after it was committed. Raises `ValueError` when both are empty.
        """
        if self.demonstrations.size == 0 and self.online.size == 0:
            raise ValueError("nothing to sample: no demonstration and no online step was ingested")
        n = 0 if self.demonstrations.size == 0 else count if self.online.size == 0 else count // 2
        parts = []
        if n:
            chosen = self.demonstrations.indices(n, generator, newest=bool(self._corrections))
            self._mark_used(self.demonstrations, chosen)
            parts.append(self.demonstrations.rows.index_select(0, chosen))
        if count > n:
            chosen = self._marks.thin(self.online, self.online.indices(count - n, generator), generator)
            self._mark_used(self.online, chosen)
            parts.append(self.online.rows.index_select(0, chosen))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)), n

    def corrections_used(self) -> list[tuple[str, int]]:
        """(episode id, intervention id) of corrections that were first in a batch since the last call."""
        return self._corrections.take_used()

    def unused_corrections(self) -> list[list[str | int]]:
        """For a checkpoint: which corrections no batch has held yet."""
        return self._corrections.state()

    def restore_unused_corrections(self, unused: Sequence[int | Sequence[str | int]]) -> None:
        """After re-ingesting what a checkpoint had seen."""
        self._corrections.restore(unused)

    # --- for a checkpoint: where the rows lie ---

    def layout(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """(JSON-able values, tensors) of which `lay_out` makes this again, with the steps of the episodes ``again`` ingested once more."""
        tensors = {"replay.demonstrations": self.demonstrations.places(), "replay.online": self.online.places()}
        tensors["replay.out"] = self._labelled.places_out()
        held = self._labelled.demonstrations() | set(tensors["replay.out"][:, 1].tolist())
        held.update(*(tensors[f"replay.{name}"][:, 0].tolist() for name in ("demonstrations", "online")))
        values = {
            "keys": dict(self._keys),
            "next_key": self._next_key,
            "look_at": self._look_at,
            "complete": sorted(self._complete),
            "positions": [self.demonstrations.position(), self.online.position()],
            "marked": self._marks.marked > 0,
            "corrections": self._corrections.numbering(),
        }
        return {"again": [name for name, key in self._keys.items() if key in held or name == self._episode], "replay": values}, tensors

    def lay_out(self, values: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Before the steps of those episodes, in their order; `laid_out` after them. Labels wait until then."""
        self._keys, self._next_key = dict(values["keys"]), values["next_key"]
        rings = (self.demonstrations, self.online)
        for ring, name, position in zip(rings, ("demonstrations", "online"), values["positions"], strict=True):
            ring.lay_out(tensors[f"replay.{name}"], position)
        self._labelled.rebuild = Rebuild(*rings, tensors["replay.out"])
        self.demonstrations, self.online = self._labelled.rebuild.scratch

    @property
    def takes_blocks(self) -> bool:
        """Whether `add_block` can be called: between `lay_out` and `laid_out`, where a row is a function of its step alone."""
        plain = not self._packing.relative and not self._marks.active and self.extra_columns == 0
        return plain and self._labelled.rebuild is not None

    def add_block(self, block: StepBlock) -> None:
        """As `add` for all steps of the running policy episode."""
        rebuild = self._labelled.rebuild
        if rebuild is None or block.episode_id != self._episode:
            raise ValueError(f"a block of episode {block.episode_id}; {self._episode or 'none'} is running")
        rows, costs = self._packing.rows(block)
        for i in np.flatnonzero(costs):
            self._labelled.charge(self._keys[block.episode_id], int(block.steps[i]), -float(costs[i]))
        rebuild.fill(block.steps, rows)

    def laid_out(self, values: Mapping[str, Any], unused: Sequence[Sequence[Any]]) -> bool:
        """Everything is in its place; False when `lay_out` was not called. ``unused``: as `unused_corrections` was.

        Raises `Incomplete` when a step is missing."""
        rebuild = self._labelled.rebuild
        if rebuild is None:
            return False
        rebuild.finish()
        self._keys, self._complete = dict(values["keys"]), set(values["complete"])  # whatever else was ingested again
        self._next_key, self._look_at = values["next_key"], values["look_at"]
        self.demonstrations, self.online = rebuild.rings
        self._marks.restore(values["marked"])
        self._corrections.go_on(values["corrections"], unused)
        if self._labelled.rebuilt(set(self._keys.values())):
            self._forget_gone_corrections()
        for key in rebuild.labelled:
            self._note_complete(key)
        return True

    def _mark_used(self, buffer: TransitionBuffer, chosen: torch.Tensor) -> None:
        if self._corrections:
            self._corrections.seen(buffer.correction[chosen].tolist())

    def _row(self, step: Step) -> torch.Tensor:
        row, cost = self._packing.row(step)
        if cost:
            self._labelled.charge(self._keys[step.episode_id], step.episode_step, -cost)
        return row
