"""Memory, descriptors and threads of the processes of a station, sampled over time."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import psutil

MEGABYTE = 1e6


@dataclass(frozen=True)
class Sample:
    t_s: float  # since the sampling began
    rss_mb: float
    uss_mb: float  # what would be free if the process ended
    descriptors: int
    threads: int


@dataclass
class Series:
    """Of one process under one pid; ``ended`` when it went away."""

    name: str
    pid: int
    samples: list[Sample] = field(default_factory=list)
    ended: bool = False

    def as_dict(self) -> dict[str, object]:
        return {"name": self.name, "pid": self.pid, "ended": self.ended, "samples": [asdict(sample) for sample in self.samples]}


def sample(pid: int, t_s: float) -> Sample:
    """Raises `psutil.NoSuchProcess` when it is gone."""
    process = psutil.Process(pid)
    memory = process.memory_full_info()
    return Sample(t_s, memory.rss / MEGABYTE, memory.uss / MEGABYTE, process.num_fds(), process.num_threads())


class Sampler:
    """Follows ``pids()``, by name; a process that was started again begins a new series."""

    def __init__(self, pids: Callable[[], dict[str, int]]) -> None:
        self._pids = pids
        self._began_s = time.monotonic()
        self.series: list[Series] = []

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began_s

    def take(self) -> None:
        """One sample of every process."""
        pids = self._pids()
        for series in self.series:
            series.ended = series.ended or pids.get(series.name) != series.pid
        for name, pid in pids.items():
            known = next((series for series in self.series if series.pid == pid and not series.ended), None)
            if known is None:
                known = Series(name, pid)
                self.series.append(known)
            try:
                known.samples.append(sample(pid, self.now_s))
            except psutil.NoSuchProcess:
                known.ended = True
