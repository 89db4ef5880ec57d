"""The whole suite as two runs of pytest at once: tests that watch the clock, and, on what they leave of the machine, the others.

python -m tests.run             what `make test` does
python -m tests.run ARGUMENTS   one plain run of pytest with these arguments
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# No test of these measures a time or ends by one: they may take as long as they like.
PATIENT = (
    "tests/data",
    "tests/policies",
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
NICENESS = 15
PATIENCE_S = 600  # for one of them
PYTEST = [sys.executable, "-m", "pytest"]


def both() -> int:
    """Exit status: 0 when both runs are green."""
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        command = [*PYTEST, *PATIENT, "-o", f"timeout={PATIENCE_S}"]
        patient = subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=lambda: os.nice(NICENESS))
        try:
            prompt = subprocess.run([*PYTEST, "tests", *(f"--ignore={path}" for path in PATIENT)], check=False).returncode
            behind = patient.wait()
        except BaseException:
            patient.terminate()
            patient.wait()
            raise
        output.seek(0)
        print(f"\n--- beside them, at low priority: {len(PATIENT)} files and folders without a clock", flush=True)
        sys.stdout.buffer.write(output.read())
        print(f"--- both took {time.monotonic() - began:.0f} s", flush=True)
    return prompt or behind


def main() -> int:
    os.chdir(Path(__file__).resolve().parents[1])
    return subprocess.run([*PYTEST, *sys.argv[1:]], check=False).returncode if sys.argv[1:] else both()


if __name__ == "__main__":
    raise SystemExit(main())
