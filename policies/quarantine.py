"""Episodes that must not be learned from, and why: never trained on silently, never a reason to stop.

Left out are episodes with a number that is not finite, a reading that no robot has, or a list of the wrong length (from that step on, and
what was taken in of it), of a robot with other observations or actions than the learner's (`data.spaces`), and recorded without an outcome.
The last come back as soon as somebody gives them one. An outcome that was recorded and is taken back later (a veto) leaves nothing out: the
steps are experience that ends nowhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import EpisodeStart, Outcome, RobotSpec, Step
from takeover.data.spaces import differences, spaces_of
from takeover.policies.normaliser import SMALLEST_SPREAD

SHOWN = 3
LARGEST = 3e38  # beyond it a number is infinite in the 32 bits that are learned from
LARGEST_READING = 1e6
"""In the units of `normaliser.SMALLEST_SPREAD`: no robot goes, turns or presses so far. It is a fault, as a number that is none."""
DAMAGED = "its file is damaged"
NO_OUTCOME = "no outcome; give it one in Review"
_PLURAL = {"observation names": "observations are", "action names": "actions are"} | {
    what: f"{what} are" for what in ("action units", "observation units", "action groups")
}


class Quarantine:
    """Which episodes are left out: {episode id: reason}, oldest first."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self._unjudged: set[str] = set()

    def leave_out(self, episode_id: str, reason: str) -> None:
        """``reason`` is `NO_OUTCOME` for an episode that was recorded without one."""
        if reason == NO_OUTCOME:
            self._unjudged.add(episode_id)
        self.reasons.setdefault(episode_id, reason)

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"reasons": dict(self.reasons), "unjudged": sorted(self._unjudged)}

    @staticmethod
    def damaged(state: Mapping[str, Any]) -> list[str]:
        """Of what `state` gave, the episodes whose file was damaged."""
        return [name for name, reason in state["reasons"].items() if reason.startswith(DAMAGED)]

    def restore(self, state: Mapping[str, Any]) -> None:
        """Before episodes are ingested again, where not all of them are."""
        self.reasons, self._unjudged = dict(state["reasons"]), set(state["unjudged"])

    def lacks_outcome(self, episode_id: str) -> bool:
        """Whether an outcome would bring it back."""
        return self.reasons.get(episode_id) == NO_OUTCOME

    def unjudged(self, episode_id: str) -> bool:
        """Whether it was recorded without an outcome, so that ``unknown`` leaves it out."""
        return episode_id in self._unjudged

    def amend(self, labels: EpisodeLabels) -> EpisodeLabels:
        """What an episode's labels come to: recorded without an outcome and not given one, or with bad data, it stays out whatever else
        they say."""
        name = labels.episode_id
        if labels.outcome is Outcome.UNKNOWN and (self.unjudged(name) or not labels.relabelled):
            self.leave_out(name, NO_OUTCOME)
        elif self.lacks_outcome(name):
            del self.reasons[name]
        return msgspec.structs.replace(labels, excluded=True) if name in self.reasons else labels

    @property
    def notice(self) -> str:
        """For people; empty when nothing is left out."""
        if not self.reasons:
            return ""
        newest = list(self.reasons.items())[-SHOWN:]
        what = "1 episode is" if len(self.reasons) == 1 else f"{len(self.reasons)} episodes are"
        return f"{what} left out: " + "; ".join(f"{name}: {reason}" for name, reason in newest)


def wrong_start(start: EpisodeStart, spec: RobotSpec) -> str:
    """Why an episode of another robot cannot be learned from with ``spec``; empty when it can."""
    for what, ours, its in differences(spaces_of(spec), spaces_of(start.spec)):
        return f"its {_PLURAL.get(what, f'{what} is')} {its}, the learner's {ours}"
    return ""


def wrong_step(step: Step, spec: RobotSpec) -> str:
    """Step, field and value that cannot be learned from; empty when all can."""
    a = spec.action.names
    for field, problem in (
        ("observation", wrong_observation(step.observation, spec)),
        ("next_observation", wrong_observation(step.next_observation, spec)),
        ("action", _wrong(step.action, a, [LARGEST] * len(a))),
        ("reward", _wrong([step.reward], ("",), [LARGEST])),
    ):
        if problem:
            return f"step {step.episode_step}: {field}{problem}"
    return ""


def wrong_observation(values: Sequence[float], spec: RobotSpec) -> str:
    """Which number of an observation cannot be learned from, and its value; empty when all can."""
    most = [LARGEST_READING if unit in SMALLEST_SPREAD else LARGEST for unit in spec.observation.units]
    return _wrong(values, spec.observation.names, most)


def _wrong(values: Sequence[float], names: Sequence[str], limits: Sequence[float]) -> str:
    if len(values) != len(names):
        return f" has {len(values)} numbers instead of {len(names)}"
    for name, value, limit in zip(names, values, limits, strict=True):
        if not -limit <= value <= limit:  # nor is a number that is none
            return f"{f'[{name}]' if name else ''} is {value}"
    return ""
