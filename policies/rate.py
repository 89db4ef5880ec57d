"""How often something happens."""

import time


class Rate:
    """Updates per second over the last five seconds."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._times: list[float] = []

    def tick(self) -> None:
        self._times.append(time.monotonic())
        if len(self._times) > 4000:
            self._trim()

    def per_second(self) -> float:
        self._trim()
        return len(self._times) / self._window_s

    def _trim(self) -> None:
        cut = time.monotonic() - self._window_s
        self._times = [t for t in self._times if t >= cut]
