"""Insights: how much help the policy needs, how often it succeeds alone and with help, which version to trust. From the catalog."""

import datetime
import math
from pathlib import Path
from typing import Protocol

from PySide6.QtCore import QTimer, Signal
from PySide6.QtGui import QCloseEvent, QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QStackedLayout, QVBoxLayout, QWidget

from takeover.app.console import tokens
from takeover.app.console.absorption_panel import AbsorptionPanel
from takeover.app.console.insights_panels import ChartPanel, CorrectionsPanel, Figures, LearnerPanel, Selector, VersionsPanel
from takeover.app.console.insights_store import Insights, InsightsStore, Snapshot
from takeover.app.console.models import insights_charts as charts
from takeover.app.console.models.absorption import AbsorptionView, absorption_csv
from takeover.app.console.models.insights import DEFINITIONS, WINDOW, curve_csv, share_driven_by, window_of
from takeover.app.console.models.insights_charts import Unit
from takeover.app.console.models.insights_scene import percent
from takeover.app.console.review_background import Background
from takeover.app.console.widgets import Button, EmptyState, Segmented, label
from takeover.data.schema import ActorStatus, LearnerStatus, State

POLL_MS = 2000
LIVE_MS = 500
READ_ON_MS = 50  # between two stretches of results, so that reading thousands leaves the computer to what drives


class LiveStation(Protocol):
    """What the page reads of the console's client."""

    learner: LearnerStatus | None
    actor: ActorStatus | None
    state: State | None
    round_trip_ms: float


class InsightsPage(QWidget):
    """`open_segments(ids)`: the brushed stretch's segments, to be shown in Review; `go_operate` from the empty state's button."""

    open_segments = Signal(list)
    go_operate = Signal()

    def __init__(self, workspace: Path, client: LiveStation | None = None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.store = InsightsStore(workspace)
        self.background = Background(self._failed, self)
        self.snapshot: Snapshot | None = None
        self.absorbed: AbsorptionView | None = None  # of the run that is shown
        self.unit: Unit = "episodes"
        self._client = client
        self._session = self._against = ""
        self._asked = False  # a snapshot is on its way
        self._build()
        self._poll = QTimer(self, interval=POLL_MS)
        self._poll.timeout.connect(self._refresh_when_idle)
        self._live = QTimer(self, interval=LIVE_MS)
        self._live.timeout.connect(self._show_live)
        self._more = QTimer(self, interval=READ_ON_MS, singleShot=True)
        self._more.timeout.connect(self._read_on)

    # --- layout ---

    def _build(self) -> None:
        self.rate = ChartPanel("Intervention rate", "", DEFINITIONS["rate"], brushable=True)
        self.absorption = AbsorptionPanel(str(self.store.workspace.path))
        self.success = ChartPanel("Success", "", DEFINITIONS["success"])
        self.causes = ChartPanel("Causes", ("takeovers and failures", "of segments"), DEFINITIONS["causes"])
        self.times = ChartPanel("Time to takeover", "", DEFINITIONS["time"])
        self.heldout = ChartPanel("Held-out success", "policy alone", DEFINITIONS["heldout"])
        self.effort = ChartPanel("Return on human effort", "successes", DEFINITIONS["effort"])
        self.figures, self.shares = Figures(), Figures(large=False)
        self.effort.body.insertWidget(0, self.figures)
        self.effort.body.addWidget(self.shares)
        self.learner, self.versions, self.corrections = LearnerPanel(), VersionsPanel(), CorrectionsPanel()
        self.rate.chart.brushed.connect(self._brushed)
        self.rate.chart.brush_activated.connect(self._open_brushed)
        grid = QGridLayout()
        grid.setSpacing(tokens.GUTTER)
        grid.addWidget(self.rate, 0, 0, 1, 2)
        grid.addWidget(self.absorption, 0, 2)
        for column, panel in enumerate((self.success, self.causes, self.times)):
            grid.addWidget(panel, 1, column)
            grid.setColumnStretch(column, 1)
        for column, lower in enumerate((self.heldout, self.effort, self.learner)):
            grid.addWidget(lower, 2, column)
        for row, stretch in enumerate((264, 256, 328)):
            grid.setRowStretch(row, stretch)
        side = QVBoxLayout()
        side.setSpacing(tokens.GUTTER)
        side.addWidget(self.versions, 440)
        side.addWidget(self.corrections, 416)
        below = QHBoxLayout()
        below.setSpacing(tokens.GUTTER)
        below.addLayout(grid, 1)
        below.addLayout(side)
        working = QWidget()
        column_layout = QVBoxLayout(working)
        column_layout.setContentsMargins(8, 8, 8, 8)
        column_layout.setSpacing(tokens.GUTTER)
        column_layout.addLayout(self._filters())
        column_layout.addLayout(below, 1)
        self.empty = EmptyState(
            "No episodes yet", "Curves begin with the first episode in which a policy drives. Nothing here is invented.", "Go to Operate"
        )
        if self.empty.button is not None:
            self.empty.button.clicked.connect(self.go_operate)
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self.empty)
        self._stack.addWidget(working)

    def _filters(self) -> QHBoxLayout:
        self.run, self.against = Selector("run"), Selector("against")
        self.run.currentIndexChanged.connect(self._choose)
        self.against.currentIndexChanged.connect(self._choose)
        self.axis = Segmented(["Steps", "Episodes"], 1, height=32)
        self.axis.setFixedWidth(168)
        self.axis.changed.connect(self._set_axis)
        self.png, self.csv = Button("Export PNG"), Button("Export CSV")
        self.png.clicked.connect(lambda: self._export("png"))
        self.csv.clicked.connect(lambda: self._export("csv"))
        self.message = label("", tokens.T3, 12)
        row = QHBoxLayout()
        row.setSpacing(tokens.GUTTER)
        for widget in (self.run, self.against, self.axis):
            row.addWidget(widget)
        row.addWidget(self.message, 1)
        row.addWidget(self.png)
        row.addWidget(self.csv)
        return row

    def resizeEvent(self, event: QResizeEvent) -> None:
        side = 504 if self.width() >= 1400 else 448
        self.versions.setFixedWidth(side)
        self.corrections.setFixedWidth(side)

    # --- life ---

    def activated(self) -> None:
        self.refresh()
        self._poll.start()
        self._live.start()
        self._show_live()

    def deactivated(self) -> None:
        self._poll.stop()
        self._live.stop()
        self._more.stop()

    def close_page(self) -> None:
        self.deactivated()
        self.background.submit("close", self.store.close)
        self.background.close()

    def closeEvent(self, event: QCloseEvent) -> None:
        self.close_page()

    def handle_key(self, event: QKeyEvent) -> bool:
        """The page has no keys of its own."""
        return False

    def refresh(self) -> None:
        self._asked = True
        session, against = self._session, self._against
        self.background.submit("snapshot", lambda: self.store.snapshot(session, against), self._take)

    def _refresh_when_idle(self) -> None:
        if not self._asked:  # reading on in results is no reason to wait
            self.refresh()

    def _failed(self, key: str, error: BaseException) -> None:
        self._asked = self._asked and key != "snapshot"
        self.message.setText(f"{datetime.datetime.now():%H:%M:%S} {error}")
        self.message.setToolTip(str(error))

    def _choose(self) -> None:
        self._session, self._against = str(self.run.currentData() or ""), str(self.against.currentData() or "")
        self.rate.chart.clear_brush()
        self.refresh()

    def _set_axis(self, index: int) -> None:
        self.unit = "steps" if index == 0 else "episodes"
        self.rate.chart.clear_brush()
        self._show()

    # --- showing ---

    def _take(self, snapshot: Snapshot) -> None:
        self._asked = False
        if snapshot.shown is not None:
            self._read_absorption(snapshot.shown)
        if snapshot is self.snapshot:
            return
        self.snapshot = snapshot
        shown = snapshot.shown
        self._stack.setCurrentIndex(1 if shown is not None and (shown.points or shown.heldout) else 0)
        if shown is not None and not shown.points and shown.demonstrations:
            self.empty.why.setText(
                f"{shown.demonstrations} demonstrations are recorded; curves begin with the first episode a policy drives."
            )
        choices = [(one.session_id, one.text) for one in snapshot.sessions]
        self.run.set_choices(choices, shown.session_id if shown else "")
        others = [one for one in choices if shown is None or one[0] != shown.session_id]
        self.against.set_choices([("", "none"), *others], self._against)
        self._show()

    def _read_absorption(self, shown: Insights) -> None:
        self.background.submit("absorption", lambda: self.store.absorption(shown), self._take_absorption)

    def _take_absorption(self, view: AbsorptionView) -> None:
        shown = self.snapshot.shown if self.snapshot else None
        if shown is None or view.run.session != shown.session_id:
            return  # another run was chosen meanwhile
        if view is not self.absorbed:
            self.absorbed = view
            self.absorption.show_view(view)
        if view.unread and self._poll.isActive():
            self._more.start()

    def _read_on(self) -> None:
        if self.snapshot is not None and self.snapshot.shown is not None:
            self._read_absorption(self.snapshot.shown)

    def _show(self) -> None:
        shown = self.snapshot.shown if self.snapshot else None
        if shown is None:
            return
        self._show_rate(shown)
        unit = self.unit
        self.success.set_about(f"per {window_of(len(shown.points))} episodes", f"per {window_of(len(shown.points))} ep.")
        self.success.set_note(f"n = {len(shown.points)} episodes")
        self.success.chart.set_builder(lambda w, h: charts.success_scene(w, h, shown.windows, unit))
        self.success.set_empty("" if shown.points else "No finished episodes yet.")
        labelled = sum(shown.segments.causes.values())
        ordered = sorted(shown.segments.causes.items(), key=lambda pair: -pair[1])
        self.causes.set_note(f"{labelled} of {shown.segments.flagged} labelled")
        self.causes.chart.set_builder(lambda w, h: charts.causes_scene(w, h, [(name.capitalize(), n) for name, n in ordered]))
        self.causes.set_empty("" if labelled else f"No causes yet. {shown.segments.flagged} segments wait in Review.")
        seconds = shown.segments.takeover_s
        self.times.set_note(f"n = {len(seconds)} takeovers")
        self.times.chart.set_builder(lambda w, h: charts.times_scene(w, h, seconds))
        self.times.set_empty("" if seconds else "No takeovers in this run.")
        self.heldout.set_note(f"n = {shown.heldout[-1].result.n} starts" if shown.heldout else "")
        self.heldout.chart.set_builder(lambda w, h: charts.heldout_scene(w, h, shown.heldout))
        self.heldout.set_empty("" if shown.heldout else "No version was evaluated on the held-out starts.")
        self._show_effort(shown)
        self.versions.set_rows(shown.versions)
        changed = len({point.policy_version for point in shown.points})
        self.versions.set_note(f"{changed} drove, newest first")

    def _show_rate(self, shown: Insights) -> None:
        against = self.snapshot.against if self.snapshot else None
        unit = self.unit
        excluded = f", {shown.excluded} excluded" if shown.excluded else ""
        excluded += f", {shown.alone} probes and evaluations apart" if shown.alone else ""
        drove = share_driven_by(shown.operators)
        self.rate.set_about(
            f"{drove}, last {WINDOW} episodes, 95 % band over episodes",
            f"{drove}, last {WINDOW} episodes",
            f"{drove}, last {WINDOW} ep.",
            drove,
        )
        counted = f"n = {len(shown.points)} episodes"
        steps = f"{counted}, {shown.steps[-1] if shown.steps else 0:,} steps"
        self.rate.set_notes(f"{steps}{excluded}", steps, counted)
        name = (
            next((one.text for one in self.snapshot.sessions if against and one.session_id == against.session_id), "")
            if self.snapshot
            else ""
        )
        self.rate.chart.set_builder(
            lambda w, h: charts.rate_scene(w, h, shown.rate, shown.marks, unit, against.rate if against else None, name),
            lambda value: self._reading(shown, value),
        )
        self.rate.set_empty("" if shown.points else "No finished episodes yet.")

    def _reading(self, shown: Insights, value: float) -> str:
        curve = shown.rate
        places = curve.steps if self.unit == "steps" else curve.episodes
        if not places or value < places[0] - (places[-1] - places[0]) / 50:
            return ""
        index = min(range(len(places)), key=lambda i: abs(places[i] - value))
        version = shown.points[curve.episodes[index] - 1].policy_version
        band = f"{100 * curve.low[index]:.0f}–{100 * curve.high[index]:.0f} %"
        return f"episode {curve.episodes[index]}, step {curve.steps[index]:,}: {percent(curve.value[index])} ({band}), v{version}"

    def _show_effort(self, shown: Insights) -> None:
        value = shown.effort.value[-1] if shown.effort.value else math.nan
        driven = "driven by the script" if shown.operators == ["scripted"] else "driven by people"
        if len(shown.operators) > 1 and "scripted" in shown.operators:
            driven = "driven by people and script"
        self.figures.set_values(
            [
                ("–" if math.isnan(value) else f"{value:.0f}", "per 1,000 human steps"),
                (_minutes(shown.human_s), driven),
            ]
        )
        total = shown.human_s + shown.watched_s
        self.shares.set_values(
            [
                (_minutes(shown.watched_s), "policy drove"),
                (_minutes(total), "robot time"),
                (str(shown.demonstrations), "demos"),
                (str(shown.segments.safety), "safety holds"),
            ]
        )
        unit = self.unit
        self.effort.chart.set_builder(lambda w, h: charts.effort_scene(w, h, shown.effort, unit))

    def _show_live(self) -> None:
        client = self._client
        if client is None:
            self.learner.show_status(None, None, None, -1.0)
            self.corrections.show_status(None)
            return
        self.learner.show_status(client.learner, client.actor, client.state, client.round_trip_ms)
        self.corrections.show_status(client.learner)

    # --- brush and export ---

    def brushed_segments(self) -> list[str]:
        """Ids of the segments in the brushed stretch of episodes."""
        shown = self.snapshot.shown if self.snapshot else None
        if shown is None or self.rate.chart.brush is None:
            return []
        low, high = self.rate.chart.brush
        places = shown.steps if self.unit == "steps" else range(1, len(shown.points) + 1)
        inside = {point.episode_id for point, place in zip(shown.points, places, strict=True) if low <= place <= high}
        pairs = zip(shown.segments.ids, shown.segments.episode_ids, strict=True)
        return [identity for identity, episode_id in pairs if episode_id in inside]

    def _brushed(self, low: float, high: float) -> None:
        found = len(self.brushed_segments())
        self.rate.chart.set_brush_text(f"{found} segment{'' if found == 1 else 's'}: open in Review" if found else "no segments here")

    def _open_brushed(self) -> None:
        found = self.brushed_segments()
        if found:
            self.open_segments.emit(found)

    def export_png(self, path: Path) -> None:
        """The page as it stands. Raises OSError when it cannot be written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.grab().save(str(path), "PNG"):
            raise OSError(f"cannot write {path}")

    def export_csv(self, path: Path) -> list[Path]:
        """One row per episode of the shown run with the curve's values; where versions' absorption was measured, a second file with a row
        per version. What was written. Raises OSError."""
        shown = self.snapshot.shown if self.snapshot else None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(curve_csv(shown.points if shown else []), encoding="utf-8", newline="")
        if shown is None or self.absorbed is None or self.absorbed.run.session != shown.session_id or not self.absorbed.points:
            return [path]
        beside = path.with_name(f"{path.stem}-absorption.csv")
        beside.write_text(absorption_csv(self.absorbed.points), encoding="utf-8", newline="")
        return [path, beside]

    def _export(self, kind: str) -> None:
        stamp = f"{datetime.datetime.now():%Y%m%d-%H%M%S}"
        path = self.store.workspace.path / "exports" / f"insights-{stamp}.{kind}"
        try:
            made = [path] if kind == "png" else self.export_csv(path)
            if kind == "png":
                self.export_png(path)
        except OSError as error:
            self._failed("export", error)
            return
        self.message.setText(f"Saved exports/{' and '.join(one.name for one in made)} in the workspace")
        self.message.setToolTip("\n".join(str(one) for one in made))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"
