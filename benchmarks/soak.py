"""A whole station in real time for an hour: does any process grow?

Every process, cameras and the window (offscreen) run while the scripted operator corrects; memory, descriptors and threads of each are
sampled every 5 s. After the warm-up (the first fifth, 2 minutes or more) the least-squares slope of the memory that is the process's own
is given with a Newey-West interval: anonymous, shared and swapped memory, not mapped files, which count as shared or not as other
programs come and go. A process passes when its slope is under 1 MB/h, it was never started again, and its descriptors and threads at the
end are no more than the most they were in the first half. The learner's replay buffer is small, so that it is full, and stays so, before
the warm-up is over.

    python -m benchmarks.soak [--minutes 60] [--no-gate] [--out docs/results/soak.txt]
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.result_text import commit, machine
from benchmarks.soak_samples import Sample, Sampler, Series
from benchmarks.trend import Trend, trend
from benchmarks.whole_station import WholeStation, whole_station

PERIOD_S = 5.0
WARM_UP_S = 120.0
LIMIT_MB_PER_H = 1.0
SPARE = 2  # descriptors or threads that may be there at the last sample by chance: a file being closed, a lookup
REPLAY_STEPS = 4_000  # of the learner: full, as after days of work, before the warm-up is over
LEARNER = {"clone_updates": 200, "replay_capacity": REPLAY_STEPS}


def run(station: WholeStation, seconds: float) -> tuple[Sampler, dict[str, Any]]:
    """Sample until the time is over or the run has ended; the samples and what the station did meanwhile."""
    sampler, began_on = Sampler(station.rig.launcher.pids), commit()
    watch = station.rig.watch
    steps = episodes = 0
    session = ""
    next_s = 0.0
    restarts: dict[str, int] = {}
    while sampler.now_s < seconds and not station.worker.error:
        sampler.take()
        for name, count in station.rig.launcher.restarts().items():
            if count > restarts.get(name, 0):
                restarts[name] = count
                print(
                    f"{sampler.now_s / 60:5.1f} min  {name} was started again; its log ends with",
                    _last_lines(station, name),
                    sep="\n",
                    flush=True,
                )
        if (state := watch.state) is not None:
            steps, session = state.steps_total, session or state.session
        episodes = len(watch.committed)
        station.forget()
        next_s += PERIOD_S
        if round(next_s / PERIOD_S) % 12 == 0:
            print(f"{sampler.now_s / 60:5.1f} min  {steps} steps, {episodes} episodes", flush=True)
        time.sleep(max(0.0, next_s - sampler.now_s))
    told = {"commit": began_on, "seconds": sampler.now_s, "steps": steps, "episodes": episodes, "restarts": restarts}
    return sampler, told | {"error": station.worker.error}


def _last_lines(station: WholeStation, name: str, count: int = 30) -> str:
    return "\n".join((station.workspace / "logs" / f"{name}.log").read_text(errors="replace").splitlines()[-count:])


def judge(series: Series, warm_up_s: float, seconds: float) -> dict[str, Any]:
    """Slopes and counts of one process; ``problems`` says what does not pass."""
    late = [sample for sample in series.samples if sample.t_s >= warm_up_s]
    own = trend([one.t_s for one in late], [one.own_mb for one in late])
    rss = trend([one.t_s for one in late], [one.rss_mb for one in late])
    problems = []
    if not own.below(LIMIT_MB_PER_H):
        problems.append(f"{series.name} grows by {own.slope:.1f} MB/h ({own.low:.1f} to {own.high:.1f})")
    for what in ("descriptors", "threads"):
        early = max(_count(one, what) for one in series.samples if one.t_s < max(warm_up_s, seconds / 2))
        last = min(_count(one, what) for one in series.samples[-6:])
        if last > early + SPARE:
            problems.append(f"{series.name} has {last} {what} at the end, at most {early} in the first half")
    return {"name": series.name, "own": own, "rss": rss, "problems": problems}


def _count(sample: Sample, what: str) -> int:
    return sample.descriptors if what == "descriptors" else sample.threads


def report(sampler: Sampler, told: dict[str, Any], minutes: float, note: str, gate: bool = True) -> tuple[str, dict[str, Any]]:
    """The result file and what goes beside it as JSON."""
    warm_up_s = max(WARM_UP_S, 0.2 * told["seconds"])
    found, problems = [], []
    if told["error"]:
        problems.append(f"the run ended: {told['error']}")
    problems += [f"{name} was started again {count} times" for name, count in told["restarts"].items()]
    rows = []
    for series in sampler.series:
        if series.ended:
            continue
        if series.samples[0].t_s >= warm_up_s:  # started again since: that is a problem of its own, and its short life says little
            continue
        result = judge(series, warm_up_s, told["seconds"])
        found.append(result)
        problems += result["problems"]
        rows.append(_row(series, result["own"], result["rss"]))
    head = f"{'process':<11} {'own MB':>7} {'last':>7} {'slope MB/h':>11} {'95 % interval':>18} {'RSS MB/h':>9}"
    lines = [
        f"command   python -m benchmarks.soak --minutes {minutes:g}{'' if gate else ' --no-gate'}",
        f"commit    {told['commit']}",
        f"machine   {machine()}",
        *([f"note      {note}"] if note else []),
        "station   every process in real time, cameras, the window offscreen, scripted operator, learner hil-serl, gate "
        + ("on" if gate else "off"),
        f"work      {told['seconds'] / 60:.0f} min, {told['steps']} steps, {told['episodes']} episodes",
        f"slope     least squares of own memory (and of RSS) after {warm_up_s:.0f} s of warm-up",
        "interval  95 %, Newey-West: Bartlett kernel, lags up to 60 s",
        f"passes    slope under {LIMIT_MB_PER_H:.0f} MB/h; descriptors and threads at the end no more than in the first half",
        f"replay    of {REPLAY_STEPS} steps, full before the warm-up is over",
        "",
        f"{head} {'descriptors':>12} {'last':>5} {'max':>4} {'threads':>8} {'last':>5} {'max':>4}",
        *rows,
        "",
        f"failures  {len(problems)}",
        *(f"  {problem}" for problem in problems),
    ]
    content = told | {
        "problems": problems,
        "warm_up_s": warm_up_s,
        "trends": {one["name"]: {kind: vars(one[kind]) for kind in ("own", "rss")} for one in found},
        "processes": [series.as_dict() for series in sampler.series],
    }
    return "\n".join(lines) + "\n", content


def _row(series: Series, own: Trend, rss: Trend) -> str:
    first, last = series.samples[0], series.samples[-1]
    most = [max(_count(one, what) for one in series.samples) for what in ("descriptors", "threads")]
    slope = f"{own.slope:>11.2f} {f'{own.low:.2f} to {own.high:.2f}':>18} {rss.slope:>9.2f}"
    return (
        f"{series.name:<11} {first.own_mb:>7.1f} {last.own_mb:>7.1f} {slope}"
        f" {first.descriptors:>12} {last.descriptors:>5} {most[0]:>4} {first.threads:>8} {last.threads:>5} {most[1]:>4}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="docs/results/soak.txt", help="the samples go beside it, as JSON")
    parser.add_argument(
        "--gate", action=argparse.BooleanOptionalAction, default=True, help="the evaluator compares every version with the trusted one"
    )
    parser.add_argument("--note", default="", help="what else must be known of this run")
    arguments = parser.parse_args()
    if arguments.minutes < 4:
        raise SystemExit("--minutes: at least 4, of which 2 are warm-up")
    with (
        tempfile.TemporaryDirectory(prefix="takeover-soak-") as folder,
        whole_station(Path(folder) / "workspace", "soak", arguments.seed, learner_parameters=LEARNER, gate=arguments.gate) as station,
    ):
        sampler, told = run(station, arguments.minutes * 60)
        if told["error"] or told["restarts"]:  # the workspace goes away, what its processes said stays
            shutil.copytree(station.workspace / "logs", Path(arguments.out).with_suffix(".logs"), dirs_exist_ok=True)
    text, content = report(sampler, told, arguments.minutes, arguments.note, arguments.gate)
    out = Path(arguments.out)
    out.write_text(text)
    out.with_suffix(".json").write_text(json.dumps(content) + "\n")
    print(text)
    raise SystemExit(1 if content["problems"] else 0)


if __name__ == "__main__":
    main()
