"""Memory, descriptors and threads of the processes of a station, sampled over time."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

MEGABYTE = 1e6
OWN = ("RssAnon", "RssShmem", "VmSwap")


@dataclass(frozen=True)
class Sample:
    t_s: float  # since the sampling began
    rss_mb: float
    own_mb: float  # anonymous and shared memory and swap, without mapped files: those are shared with whoever else runs just then
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
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    kilobytes = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if value.endswith(" kB")}
    own = sum(kilobytes.get(name, 0) for name in OWN)
    return Sample(t_s, kilobytes.get("VmRSS", 0) * 1024 / MEGABYTE, own * 1024 / MEGABYTE, process.num_fds(), process.num_threads())


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
