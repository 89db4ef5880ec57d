"""The status line at the bottom of every page: (label, value, is a fault)."""

from takeover.app.console.models.snapshot import RECORDER_SILENT_MS, STATUS_STALE_MS, Snapshot, gigabytes, milliseconds
from takeover.data.schema import Mode

Item = tuple[str, str, bool]


def status_items(view: Snapshot) -> tuple[list[Item], list[Item]]:
    """Left and right groups."""
    state = view.state
    left: list[Item] = [("Link", "up", False) if view.live else ("Link", "lost" if state else "connecting", state is not None)]
    if view.picture_age_ms:
        old = [name for name, age in view.picture_age_ms.items() if age > 300]
        text = ", ".join(f"{name} {milliseconds(view.picture_age_ms[name])}" for name in old) or milliseconds(
            max(view.picture_age_ms.values())
        )
        left.append(("Picture", text, bool(old)))
    left.append(("Command", milliseconds(view.round_trip_ms), view.round_trip_ms > 200))
    if view.actor is not None:
        stale = view.actor_age_ms > STATUS_STALE_MS
        held = ", held" if view.mode is Mode.HOLD else ""
        text = (
            "not answering" if stale else f"v{view.actor.version}, {view.actor.rate_hz:.1f} Hz{held}" if view.actor.version else "none yet"
        )
        left.append(("Policy", text, stale))
    if view.learner is not None:
        stale = view.learner_age_ms > STATUS_STALE_MS
        hz = view.spec.control_hz if view.spec else 20.0
        lag = view.learner.backlog_steps / hz
        text = view.learner.error or (f"update {view.learner.updates:,}, lag {lag:.1f} s" if view.learner.updates else view.learner.phase)
        left.append(("Learner", "not answering" if stale else text, stale or bool(view.learner.error)))
    if state is not None:
        silent = state.recorder_age_ms < 0 or state.recorder_age_ms > RECORDER_SILENT_MS
        left.append(("Recorder", "not answering" if silent else f"{gigabytes(state.disk_free_bytes)} free", silent))
        if state.steps_dropped:
            left.append(("Control", f"{state.steps_dropped} of {state.steps_total + state.steps_dropped:,} steps missed", True))
    right: list[Item] = []
    reading = view.reading
    if reading is not None:
        rate = f", {reading.rate_hz:.0f} Hz" if reading.rate_hz else ""
        right.append(("Device", f"{reading.name}{rate}" if reading.alive else f"{reading.name} gone", not reading.alive))
    if view.person:
        right.append(("Person", view.person, False))
    if view.spec is not None:
        right.append(("Robot", f"{view.spec.robot_id}, {view.spec.task_id}", False))
    return left, right
