"""The result file of `benchmarks.torture`."""

from collections import defaultdict
from typing import Any

from benchmarks.result_text import machine
from benchmarks.torture_run import BACK_S, SLACK_MS


def report(content: dict[str, Any], wanted: int, note: str, steps: int, lost: int, files: int, problems: list[str]) -> str:
    """Command, commit, machine, a row per kind of event, totals, and everything that went wrong."""
    events = content["events"]
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        groups[f"{event['do']:<5} {event['target']}"].append(event)
    rows = [_row(name, group) for name, group in sorted(groups.items())]
    failed = [f"event {number}, {event['event']}: {text}" for number, event in enumerate(events, 1) for text in event["problems"]]
    failed += content["problems"] + problems
    commands, violations = (sum(monitor.get(key, 0) for monitor in content["monitors"]) for key in ("commands", "violations"))
    trips = sum(len(monitor.get("watchdog_trips", [])) for monitor in content["monitors"])
    judged = [event for event in events if event.get("measured_ms") is not None]
    over = sum(event["measured_ms"] > event["limit_ms"] for event in judged)
    minutes = content["wall_s"] / 60
    lines = [
        f"command   python -m benchmarks.torture --events {wanted} --seed {content['seed']}",
        f"commit    {content['commit']}",
        f"machine   {machine()}",
        *([f"note      {note}"] if note else []),
        "station   every process in real time, cameras, the window offscreen, scripted operator; the robot is `takeover sim-server`",
        "event     kill: SIGKILL (of the robot: another one on its address after 0.3-3 s); stop: SIGSTOP, SIGCONT after 0.3-3 s;",
        "          stick: one thread does nothing for 0.3-3 s",
        "moved     last motion after the fault (ms) that still needed what was struck, by the recorded steps; of a bridge that hangs,",
        "          when the tool stood still, by the robot's own monitor; of a robot that hangs or is killed, when the",
        "          bridge held or was offline. -: the event does not concern what moves the robot, or was over before the limit",
        f"          A figure over limit + {SLACK_MS:.0f} ms is a failure",
        f"back      from the end of the outage until all processes are up and the robot was driven for 10 steps; {BACK_S:.0f} s at most",
        "",
        f"{'event':<24} {'n':>3} {'limit ms':>9} {'judged':>6} {'median':>7} {'max':>6} {'over':>5} {'back s, median':>15} {'max':>6}",
        *rows,
        "",
        f"events                {len(events)} of {wanted}, {minutes:.0f} min, stations started: {content['sessions']}",
        f"judged by motion      {len(judged)}, over the limit {over}",
        f"robot's monitor       {commands} commands, {violations} violations, {trips} watchdog trips",
        f"acknowledged steps    {steps}, lost {lost}; {files} episodes on disk, every file verified",
        f"failures              {len(failed)}",
        *(f"  {text}" for text in failed),
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, group: list[dict[str, Any]]) -> str:
    judged = [event for event in group if event.get("measured_ms") is not None]
    limits = sorted({event["limit_ms"] for event in judged})
    limit = "-" if not limits else "/".join(f"{value:.0f}" for value in limits)
    measured = sorted(event["measured_ms"] for event in judged)
    over = sum(event["measured_ms"] > event["limit_ms"] for event in judged)
    back = sorted(event["back_s"] for event in group if event["back_s"] is not None)
    middle, most = (f"{measured[len(measured) // 2]}", f"{measured[-1]}") if measured else ("-", "-")
    again = (f"{back[len(back) // 2]:.1f}", f"{back[-1]:.1f}") if back else ("-", "-")
    return f"{name:<24} {len(group):>3} {limit:>9} {len(judged):>6} {middle:>7} {most:>6} {over:>5} {again[0]:>15} {again[1]:>6}"
