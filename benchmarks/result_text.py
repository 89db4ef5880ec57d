"""Turns summaries of headless runs into the small text files under ``docs/results/``.

python -m benchmarks.result_text --command "takeover run ..." a.json b.json > docs/results/peg-insert.txt
"""

import argparse
import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from takeover.data.statistics import wilson


def machine() -> str:
    """Processor, cores and system, without a host's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    cores = sum(line.startswith("processor") for line in lines)
    return f"{cores} cores of {model}, {platform.system()}, Python {platform.python_version()}, no GPU used"


def commit() -> str:
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def write_problems(path: Path, command: str, lines: Sequence[str], problems: Sequence[str], took_s: float | None = None) -> int:
    """What a torture test found, as a text file: how it was made, ``lines``, and the problems. The exit status: 1 when there are any."""
    head = [f"command   {command}", f"commit    {commit()}", f"machine   {machine()}"]
    head += [] if took_s is None else [f"took      {took_s:.0f} s"]
    path.write_text("\n".join([*head, "", *lines, "", f"problems  {len(problems)}", *(f"  {one}" for one in problems)]) + "\n")
    print("\n".join(problems) or "no problems")
    return 1 if problems else 0


def proportion(result: dict[str, int] | None) -> str:
    if not result:
        return "-"
    low, high = wilson(result["successes"], result["n"])
    return f"{result['successes']}/{result['n']} ({100 * low:.0f}-{100 * high:.0f} %)"


def rate(episodes: list[dict[str, Any]]) -> float:
    """Share of steps that the operator drove."""
    return sum(episode["human_steps"] for episode in episodes) / max(1, sum(episode["steps"] for episode in episodes))


def row(summary: dict[str, Any]) -> str:
    episodes = summary["episodes"]
    heldout = summary["heldout_success"]
    steps, human = (sum(episode[key] for episode in episodes) for key in ("steps", "human_steps"))
    speed = summary["simulated_s"] / max(1e-9, summary["wall_s"]["demonstrations"] + summary["wall_s"]["loop"])
    return (
        f"{summary['learner_name']:>9} {summary['seed']:>4} {len(episodes):>8} {steps:>7} {human:>6} {proportion(heldout['before']):>19}"
        f" {proportion(heldout['after']):>20} {rate(episodes[:20]):>8.3f} {rate(episodes[-20:]):>7.3f} {rate(episodes[-60:]):>7.3f}"
        f" {summary['wall_s']['loop']:>7.0f} {speed:>6.1f} {summary['weights_sha256'][:12]}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", required=True, help="the command that made the summaries")
    parser.add_argument("--commit", default="", help="the commit it ran on, when that is not the present one")
    parser.add_argument("--note", default="")
    parser.add_argument("summaries", nargs="+")
    arguments = parser.parse_args()
    summaries = [json.loads(Path(path).read_text()) for path in arguments.summaries]
    first = summaries[0]
    operator = ", ".join(f"{key} {value}" for key, value in first["operator"].items())
    print(f"command   {arguments.command}")
    print(f"commit    {arguments.commit or commit()}")
    print(f"machine   {machine()}")
    print(f"robot     {first['robot']}:{first['task']}, {first['clock']}")
    print(f"operator  {operator}; no people were tested")
    print("held-out  200 fixed starts that no training run uses, policy alone, deterministic; 95 % Wilson intervals")
    print("rate      human steps / steps, first 20, last 20 and last 60 episodes; speed is simulated time over wall time")
    if arguments.note:
        print(f"note      {arguments.note}")
    print()
    print(
        "  learner seed episodes   steps  human   warm start, alone           after, alone first 20 last 20 last 60  loop s  speed weights"
    )
    for summary in summaries:
        print(row(summary))


if __name__ == "__main__":
    main()
