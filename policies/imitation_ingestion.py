"""What an imitation learner takes in: committed steps and labels, as the episodes that its table shows."""

from collections import deque
from collections.abc import Sequence

import msgspec
import numpy as np

from takeover.data.episode_block import StepBlock
from takeover.data.episode_labels import JUDGED, EpisodeLabels
from takeover.data.schema import EpisodeEnd, EpisodeKind, EpisodeStart, Outcome, RobotSpec, Step
from takeover.policies.correction_use import CorrectionUse
from takeover.policies.imitation_episodes import Stored, class_of, classes_in, demonstrated, driven_steps, histories
from takeover.policies.imitation_parameters import FINISHED, ImitationParameters
from takeover.policies.imitation_table import Table
from takeover.policies.inference import split_action
from takeover.policies.memory import Remembered, to_evict
from takeover.policies.quarantine import wrong_start
from takeover.policies.rebuild import Incomplete
from takeover.policies.step_authority import human_in, is_held, is_human


class ImitationIngestion:
    """The methods of a `Learner` that ingest and that say what was ingested; `_steps` is what a batch is drawn from."""

    def __init__(self, spec: RobotSpec, parameters: ImitationParameters) -> None:
        self.spec = spec
        self.parameters = parameters
        self.train_steps = 0
        self.human_steps = 0
        self._arm, self._gripper = split_action(spec)
        self._episodes: dict[str, Stored] = {}
        self._running: EpisodeStart | None = None
        self._recent: deque[np.ndarray] = deque(maxlen=parameters.history)
        self._run = -1
        self._table = self._new_table()
        self._touched: dict[str, None] = {}  # episodes that the table does not show as they are, in the order in which they came
        self._corrections = CorrectionUse()
        self._counted: frozenset[str] = frozenset()  # policy episodes that are not here, but were counted before the learner started

    def begin_episode(self, start: EpisodeStart) -> None:
        if problem := wrong_start(start, self.spec):
            raise ValueError(f"episode {start.episode_id} has another observation or action space than this learner's: {problem}")
        self._running = start
        self._recent.clear()
        self._run = -1
        if start.kind in (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY):
            self._episodes[start.episode_id] = Stored(start.kind)
            self._touched[start.episode_id] = None

    def ingest(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._add(step)

    def _add(self, step: Step) -> None:
        start = self._running
        if start is None or start.kind not in (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY) or is_held(step):
            return
        if step.episode_id != start.episode_id:
            raise ValueError(f"step {step.seq} belongs to episode {step.episode_id}; {start.episode_id} is running")
        observation = np.asarray(step.observation, np.float32)
        if step.run_id != self._run:
            self._recent.clear()
            self._run = step.run_id
        while len(self._recent) < self.parameters.history - 1:
            self._recent.append(observation)
        self._recent.append(observation)
        stored = self._episodes[step.episode_id]
        stored.observations.append(np.stack(self._recent))
        stored.actions.append(list(step.action))
        stored.classes.append(class_of(step))
        stored.runs.append(step.run_id)
        stored.steps.append(step.episode_step)
        stored.interventions.append(step.intervention_id)
        correction = -1
        if step.kind == EpisodeKind.POLICY and step.episode_id not in self._counted:
            self.train_steps += 1
            self.human_steps += is_human(step)
            if is_human(step):
                correction = self._corrections.number_of(step.episode_id, step.intervention_id)
        stored.corrections.append(correction)
        self._touched[step.episode_id] = None

    @property
    def takes_blocks(self) -> bool:
        """Always: what is remembered of a policy episode is a function of its steps alone."""
        return True

    def ingest_block(self, block: StepBlock) -> None:
        """As `ingest` for all steps of the running policy episode."""
        if self._running is None or block.episode_id != self._running.episode_id:
            raise ValueError(f"a block of episode {block.episode_id}; {self._running.episode_id if self._running else 'none'} is running")
        stored, human = self._episodes[block.episode_id], human_in(block).tolist()
        interventions = block.interventions.tolist()
        stored.observations += list(histories(block.observations.astype(np.float32), block.runs, self.parameters.history))
        stored.actions += block.actions.tolist()
        stored.classes += classes_in(block)
        stored.runs += block.runs.tolist()
        stored.steps += block.steps.tolist()
        stored.interventions += interventions
        stored.corrections += [
            self._corrections.number_of(block.episode_id, intervention) if driven else -1
            for intervention, driven in zip(interventions, human, strict=True)
        ]
        self.train_steps += len(human)
        self.human_steps += sum(human)
        self._touched[block.episode_id] = None

    def end_episode(self, end: EpisodeEnd) -> None:
        start, self._running = self._running, None
        if start is not None and start.kind == EpisodeKind.POLICY:
            self._make_room()
        stored = self._episodes.get(end.episode_id)
        if start is None or stored is None:
            return
        stored.ended = end.outcome
        self._touched[end.episode_id] = None
        judged = end.outcome_source in JUDGED and end.outcome in (Outcome.SUCCESS, Outcome.FAILURE)
        labels = EpisodeLabels(episode_id=end.episode_id, outcome=end.outcome, event_step=end.event_step, relabelled=judged)
        if start.kind == EpisodeKind.DEMONSTRATION:
            dropped = end.discarded or end.outcome == Outcome.ABORTED
            stored.complete = not dropped
            labels = msgspec.structs.replace(labels, excluded=dropped)
        elif not judged:
            return
        self.apply_labels(labels)

    def _make_room(self) -> None:
        """Between episodes, and from what was recorded alone: labels may change, what a resumed learner forgets may not."""
        if not self.parameters.memory_steps:
            return
        kept = {name: stored for name, stored in self._episodes.items() if stored.kind == EpisodeKind.POLICY and stored.actions}
        known = [Remembered(name, len(s.actions), driven_steps(s)) for name, s in kept.items()]
        for name in to_evict(known, self.parameters.memory_steps, self.parameters.memory):
            self._corrections.forget(kept[name].corrections)
            del self._episodes[name]
            self._touched.pop(name, None)
            if name in self._table:
                self._touched[name] = None

    @property
    def demonstration_episodes(self) -> int:
        return demonstrated(self._episodes.values())[0]

    @property
    def failed_demonstrations(self) -> int:
        return demonstrated(self._episodes.values())[1]

    def apply_labels(self, labels: EpisodeLabels) -> bool:
        """What a batch draws from is what the labels say, from the next one on; False when none of its steps is here."""
        stored = self._episodes.get(labels.episode_id)
        if stored is None:
            return False
        stored.labels = labels
        if stored.kind == EpisodeKind.DEMONSTRATION and labels.relabelled and labels.outcome in (Outcome.SUCCESS, Outcome.FAILURE):
            stored.complete = True  # also one that was cut off or thrown away: somebody has given it an outcome
        self._touched[labels.episode_id] = None
        return True

    def holds(self, episode_id: str) -> bool:
        return episode_id in self._episodes

    def exclude(self, episode_id: str) -> None:
        stored = self._episodes.get(episode_id)
        if stored is not None:
            known = stored.labels or EpisodeLabels(episode_id=episode_id)
            self.apply_labels(msgspec.structs.replace(known, excluded=True))

    def relabel(self, episode_id: str, outcome: Outcome, event_step: int) -> None:
        """Imitation learns from what people did, whatever came of it; what came after the event is left out, and failed demonstrations."""
        stored = self._episodes.get(episode_id)
        if stored is not None and outcome != Outcome.ABORTED:  # an end that is taken back leaves nothing out
            known = stored.labels or EpisodeLabels(episode_id=episode_id)
            self.apply_labels(msgspec.structs.replace(known, outcome=outcome, event_step=event_step, relabelled=True))

    def corrections_used(self) -> list[tuple[str, int]]:
        return self._corrections.take_used()

    def _new_table(self) -> Table:
        """An empty one."""
        p = self.parameters
        return Table(round(p.pre_intervention_s * self.spec.control_hz), self._gripper, p.policy_examples == FINISHED)

    def _steps(self) -> Table:
        """Everything a batch may hold, after all steps and labels there are."""
        if self._touched:
            self._table.refresh(self._episodes, self._touched)
            self._touched = {}
        return self._table

    def _counted_ever(self) -> list[str]:
        """Policy episodes whose steps are in `train_steps`, here or not. With a bounded memory they are too many to be named."""
        here = [] if self.parameters.memory_steps else [name for name, s in self._episodes.items() if s.kind == EpisodeKind.POLICY]
        return [*here, *(self._counted - self._episodes.keys())]

    def _keep_only(self, names: Sequence[str]) -> None:
        """Of what was ingested again these episodes alone, in this order. Raises `Incomplete` where one is missing."""
        if lacking := set(names) - self._episodes.keys():
            raise Incomplete(f"{len(lacking)} episodes that were learned from are not in the store: {min(lacking)}")
        self._episodes = {name: self._episodes[name] for name in names}
        self._table, self._touched = self._new_table(), dict.fromkeys(self._episodes)
