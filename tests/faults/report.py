"""`make faults`: every row of the fault matrix against the real processes, and what was measured into docs/faults.md."""

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.result_text import commit, machine

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs" / "faults.md"
ROWS = {
    1: ("input device unplugged", "hold, no repeated command"),
    2: ("device reader killed or stuck", "as 1; the last value is never repeated"),
    3: ("stick stuck or drifting", "zero after the deadman is released"),
    4: ("reconnected with the stick deflected", "no motion until neutral and enabled again"),
    5: ("camera frozen", "flagged, policy held; a person may drive who sees the robot"),
    6: ("camera gone", "as 5; the episode ends"),
    7: ("bridge killed", "the robot's own watchdog stops it"),
    8: ("bridge stopped, or a thread of it stuck", "as 7; the console shows it"),
    9: ("control loop late or stuck", "counted; persistent lateness holds"),
    10: ("restart in mid-episode", "disarmed, new session, old commands refused"),
    11: ("two commanders", "the second is refused"),
    12: ("console killed, stopped or frozen in a takeover", "authority lapses"),
    13: ("GUI thread or control thread blocked", "STOP still works"),
    14: ("5-30 % loss, 200 ms delay, reordering", "old sequences dropped, no jump"),
    15: ("outage, then back", "hold; nothing replayed"),
    16: ("slow viewer", "newest frame only, drops counted"),
    17: ("wall clock jumps an hour", "nothing"),
    18: ("NaN or infinite action", "refused, hold, policy fault"),
    19: ("wrong shape, type, unit or unknown field", "refused at load and per message, before the first command"),
    20: ("over limit", "clamped, counted; three in a row hold"),
    21: ("policy late or stale", "zero velocity, then hold"),
    22: ("NaN in the learner", "skipped; repeated: last good state; no bad weights published"),
    23: ("learner killed", "robot uninterrupted; back with the same state"),
    24: ("worse candidate", "not promoted; acting policy rolled back"),
    25: ("torn or corrupt weights", "refused, previous kept"),
    26: ("contradictory or late label, double press", "append-only, the last one wins, undo; replay identical"),
    27: ("episode without outcome, one-class data", "quarantined, said"),
    28: ("recorder killed", "held; acknowledged steps kept"),
    29: ("file cut off at any byte", "noticed; whole parts of a journal kept"),
    30: ("disk full, read-only, slow", "held, control unaffected; goes on when the disk does"),
    31: ("catalog and files disagree", "named or put right"),
    32: ("bit rot", "noticed"),
    33: ("unknown client or wrong key", "refused, logged"),
    34: ("replayed valid command", "refused"),
    35: ("huge, nested or truncated message", "rejected"),
    36: ("path tricks, links in foreign files", "refused, nothing written outside"),
    37: ("version mismatch", "refused, both versions shown"),
    38: ("soak", "no leak"),
}
HOW = """
## How
- `tests/faults/rig.py` starts bridge, recorder and whatever else a row needs with the real launcher and watches from outside; signals kill
  and stop processes, a hook that is loaded only in these tests makes a thread hang or fail (`tests/faults/hooks`).
- Rows 1 to 4, 12 and 13 run the real console in a real window (Xvfb) with SDL's virtual gamepad in that process. Real pads, pulled cables
  and USB resets were not tried.
- Rows 7 and 8 drive `takeover sim-server`, a process that stands in for hardware with its own clock, watchdog and monitor. The watchdog's
  figures are its own; a robot whose watchdog waits longer than T_cmd is driven slowly, as one without.
- Row 5: a camera is frozen when its counter or its time stands for 115 ms (a camera below 20 Hz: 2.3 of its periods, and then the bound
  is longer), or when two pictures in a row have the pixels from before the tool was measured to move 3 cm, since two pictures of a still
  scene are identical: the 200 ms count from those 3 cm, and from standing still it takes as long as the way does. It counts measured
  motion where the design counts commanded motion: a slow robot is flagged later, and one that is commanded but blocked is not.
- Row 5: the policy is held for its cameras (`policy_cameras`). A person who drives is held too, for any camera, unless the station says
  that people see the robot itself (`line_of_sight = "yes"`; `"auto"`: in simulation alone). The row's own test drives in simulation.
- Row 8: a window says that the link is lost 0.35 s after the newest state, and no state leaves the bridge when no control
  step has ended for 0.1 s (two periods, if that is longer; a robot that is reset or away has 0.5 s).
- Row 14 loses, delays and swaps messages between operator and bridge. TCP itself never reorders; delay, stalls, narrow links and dropped
  connections over TCP are in `tests/robot_bridge/test_remote.py`.
- Row 30: full is a limit that the kernel enforces on the living recorder; read-only and slow are made by the hook, in the recorder's own
  calls (SQLite's are not among them). `make crash` does more of 28 to 30 and 32, without a bridge.
- Rows 22, 24, 25 and 27 run the learner, actor and evaluator processes with a recorder's store, without a bridge. The bad losses of row 22
  are made by a learning rate, set as people set it. `make resume` kills the learner at random moments and compares bits.
- Row 17 moves the clock that the processes see, not the machine's.
- Row 19: units are refused when the bridge starts, by a robot whose spec is changed; no socket opens.
- Row 20 is judged with a station's own limits (0.15 m/s, 2 m/s^2), which bind: at 20 Hz the simulator never reaches the default
  acceleration limit.
- Long forms: `make torture` (random kills, stops and stuck threads of every process), `make soak` (memory and descriptors),
  `make mutation` (every limiter and timeout removed in turn).
"""


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.3g}"


def table(lines: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """Rows of Markdown and whether every bound was kept."""
    by_row: dict[int, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        by_row[line["row"]][line["test"]].append(line)
    out, fine = ["| # | fault | expected | measured (bound) | test |", "|---|---|---|---|---|"], True
    for row, (fault, expected) in ROWS.items():
        tests = by_row.get(row)
        if not tests:
            out.append(f"| {row} | {fault} | {expected} | **not measured** | |")
            fine = False
            continue
        for test, found in tests.items():
            worst = []
            for unit, limit in dict.fromkeys((item["unit"], item["limit"]) for item in found):
                value = max(item["measured"] for item in found if (item["unit"], item["limit"]) == (unit, limit))
                over = value > limit
                fine &= not over
                worst.append(f"{'**over:** ' if over else ''}{number(value)} ({number(limit)}) {unit}")
            name = test.removeprefix("tests/faults/").replace("::", " ").replace("|", "/")
            out.append(f"| {row} | {fault} | {expected} | {'; '.join(worst)} | `{name}` |")
    return out, fine


def main() -> int:
    command = "make faults"
    with tempfile.TemporaryDirectory() as folder:
        measured = Path(folder) / "faults.jsonl"
        environment = os.environ | {"TAKEOVER_FAULTS_OUT": str(measured), "TAKEOVER_FAULTS_OUTAGE_S": "10"}
        tests = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/faults", *sys.argv[1:]], cwd=ROOT, env=environment, check=False
        )
        lines = [json.loads(line) for line in measured.read_text().splitlines()] if measured.exists() else []
    rows, fine = table(lines)
    head = f"""# Faults it survives
Made by `{command}` at commit {commit()} on {machine()}; every figure is from that run, of real processes on real
sockets. A time is from the fault to what the bridge did about it. `make test` runs the same tests, for busy machines with
three times the bound and 300 ms (at most a second more); here each figure is held against its bound.
"""
    text = "\n".join([head, *rows, HOW])
    OUT.write_text(text, encoding="utf-8")
    print(f"{OUT}: {'every bound kept' if fine else 'a bound was not kept, or a row was not measured'}")
    return 0 if fine and tests.returncode == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
