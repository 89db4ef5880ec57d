"""Memory that was freed, back to the system."""

import ctypes


def give_back() -> None:
    """Return what glibc keeps of freed memory, in more pieces after each big piece of work: a process that works in turns looks as if
    it grew, by steps of what the work needs. Some milliseconds, in which other threads wait when they ask for memory. Elsewhere: nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
