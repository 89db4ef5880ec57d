"""What ``hil-serl`` takes in: committed steps and labels, into the replay and into what the shaped reward is fitted to."""

from collections.abc import Sequence

from takeover.data.episode_block import StepBlock
from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import EpisodeEnd, EpisodeStart, Outcome, Step
from takeover.policies.progress_reward import ProgressReward
from takeover.policies.replay import CorrectionReplay


class HilSerlIngestion:
    """The methods of a `Learner` that ingest and that say what was ingested. The class that learns makes the two parts."""

    replay: CorrectionReplay
    _progress: ProgressReward

    def begin_episode(self, start: EpisodeStart) -> None:
        self.replay.begin_episode(start)
        self._progress.begin_episode(start)

    def ingest(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.replay.add(step)
        self._progress.ingest(steps)

    @property
    def takes_blocks(self) -> bool:
        """Whether `ingest_block` will do for what is ingested again after `prepare`."""
        return self.replay.takes_blocks

    def ingest_block(self, block: StepBlock) -> None:
        """As `ingest` for all steps of the running policy episode."""
        self.replay.add_block(block)

    def end_episode(self, end: EpisodeEnd) -> None:
        self.replay.end_episode(end)
        self._progress.end_episode(end)

    def exclude(self, episode_id: str) -> None:
        self.replay.exclude(episode_id)
        self._progress.exclude(episode_id)

    def relabel(self, episode_id: str, outcome: Outcome, event_step: int) -> None:
        self.replay.relabel(episode_id, outcome, event_step)
        self._progress.relabel(episode_id, outcome, event_step)

    def apply_labels(self, labels: EpisodeLabels) -> bool:
        self._progress.apply_labels(labels)
        return self.replay.apply_labels(labels)

    def holds(self, episode_id: str) -> bool:
        return self.replay.holds(episode_id)

    @property
    def demonstration_episodes(self) -> int:
        return self.replay.demonstration_episodes

    @property
    def failed_demonstrations(self) -> int:
        return self.replay.failed_demonstrations

    @property
    def train_steps(self) -> int:
        return self.replay.train_steps

    @property
    def human_steps(self) -> int:
        return self.replay.human_steps

    def corrections_used(self) -> list[tuple[str, int]]:
        return self.replay.corrections_used()
