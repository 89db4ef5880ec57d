"""The start gate: what must be true before the robot may move, with the present value of each."""

from dataclasses import dataclass

from takeover.app.console.models.snapshot import Snapshot, gigabytes, milliseconds
from takeover.data.schema import Mode


@dataclass(frozen=True)
class GateRow:
    name: str
    value: str
    ok: bool
    pending: bool = False  # not yet, and no fault: its process is starting


@dataclass(frozen=True)
class Gate:
    title: str
    note: str
    rows: tuple[GateRow, ...]

    @property
    def passed(self) -> int:
        return sum(row.ok for row in self.rows)


_NAMES = {
    "cameras": "Cameras",
    "command_echo": "Command echo",
    "device_neutral": "Device neutral",
    "disk": "Disk",
    "recorder": "Recorder",
    "learner": "Learner",
    "policy": "Policy",
    "watchdog": "Robot watchdog",
}


def gate(view: Snapshot) -> Gate:
    """Rows of `State.gate`; an item the bridge does not report is not shown."""
    title = "Resume gate" if view.mode in (Mode.HOLD, Mode.STOPPED) else "Start gate"
    if view.state is None or view.link_lost:
        return Gate(title, "no link", (GateRow("Robot bridge", "not answering", False),))
    items = view.state.gate
    ordered = [name for name in _NAMES if name in items] + [name for name in items if name not in _NAMES]
    rows = tuple(_row(name, items[name], view) for name in ordered)
    missing = sum(not row.ok for row in rows)
    note = "passed" if rows and not missing else f"{len(rows) - missing} of {len(rows)}, waiting" if rows else "not reported"
    return Gate(title, note, rows)


_PROCESS = {"recorder": "recorder", "learner": "learner", "policy": "actor"}


def _row(name: str, problem: str, view: Snapshot) -> GateRow:
    """A device in use is not neutral, and recording needs no policy: neither is a fault then."""
    title = _NAMES.get(name, name.replace("_", " ").capitalize())
    if name == "device_neutral" and view.mode is Mode.TAKEOVER:
        return GateRow(title, "driving", True)
    if name == "policy" and problem and (view.collecting or view.scripted_demonstrations or view.policy_version < 1):
        return GateRow(title, "none yet", True)
    if problem and view.processes is not None and view.processes.states.get(_PROCESS.get(name, "")) in ("starting", "restarting"):
        return GateRow(title, view.processes.states[_PROCESS[name]], False, pending=True)
    return GateRow(title, problem or _value(name, view), not problem)


def _value(name: str, view: Snapshot) -> str:
    state = view.state
    if state is None:
        return ""
    if name == "cameras":
        total = len(view.spec.cameras) if view.spec else len(view.picture_age_ms)
        return f"{total - len(view.stale_cameras)} of {total}" if total else "none"
    if name == "command_echo":
        return milliseconds(view.round_trip_ms)
    if name == "device_neutral":
        return "yes"
    if name == "disk":
        return gigabytes(state.disk_free_bytes)
    if name == "recorder":
        return "answering"
    if name == "learner":
        return learner_lag(view)
    if name == "policy":
        return f"v{state.policy_version}" if state.policy_version else "none yet"
    if name == "watchdog":
        return "built in" if view.spec is None or view.spec.has_watchdog else "none: slow only"
    return "yes"


def learner_lag(view: Snapshot) -> str:
    """``up, lag 0.8 s``: how far the learner is behind what was committed."""
    if view.learner is None:
        return "not heard"
    hz = view.spec.control_hz if view.spec else 20.0
    if view.learner.phase == "waiting":
        return "up, waiting"
    return f"up, lag {view.learner.backlog_steps / hz:.1f} s"
