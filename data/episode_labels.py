"""The labels of an episode as one value: which steps count, what the outcome is, where corrections begin."""

import msgspec

from takeover.data.schema import Outcome, OutcomeSource

JUDGED = (OutcomeSource.LABEL, OutcomeSource.OPERATOR, OutcomeSource.CLASSIFIER)
"""Whose outcomes say where an episode ended: its event step is dated back, and what came after it is nobody's."""


class EpisodeLabels(msgspec.Struct, frozen=True, kw_only=True):
    """The present labels of one episode. Step numbers count the N driven steps; every range includes both ends.

    ``relabelled``: outcome and event step were given by a person, so rewards and the end follow them. ``left_out``: not trained on
    (excluded segments, what was trimmed off). ``not_imitated``: experience, but no example (corrections labelled bad, and those steps of a
    correction that come before its labelled onset). ``onsets``: {intervention id: step at which the correction's reason began}.
    """

    episode_id: str
    outcome: Outcome = Outcome.UNKNOWN
    event_step: int = -1
    relabelled: bool = False
    excluded: bool = False
    left_out: tuple[tuple[int, int], ...] = ()
    not_imitated: tuple[tuple[int, int], ...] = ()
    onsets: dict[int, int] = msgspec.field(default_factory=dict)

    @property
    def thrown_away(self) -> bool:
        """Whether nothing of it is trained on: excluded, or set to aborted after it had ended, as an episode that is made again."""
        return self.excluded or (self.relabelled and self.outcome is Outcome.ABORTED)

    def counts(self, step: int) -> bool:
        """Whether a step is trained on at all."""
        last = self.last_step
        return not (self.thrown_away or (last is not None and step > last) or within(step, self.left_out))

    @property
    def last_step(self) -> int | None:
        """Where a person's outcome says that the episode ended; None: it is nobody's, or says no step."""
        ended = self.relabelled and self.outcome in (Outcome.SUCCESS, Outcome.FAILURE) and self.event_step >= 0
        return self.event_step if ended else None

    @property
    def changes_nothing(self) -> bool:
        """Whether every step counts as it was recorded."""
        return not (self.relabelled or self.excluded or self.left_out or self.not_imitated)

    def imitated(self, step: int) -> bool:
        """Whether a person's step is an example to follow."""
        return self.counts(step) and not within(step, self.not_imitated)


def within(step: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= step <= last for first, last in ranges)
