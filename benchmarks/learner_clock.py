"""What time a learner's benchmark measures."""

import time
from collections.abc import Callable

import torch

Clock = Callable[[], float]


def clock_of(device: torch.device) -> Clock:
    """Seconds: CPU time of this thread on the CPU; wall time on a GPU, once everything started there is done."""
    if device.type == "cpu":
        return time.thread_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
