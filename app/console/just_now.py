"""What has changed by itself just now: a key whose meaning changed with it does what is harmless for a moment."""

import time

from takeover.data.schema import Mode, State

HELD_S = 0.7  # a hand that was on its way to P meant "hold" when the bridge was quicker
ENDED_S = 1.0  # an Enter meant as success must not start the next block, nor end the next episode


class JustNow:
    """As this console heard it, since a person acts on what is shown here. GUI thread; the clock is monotonic."""

    def __init__(self) -> None:
        self._hold: tuple[str, int] | None = None
        self._held_s = self._ended_s = float("-inf")
        self._last_episode: str | None = None

    def see(self, state: State | None) -> None:
        """The newest State; at every tick, and before a key is judged."""
        if state is None:
            return
        now_s = time.monotonic()
        hold = (state.session, state.mode_since_ns) if state.mode is Mode.HOLD else None
        if hold != self._hold:
            self._hold, self._held_s = hold, now_s
        last = state.last_outcome_episode
        if last and self._last_episode not in (last, None):
            self._ended_s = now_s
        self._last_episode = last

    @property
    def held(self) -> bool:
        """A hold began a moment ago."""
        return self._hold is not None and time.monotonic() - self._held_s < HELD_S

    @property
    def ended(self) -> bool:
        """An episode ended a moment ago."""
        return time.monotonic() - self._ended_s < ENDED_S
