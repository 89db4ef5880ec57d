"""How long a test waits for what it waits for: longer in the run at low priority, which gets what the other run leaves of the machine."""

import os

_TIMES = 10.0 if os.nice(0) > 0 else 1.0


def patient(seconds: float) -> float:
    """``seconds`` of a free machine, as the time after which a test gives up."""
    return seconds * _TIMES
