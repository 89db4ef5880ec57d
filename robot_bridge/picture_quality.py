"""Pictures for viewers at the end of a slow link: coarser and fewer until they arrive in time, better again when they do."""

import math
from dataclasses import dataclass

TOO_OLD_MS = 250.0
FRESH_MS = 150.0
WORSE_AFTER_S = 0.8  # between two steps down: the effect of one must be seen first
BETTER_AFTER_S = 5.0  # fresh for so long: one step up
FORGET_S = 5.0  # a viewer that says nothing any more


@dataclass(frozen=True)
class Level:
    """JPEG quality, every how many pixels in either direction, every how many pictures."""

    quality: int
    stride: int
    every: int


LEVELS = (Level(85, 1, 1), Level(60, 1, 1), Level(45, 2, 1), Level(35, 2, 2), Level(30, 4, 4))


class PictureQuality:
    """Judges the reports of all viewers: the slowest counts, or while somebody drives whoever does.

    Fed by the I/O thread, read by the camera thread.
    """

    def __init__(self) -> None:
        self.index = 0
        self._reports: dict[str, tuple[float, float]] = {}  # sender -> (age in ms, when in s)
        self._changed_s = -math.inf
        self._fresh_since_s: float | None = None

    @property
    def level(self) -> Level:
        return LEVELS[self.index]

    def report(self, sender: str, age_ms: float, now_s: float, driver: str = "") -> None:
        """``driver``: which sender drives; "": nobody. An onlooker's slow link is no reason to show the driver less."""
        if not math.isfinite(age_ms):
            return
        self._reports = {name: item for name, item in self._reports.items() if now_s - item[1] < FORGET_S} | {sender: (age_ms, now_s)}
        if driver:
            self._reports = {name: item for name, item in self._reports.items() if name == driver}
        worst = max((age for age, _ in self._reports.values()), default=0.0)
        if worst > TOO_OLD_MS:
            self._fresh_since_s = None
            if now_s - self._changed_s >= WORSE_AFTER_S and self.index < len(LEVELS) - 1:
                self.index, self._changed_s = self.index + 1, now_s
        elif worst < FRESH_MS:
            self._fresh_since_s = now_s if self._fresh_since_s is None else self._fresh_since_s
            if now_s - max(self._fresh_since_s, self._changed_s) >= BETTER_AFTER_S and self.index > 0:
                self.index, self._changed_s = self.index - 1, now_s
        else:
            self._fresh_since_s = None
