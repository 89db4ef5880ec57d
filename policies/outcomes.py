"""Outcomes of single starts, kept: a policy that does not change and a start that does not change are run once.

``<workspace>/policies/outcomes.jsonl``: one line per start. Nothing depends on it but time: what is missing is run again.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from takeover.policies.manifest import policies_folder

FILE = "outcomes.jsonl"
POLICIES_HELD = 4  # a comparison needs two


class StartOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One policy from one start."""

    sha256: str  # of the weights
    conditions: str  # robot, task, rate and parameters: `conditions_of`
    start: int  # the seed
    success: bool
    steps: int


def conditions_of(robot_id: str, task_id: str, control_hz: float, parameters: Mapping[str, float]) -> str:
    """One name for all that an outcome depends on besides weights and start."""
    return f"{robot_id}:{task_id}@{control_hz:g} {parameters_text(parameters)}".strip()


def parameters_text(parameters: Mapping[str, float]) -> str:
    """Task parameters that are not the task's own, in one order; "" without any."""
    return ",".join(f"{name}={value!r}" for name, value in sorted(parameters.items()))


class Outcomes:
    """What is known under one set of conditions. One process writes; several may read.

    Held in memory: the starts of the ``POLICIES_HELD`` policies asked for last; those of another one are read when it is asked for.
    """

    def __init__(self, workspace: str | os.PathLike[str], conditions: str) -> None:
        self.path: Path = policies_folder(workspace) / FILE
        self.conditions = conditions
        self.unreadable = 0  # lines of the policies asked for that were passed over: their starts are run again
        self._held: dict[str, dict[int, StartOutcome]] = {}  # by sha256, in the order of asking

    def get(self, sha256: str, start: int) -> StartOutcome | None:
        """Raises `OSError`."""
        return self._of(sha256).get(start)

    def put(self, sha256: str, start: int, success: bool, steps: int) -> None:
        """Keep one outcome. Raises `OSError`."""
        found = StartOutcome(sha256=sha256, conditions=self.conditions, start=start, success=success, steps=steps)
        known = self._of(sha256)  # before the line is there
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            size = os.fstat(fd).st_size
            torn = size and os.pread(fd, 1, size - 1) != b"\n"
            os.write(fd, (b"\n" if torn else b"") + msgspec.json.encode(found) + b"\n")
        finally:
            os.close(fd)
        known[start] = found

    def _of(self, sha256: str) -> dict[int, StartOutcome]:
        held = self._held.pop(sha256, None)
        if held is None:
            held = self._read(sha256)
            while len(self._held) >= POLICIES_HELD:
                del self._held[next(iter(self._held))]
        self._held[sha256] = held
        return held

    def _read(self, sha256: str) -> dict[int, StartOutcome]:
        held: dict[int, StartOutcome] = {}
        if not self.path.exists():
            return held
        decoder = msgspec.json.Decoder(StartOutcome)
        key = sha256.encode()
        with self.path.open("rb") as lines:  # one at a time: the file grows with every start of every policy
            for line in lines:
                if key not in line:
                    continue
                try:
                    found = decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    self.unreadable += 1
                    continue
                if found.sha256 == sha256 and found.conditions == self.conditions:
                    held[found.start] = found
        return held
