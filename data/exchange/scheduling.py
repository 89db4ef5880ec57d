"""Keeps encoders from taking the machine: SVT-AV1, run by root, puts itself and its caller under SCHED_FIFO at the highest priority.

Above the bridge's control loop, that is, which would starve for as long as an export runs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def _policies() -> dict[int, int]:
    """Scheduling policy of every thread of this process that still runs."""
    found = {}
    for name in os.listdir("/proc/self/task"):
        with suppress(OSError):
            found[int(name)] = os.sched_getscheduler(int(name))
    return found


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Threads that become real-time inside the block, new ones among them, are ordinary again after it."""
    if not hasattr(os, "sched_getscheduler") or not os.path.isdir("/proc/self/task"):
        yield
        return
    before = _policies()
    try:
        yield
    finally:
        for thread, policy in _policies().items():
            if policy in (os.SCHED_FIFO, os.SCHED_RR) and before.get(thread, os.SCHED_OTHER) != policy:
                with suppress(OSError):
                    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
