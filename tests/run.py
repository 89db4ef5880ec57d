"""The whole suite as four runs of pytest at once: tests that watch the clock; beside them those that mostly wait for processes to start
and to end; and, on what these leave of the machine, the others, in two halves.

python -m tests.run             what `make test` does
python -m tests.run ARGUMENTS   one plain run of pytest with these arguments
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# No test of these two measures a time or ends by one: they may take as long as they like.
POLICIES = ("tests/policies",)
PATIENT = (
    "tests/data",
    "tests/robot_bridge/sim",
    "tests/robot_bridge/test_arbitration.py",
    "tests/robot_bridge/test_decisions.py",
    "tests/robot_bridge/test_fuzz.py",
    "tests/robot_bridge/test_lockstep.py",
    "tests/robot_bridge/test_policy_images.py",
    "tests/robot_bridge/test_probes.py",
    "tests/robot_bridge/test_safety.py",
    "tests/robot_bridge/test_safety_limits.py",
    "tests/app/test_cli.py",
    "tests/app/test_headless_run.py",
    "tests/app/test_summary.py",
    "tests/test_floating_point.py",
    "tests/test_house.py",
    "tests/test_protocol_page.py",
)
# Mostly waiting, and of no weight beside the others; a fraction of a second more or less is nothing to them.
WAITING = (
    "tests/app/console/test_screenshots.py",
    "tests/app/test_gate_at_work.py",
    "tests/app/test_kills_in_real_time.py",
    "tests/app/test_launcher.py",
    "tests/app/test_recorder_gap.py",
    "tests/app/test_recorder_process.py",
    "tests/app/test_supervisor.py",
    "tests/faults/test_learner.py",
    "tests/faults/test_learning.py",
    "tests/faults/test_network.py",
    "tests/faults/test_recorder.py",
    "tests/faults/test_soak.py",
    "tests/faults/test_store.py",
    "tests/robot_bridge/test_link_faults.py",
    "tests/robot_bridge/test_remote.py",
    "tests/robot_bridge/test_security.py",
)
NICENESS = 15  # of those without a clock
PATIENCE_S = 600  # for one test of them
PYTEST = [sys.executable, "-m", "pytest"]


@dataclass
class Beside:
    """A run of pytest that goes on meanwhile; what it says is kept until it is asked for."""

    what: str
    arguments: Sequence[str]
    niceness: int
    output: IO[bytes]

    def __post_init__(self) -> None:
        command = [*PYTEST, *self.arguments]
        self._run = subprocess.Popen(command, stdout=self.output, stderr=self.output, preexec_fn=lambda: os.nice(self.niceness))

    def end(self) -> None:
        self._run.terminate()
        self._run.wait()

    def report(self) -> int:
        """Wait for it, print what it said; its exit status."""
        status = self._run.wait()
        self.output.seek(0)
        print(f"\n--- beside them, {self.what}", flush=True)
        sys.stdout.buffer.write(self.output.read())
        sys.stdout.flush()
        return status


def everything() -> int:
    """Exit status: 0 when all runs are green."""
    began = time.monotonic()
    clock = [*PYTEST, "tests", *(f"--ignore={path}" for path in (*WAITING, *PATIENT, *POLICIES))]
    without_clock = ["-o", f"timeout={PATIENCE_S}"]
    streams = (
        ("files that mostly wait", [*WAITING], 0),
        ("at low priority, files without a clock", [*PATIENT, *without_clock], NICENESS),
        ("at low priority, the policies", [*POLICIES, *without_clock], NICENESS),
    )
    with contextlib.ExitStack() as files:
        beside = [
            Beside(what, [*arguments, "-o", f"cache_dir=.pytest_cache/{number}"], niceness, files.enter_context(tempfile.TemporaryFile()))
            for number, (what, arguments, niceness) in enumerate(streams, 1)
        ]
        try:
            status = subprocess.run(clock, check=False).returncode
            for run in beside:
                status = run.report() or status
        except BaseException:
            for run in beside:
                run.end()
            raise
    print(f"--- all took {time.monotonic() - began:.0f} s", flush=True)
    return status


def main() -> int:
    os.chdir(Path(__file__).resolve().parents[1])
    return subprocess.run([*PYTEST, *sys.argv[1:]], check=False).returncode if sys.argv[1:] else everything()


if __name__ == "__main__":
    raise SystemExit(main())
