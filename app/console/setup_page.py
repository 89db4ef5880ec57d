"""Setup: devices with live values, processes with their states, station, learner, versions and licences. Read-only but for restarts."""

import platform
from importlib import metadata

from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor, QKeyEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from takeover import __version__
from takeover.app.console import tokens
from takeover.app.console.controller import Controller
from takeover.app.console.models.notices import last_refused, refused, reward_text
from takeover.app.console.models.snapshot import Snapshot, milliseconds, signed
from takeover.app.console.tokens import MEDIUM, REGULAR, T1, T2, T3
from takeover.app.console.widgets import RIGHT, Button, KeyValueRow, Panel, draw_text, label
from takeover.app.inputs.base import DeviceReading

VERSIONS = ("PySide6-Essentials", "pyzmq", "msgspec", "mujoco", "torch", "h5py", "pygame", "hidapi")


class DeviceRow(QWidget):
    """One device: name, whether it drives, its six axes live."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(56)
        self._reading: DeviceReading | None = None
        self._driving = False

    def show_reading(self, reading: DeviceReading, driving: bool) -> None:
        if reading != self._reading or driving != self._driving:
            self._reading, self._driving = reading, driving
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        reading = self._reading
        if reading is None:
            return
        painter = QPainter(self)
        width = self.width()
        draw_text(painter, QRectF(0, 4, width, 20), reading.name, T1 if reading.alive else tokens.STOP, 13, MEDIUM)
        state = "unplugged" if not reading.alive else "deadman held" if reading.deadman else "neutral" if reading.neutral else "not neutral"
        rate = f", {reading.rate_hz:.0f} Hz" if reading.rate_hz else ""
        choice = ", drives" if self._driving else ""
        draw_text(painter, QRectF(0, 4, width, 20), f"{state}{rate}{choice}", T3, 12, REGULAR, RIGHT)
        slot = width / 6
        for i, (name, value) in enumerate(zip(("x", "y", "z", "roll", "pitch", "yaw"), reading.twist, strict=True)):
            x = i * slot
            draw_text(painter, QRectF(x, 26, slot - 12, 16), name, T3, 11)
            draw_text(painter, QRectF(x, 26, slot - 12, 16), signed(value), T1 if abs(value) > 0.04 else T3, 11, REGULAR, RIGHT)
            middle, half = x + (slot - 12) / 2, (slot - 12) / 2
            painter.fillRect(QRectF(x, 46, slot - 12, 4), QColor(tokens.LINE))
            painter.fillRect(QRectF(min(middle, middle + half * value), 46, abs(half * value), 4), QColor(T1))


class ProcessRow(QWidget):
    def __init__(self, name: str, restart: Button) -> None:
        super().__init__()
        self.setFixedHeight(36)
        self.name, self.restart = name, restart
        self._state, self._note = "", ""
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 2, 0, 2)
        layout.addStretch(1)
        layout.addWidget(restart)

    def show_state(self, state: str, note: str) -> None:
        if (state, note) != (self._state, self._note):
            self._state, self._note = state, note
            self.restart.setText("Start" if state == "stopped" or state.startswith("failed") else "Restart")
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        bad = self._state.startswith("failed") or self._state == "restarting"
        draw_text(painter, QRectF(0, 0, 110, 36), self.name, T1, 13, MEDIUM)
        draw_text(painter, QRectF(110, 0, max(40, self.width() - 330), 36), self._state, tokens.STOP if bad else T2)
        draw_text(painter, QRectF(0, 0, self.width() - 110, 36), self._note, T3, 12, REGULAR, RIGHT)


class SetupPage(QWidget):
    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.devices = Panel("Devices", "last pressed drives")
        self.processes = Panel("Processes")
        self.station = Panel("Station")
        self.robot = Panel("Robot")
        self.learner = Panel("Learner")
        self.about = Panel("About")
        self._device_rows: list[DeviceRow] = []
        self._process_rows: dict[str, ProcessRow] = {}
        self._device_note = label("", T3, wrap=True)
        holder = QWidget()
        columns = QHBoxLayout(holder)
        columns.setContentsMargins(8, 8, 8, 8)
        columns.setSpacing(8)
        for panels in ((self.devices, self.station, self.about), (self.processes, self.robot, self.learner)):
            column = QVBoxLayout()
            column.setSpacing(8)
            for panel in panels:
                column.addWidget(panel)
            column.addStretch(1)
            columns.addLayout(column, 1)
        area = QScrollArea()
        area.setWidget(holder)
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(area)
        self.devices.body.addWidget(self._device_note)
        self._rows: dict[tuple[Panel, str], KeyValueRow] = {}
        self._fill_about()

    def activated(self) -> None:
        """Nothing to prepare: it shows what is live."""

    def deactivated(self) -> None:
        """Nothing to give up."""

    def handle_key(self, event: QKeyEvent) -> bool:
        return False

    def _set(self, panel: Panel, name: str, value: str, color: str = T1) -> None:
        row = self._rows.get((panel, name))
        if row is None:
            row = KeyValueRow(name, height=24)
            self._rows[(panel, name)] = row
            panel.body.setSpacing(0)
            panel.body.insertWidget(sum(1 for shown, _ in self._rows if shown is panel) - 1, row)
        row.set_value(value, color)

    def _fill_about(self) -> None:
        self._set(self.about, "Takeover", __version__)
        self._set(self.about, "Python", platform.python_version())
        for name in VERSIONS:
            try:
                self._set(self.about, name, metadata.version(name))
            except metadata.PackageNotFoundError:
                self._set(self.about, name, "not installed", T3)
        self._set(self.about, "Font", "Inter, SIL Open Font License")
        self._set(self.about, "Window toolkit", "Qt for Python, LGPL v3")
        self.about.body.addWidget(label("Not a safety-rated function: a real robot needs its own emergency stop.", T3, wrap=True))

    def refresh(self, view: Snapshot) -> None:
        """At 10-15 Hz while the page is shown."""
        self._show_devices(view)
        self._show_processes(view)
        config, client = self.controller.config, self.controller.client
        state, spec = view.state, view.spec
        self._set(self.station, "Station", config.station_id)
        self._set(self.station, "Person", config.person)
        self._set(self.station, "Workspace", config.workspace)
        self._set(self.station, "Session", client.session or "–")
        self._set(self.station, "Clock", config.clock)
        self._set(self.station, "Hold to run", "on" if config.hold_to_run else "off")
        if not config.connect:  # the station file of the bridge's computer says it, and there that is not ours
            sight = {"auto": "in simulation alone"}.get(config.line_of_sight, config.line_of_sight)
            self._set(self.station, "Line of sight", sight)
        self._set(self.station, "Commander", (state.commander or "nobody") if state else "–")
        self._set(self.station, "Command round trip", milliseconds(view.round_trip_ms))
        self._set(self.station, "Bridge", config.connect or "on this computer")
        if config.connect:
            known = client.clock_error_ns >= 0
            shown = f"{client.clock_offset_ns / 1e6:+,.1f} ± {client.clock_error_ns / 1e6:.1f} ms" if known else "–"
            self._set(self.station, "Its clock against ours", shown)
        if state is not None:
            self._set(self.station, "Refused", refused(state), T2)
            self._set(self.station, "Refused last", last_refused(state), T2)
        missed = ", ".join(f"{name} {count}" for name, count in client.frames_missed.items() if count)
        self._set(self.station, "Pictures missed", missed or "none")
        if spec is not None:
            scale = ", ".join(f"{n} {s:g} {u}" for n, s, u in zip(spec.action.names, spec.action.scale, spec.action.units, strict=True))
            self._set(self.robot, "Robot", f"{spec.robot_id}{', simulated' if spec.simulated else ''}")
            self._set(self.robot, "Task", spec.task_id)
            self._set(self.robot, "Control rate", f"{spec.control_hz:.0f} Hz, at most {spec.max_steps} steps")
            self._set(self.robot, "Action per step", scale)
            self._set(self.robot, "Cameras", ", ".join(f"{c.name} {c.width}×{c.height}" for c in spec.cameras) or "none")
            self._set(self.robot, "Own watchdog", "yes" if spec.has_watchdog else "no")
        if state is not None:
            self._set(self.robot, "Lateness p99", f"{state.lateness_p99_ms:.1f} ms, {state.steps_late} late of {state.steps_total:,}")
            self._set(self.robot, "Steps missed", str(state.steps_dropped))
            clamps = ", ".join(f"{name} {count}" for name, count in state.safety_counts.items() if count) or "none"
            self._set(self.robot, "Safety interventions", clamps)
        learner = view.learner
        if learner is not None:
            self._set(self.learner, "Recipe", learner.learner)
            self._set(self.learner, "Phase", learner.text or learner.phase)
            self._set(
                self.learner, "Updates", f"{learner.updates:,} at {learner.updates_per_s:.0f}/s, {learner.backlog_steps} steps behind"
            )
            self._set(self.learner, "Demonstrations", f"{learner.demonstrations} of {config.demonstrations}")
            self._set(self.learner, "Versions published", str(learner.versions_published))
        if view.actor is not None:
            held = " (held by a rollback)" if view.actor.pinned else ""
            self._set(self.learner, "Acting", f"v{view.actor.version}{held}, {view.actor.rate_hz:.1f} Hz, {view.actor.inference_ms:.1f} ms")
            if view.actor.refused:
                self._set(self.learner, "Refused", view.actor.refused, tokens.STOP)
        if view.evaluator is not None:
            work = f"v{view.evaluator.version}: {view.evaluator.done} of {view.evaluator.total}"
            busy = "idle" if not view.evaluator.busy else work if view.evaluator.version else "at work on the learned reward"
            self._set(self.learner, "Evaluator", "; ".join([view.evaluator.error or busy, *view.evaluator.notices]))
            if reward := reward_text(view.evaluator.reward):
                self._set(self.learner, "Learned reward", reward)

    def _show_devices(self, view: Snapshot) -> None:
        readings = self.controller.devices.all()
        while len(self._device_rows) < len(readings):
            row = DeviceRow()
            self.devices.body.insertWidget(len(self._device_rows), row)
            self._device_rows.append(row)
        driving = view.reading.device_id if view.reading is not None else ""
        for row, reading in zip(self._device_rows, readings, strict=False):
            row.show_reading(reading, reading.device_id == driving)
            row.show()
        for row in self._device_rows[len(readings) :]:
            row.hide()
        problems = self.controller.devices.problems()
        text = "\n".join(problems) or "Plug in a gamepad or SpaceMouse at any time; it appears here by itself."
        if self._device_note.text() != text:
            self._device_note.setText(text)

    def _show_processes(self, view: Snapshot) -> None:
        status = view.processes
        if status is None:
            return
        for name, state in status.states.items():
            row = self._process_rows.get(name)
            if row is None:
                button = Button("Restart")
                button.clicked.connect(lambda _=False, name=name: self._restart(name))
                row = ProcessRow(name, button)
                button.setVisible(name != "console")
                self.processes.body.insertWidget(len(self._process_rows), row)
                self._process_rows[name] = row
            count = status.restarts.get(name, 0)
            pid = status.pids.get(name, 0)
            parts = [f"pid {pid}" if pid else "", f"{count} restart{'s' if count != 1 else ''}" if count else ""]
            note = ", ".join(part for part in parts if part)
            row.show_state(state, note)

    def _restart(self, name: str) -> None:
        status = self.controller.client.processes
        state = status.states.get(name, "") if status is not None else ""
        self.controller.client.launcher("start" if state == "stopped" or state.startswith("failed") else "restart", name)
