"""How long a correction takes to reach the learner and the robot: real time only, wall clock of one computer.

From the first applied human step of an intervention to the first batch that held any of its steps, and to the first step that a
policy acted with weights that used it.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

from takeover.data.schema import ControlMode, Step

SHOWN = 20
REMEMBERED = 1000


@dataclass
class _Correction:
    episode_id: str
    episode_number: int
    intervention_id: int
    first_ns: int
    last_ns: int
    update: int = -1
    to_batch_s: float = -1.0
    version: int = -1
    to_acting_s: float = -1.0


class CorrectionClock:
    """Follows every intervention from its first human step to the first step of a policy that used it; the newest `REMEMBERED` of them."""

    def __init__(self) -> None:
        self.to_batch_s: deque[float] = deque(maxlen=REMEMBERED)
        self.to_acting_s: deque[float] = deque(maxlen=REMEMBERED)
        self._all: dict[tuple[str, int], _Correction] = {}
        self._recent: list[_Correction] = []
        self._awaiting_version: list[_Correction] = []
        self._awaiting_action: list[_Correction] = []

    def on_step(self, step: Step, episode_number: int) -> None:
        """A committed step of a policy episode, held ones left out."""
        if step.control_mode in (ControlMode.HUMAN, ControlMode.TRANSITION) and step.intervention_id >= 0:
            key = (step.episode_id, step.intervention_id)
            if key not in self._all:
                found = _Correction(step.episode_id, episode_number, step.intervention_id, step.t_applied_ns, step.t_applied_ns)
                self._all[key] = found
                if len(self._all) > REMEMBERED:
                    del self._all[next(iter(self._all))]
                self._recent = [*self._recent[1 - SHOWN :], found]
            self._all[key].last_ns = step.t_applied_ns
        elif step.control_mode == ControlMode.POLICY and self._awaiting_action:
            for correction in [c for c in self._awaiting_action if step.policy_version >= c.version]:
                correction.to_acting_s = (step.t_applied_ns - correction.first_ns) / 1e9
                self.to_acting_s.append(correction.to_acting_s)
                self._awaiting_action.remove(correction)

    def on_used(self, used: list[tuple[str, int]], update: int, now_ns: int) -> None:
        """Corrections that were in a batch for the first time."""
        for key in used:
            correction = self._all.get(key)
            if correction is None or correction.update >= 0:
                continue
            correction.update = update
            correction.to_batch_s = (now_ns - correction.first_ns) / 1e9
            self.to_batch_s.append(correction.to_batch_s)
            self._awaiting_version.append(correction)

    def on_published(self, version: int) -> None:
        """New weights: the first that used what was waiting."""
        for correction in self._awaiting_version:
            correction.version = version
            self._awaiting_action.append(correction)
        self._awaiting_version = []

    def recent(self) -> list[dict[str, float | str]]:
        """The newest corrections, newest last; what is not known yet is left out."""
        return [_row(correction) for correction in self._recent]


def _row(correction: _Correction) -> dict[str, float | str]:
    row: dict[str, Any] = {
        "episode_id": correction.episode_id,
        "episode_number": float(correction.episode_number),
        "intervention_id": float(correction.intervention_id),
        "length_s": (correction.last_ns - correction.first_ns) / 1e9,
    }
    for name in ("update", "to_batch_s", "version", "to_acting_s"):
        value = getattr(correction, name)
        if value >= 0:
            row[name] = float(value)
    return row
