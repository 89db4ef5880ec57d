"""Commands that the safety filter changed where no step is recorded: on the way to a start pose, standing by, held without an episode."""

from collections import Counter

import numpy as np
import numpy.typing as npt

from takeover.data.schema import SafetyBit
from takeover.robot_bridge.safety import SafetyResult

FloatArray = npt.NDArray[np.float64]

NOTE_NS = 1_000_000_000


def names_of(bits: SafetyBit) -> list[str]:
    """Of every rule that changed something."""
    return [bit.name.lower() if bit.name else str(int(bit)) for bit in bits]


class ChangedCommands:
    """Counts every change by rule, and says at most once a second what one was, and of how many since the last time."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # by rule, of recorded steps too
        self._noted_ns: int | None = None
        self._unsaid = 0

    def count(self, bits: SafetyBit) -> None:
        """What a step changed that is recorded itself."""
        self.counts.update(names_of(bits))

    def note(self, asked: FloatArray, result: SafetyResult, now_ns: int) -> str:
        """Count, and the text of an event about it; "" when nothing was changed or the last event is less than a second old.

        ``asked`` (A,) and ``result.action`` (A,) are canonical.
        """
        self.count(result.bits)
        if not result.bits:
            return ""
        self._unsaid += 1
        if self._noted_ns is not None and now_ns - self._noted_ns < NOTE_NS:
            return ""
        self._noted_ns, changed, self._unsaid = now_ns, self._unsaid, 0
        more = f"; {changed} changed since the last such event" if changed > 1 else ""
        return f"{', '.join(names_of(result.bits))}: asked {_text(asked)}, applied {_text(result.action)}{more}"


def _text(action: FloatArray) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in action) + "]"
