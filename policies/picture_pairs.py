"""Steps with the pictures after them: those that the very next control step saw, or the step's own at the end of an episode."""

from collections.abc import Iterator

import msgspec

from takeover.data.schema import Step
from takeover.policies.step_authority import is_held


class PicturePairs:
    """Holds each step back until its successor has shown what came of it.

    The next step of the episode is the successor, held or not: what it saw is what came of this one. A step that has neither a successor
    nor pictures of its own after it, as the last one before a crash, is left out.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._waiting: Step | None = None

    def put(self, step: Step) -> Iterator[Step]:
        """Steps that are complete now, each with its ``next_images``. Held steps are dropped."""
        before, self._waiting = self._waiting, None if is_held(step) else step
        yield from self._completed(before, step)

    def end(self) -> Iterator[Step]:
        """The last step of a run or an episode, if it is complete."""
        before, self._waiting = self._waiting, None
        yield from self._completed(before, None)

    def _completed(self, step: Step | None, following: Step | None) -> Iterator[Step]:
        if step is None:
            return
        if step.next_images:
            yield step
        elif following is not None and following.images and _follows(step, following):
            yield msgspec.structs.replace(step, next_images=following.images)
        else:
            self.left_out += 1


def _follows(step: Step, following: Step) -> bool:
    return step.episode_id == following.episode_id and following.seq == step.seq + 1
