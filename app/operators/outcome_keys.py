"""When a scripted operator presses the success or failure key: late, and sometimes the wrong one, as people do."""

from dataclasses import dataclass

import numpy as np

from takeover.data.schema import Outcome


@dataclass
class OutcomeKey:
    """One episode's key, drawn when the episode begins. Steps are episode steps.

    Success is seen when it is there and its key pressed ``delay`` steps later, once. With ``mistaken`` the key is the wrong one: failure
    for a success, or, where there is no success until ``blind_step``, success.
    """

    delay: int
    mistaken: bool
    blind_step: int
    seen_at: int = -1
    pressed: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator, delay_min: int, delay_max: int, wrong: float, blind_from: int, blind_to: int) -> "OutcomeKey":
        return cls(
            delay=int(rng.integers(delay_min, delay_max + 1)),
            mistaken=bool(rng.random() < wrong),
            blind_step=int(rng.integers(blind_from, blind_to + 1)),
        )

    @property
    def done(self) -> bool:
        """It has seen success, or ended the episode: there is nothing to correct any more."""
        return self.seen_at >= 0 or self.pressed

    def see(self, step: int, success: bool) -> Outcome | None:
        """The key pressed at this step, if any."""
        if success and self.seen_at < 0:
            self.seen_at = step
        if self.pressed:
            return None
        if self.seen_at >= 0 and step >= self.seen_at + self.delay:
            self.pressed = True
            return Outcome.FAILURE if self.mistaken else Outcome.SUCCESS
        if self.mistaken and self.seen_at < 0 and step >= self.blind_step:
            self.pressed = True
            return Outcome.SUCCESS
        return None
