"""Panels of the Insights page: charts with definition and n, key figures, the run selector, learner and latency."""

import math
from collections.abc import Sequence

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QComboBox, QWidget

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon
from takeover.app.console.models.insights import VersionRow
from takeover.app.console.models.insights_scene import percent
from takeover.app.console.plots import ChartView
from takeover.app.console.widgets import Panel, TableView, draw_text, text_width
from takeover.data.schema import ActorStatus, LearnerStatus, State


class ChartPanel(Panel):
    """A chart with title, what it shows, n at the right, its definition on hover; a reason instead of the chart when it is empty."""

    def __init__(
        self, title: str, about: str | Sequence[str] = "", definition: str = "", brushable: bool = False, parent: QWidget | None = None
    ) -> None:
        super().__init__(title, parent=parent, header=32)
        self._about = [about] if isinstance(about, str) else list(about)
        self._notes: tuple[str, ...] = ()
        self._empty = ""
        self.chart = ChartView(brushable)
        self.setToolTip(definition)
        self.body.setContentsMargins(12, self.header, 12, 8)
        self.body.addWidget(self.chart, 1)

    def set_about(self, *about: str) -> None:
        """What is shown, longest wording first: the first that fits is used, none is cut off."""
        if list(about) != self._about:
            self._about = list(about)
            self.update()

    def set_notes(self, *notes: str) -> None:
        """As `set_note`, longest wording first: the first that leaves room for the title is shown."""
        self._notes = notes
        self._fit_note()

    def _fit_note(self) -> None:
        room = self.width() - 36 - text_width(self._title, 12, tokens.SEMIBOLD)
        if self._notes:
            self.set_note(next((note for note in self._notes if text_width(note) <= room), self._notes[-1]))

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._fit_note()

    def set_empty(self, reason: str) -> None:
        """Why there is nothing to show; empty: there is."""
        if reason != self._empty or self.chart.isVisible() == bool(reason):
            self._empty = reason
            self.chart.setVisible(not reason)
            self.update()

    @property
    def empty(self) -> str:
        return self._empty

    def paint_body(self, painter: QPainter) -> None:
        if self._about:
            start = 12 + text_width(self._title, 12, tokens.SEMIBOLD) + 12
            room = self.width() - start - 12 - text_width(self._note) - 12
            fitting = next((about for about in self._about if text_width(about) <= room), "")
            draw_text(painter, QRectF(start, 0, room, self.header), fitting, tokens.T3, 12)
        if self._empty:
            area = QRectF(24, self.header, self.width() - 48, self.height() - self.header - 12)
            painter.setFont(tokens.font(12))
            painter.setPen(QColor(tokens.T3))
            painter.drawText(area, int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap), self._empty)


class Figures(QWidget):
    """Key figures side by side: a large value with its unit below. ``large`` False: small note above, value below."""

    def __init__(self, large: bool = True, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._large = large
        self.values: list[tuple[str, str]] = []
        self.setFixedHeight(44 if large else 40)

    def set_values(self, values: Sequence[tuple[str, str]]) -> None:
        """(value, meaning) pairs."""
        if list(values) != self.values:
            self.values = list(values)
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        if not self._large:
            painter.fillRect(QRectF(0, 0, self.width(), 1), QColor(tokens.LINE))
        shown = self.values
        while not self._large and len(shown) > 1:
            share = self.width() / len(shown)
            if all(text_width(text, 12) + 8 <= share for pair in shown for text in pair):
                break
            shown = shown[:-1]  # half a figure is worse than none
        share = self.width() / max(1, len(shown))
        x = 0.0
        for value, meaning in shown:
            if self._large:
                width = max(text_width(meaning, 11), text_width(value, 20, tokens.MEDIUM)) + 24
                if x + width - 24 > self.width():
                    break  # half a figure is worse than none
                draw_text(painter, QRectF(x, 0, width, 24), value, tokens.T1, 20, tokens.MEDIUM)
                draw_text(painter, QRectF(x, 24, width, 16), meaning, tokens.T3, 11)
                x += width
            else:
                draw_text(painter, QRectF(x, 8, share - 8, 16), meaning, tokens.T3, 11)
                draw_text(painter, QRectF(x, 24, share - 8, 16), value, tokens.T1, 12)
                x += share


class Selector(QComboBox):
    """A combo box that shows what it selects: "run  20 Nov 14:02, ..."."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name = name
        self.setFixedHeight(32)
        self.setFont(tokens.font(12))
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)

    def sizeHint(self) -> QSize:
        return QSize(int(text_width(f"{self._name}  {self.currentText()}") + 56), 32)

    def set_choices(self, choices: Sequence[tuple[str, str]], current: str) -> None:
        """(id, text) pairs; keeps quiet while it changes."""
        fresh = list(choices)
        present = [(str(self.itemData(row)), self.itemText(row)) for row in range(self.count())]
        self.blockSignals(True)
        if fresh != present:
            self.clear()
            for identity, text in fresh:
                self.addItem(text, identity)
        row = next((row for row, (identity, _) in enumerate(fresh) if identity == current), 0)
        self.setCurrentIndex(row)
        self.blockSignals(False)
        self.updateGeometry()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(tokens.CONTROL), 1))
        painter.setBrush(QColor(tokens.BG))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), tokens.RADIUS, tokens.RADIUS)
        width = text_width(self._name) + 6
        draw_text(painter, QRectF(8, 0, width, 32), self._name, tokens.T3, 12)
        draw_text(painter, QRectF(8 + width, 0, self.width() - width - 34, 32), self.currentText(), tokens.T1, 12)
        draw_icon(painter, "down", self.width() - 20, 10, 12, tokens.T3, 2)


class VersionsPanel(Panel):
    """A row per policy version (or stretch of versions): episodes, success alone with its interval, with help, intervention rate."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Policy versions", "newest first", parent=parent)
        self.body.setContentsMargins(0, self.header, 0, 8)
        columns = [("drove", 0, False), ("episodes", 58, True), ("alone", 46, True), ("95 %", 72, True), ("with help", 62, True)]
        self.table = TableView([*columns, ("rate", 46, True), ("95 %", 70, True)])
        self.body.addWidget(self.table)
        self.body.addStretch(1)

    def set_rows(self, rows: Sequence[VersionRow]) -> None:
        self.table.set_rows(
            [
                [
                    row.name,
                    str(row.episodes),
                    _share(row.alone.value),
                    _range(row.alone.interval) if row.alone.n else "",
                    _share(row.helped.value),
                    percent(row.rate),
                    _range((row.rate_low, row.rate_high)) if row.episodes > 1 and row.human_steps else "–",
                ]
                for row in rows
            ]
        )


def _share(value: float) -> str:
    return "–" if math.isnan(value) else percent(value)


def _range(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.0f}–{100 * interval[1]:.0f} %"


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value at or below which ``share`` of them lie; NaN for none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


class LearnerPanel(Panel):
    """Updates, data, corrections to weights, control lateness: of the running station, or a line that none runs."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Learner and latency", "live", parent=parent)
        self.pairs: list[tuple[str, str]] = []
        self.times: list[tuple[str, str, str, str]] = []

    def show_status(self, learner: LearnerStatus | None, actor: ActorStatus | None, state: State | None, round_trip_ms: float) -> None:
        self.pairs, self.times = learner_rows(learner, actor, state, round_trip_ms), latency_rows(learner)
        self.set_note("live" if self.pairs else "")
        self.update()

    def paint_body(self, painter: QPainter) -> None:
        if not self.pairs:
            area = QRectF(24, self.header, self.width() - 48, self.height() - self.header - 12)
            painter.setFont(tokens.font(12))
            painter.setPen(QColor(tokens.T3))
            flags = int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap)
            painter.drawText(area, flags, "No learner is running on this station.\nIts updates and times appear here while one is.")
            return
        y = float(self.header)
        for name, value in self.pairs:
            draw_text(painter, QRectF(12, y, self.width() - 24, 24), name, tokens.T2, 12)
            room = self.width() - 24 - text_width(name) - 12
            draw_text(painter, QRectF(self.width() - 12 - room, y, room, 24), value, tokens.T1, 12, tokens.MEDIUM, _RIGHT)
            y += 24
        if not self.times:
            return
        painter.fillRect(QRectF(12, y + 7, self.width() - 24, 1), QColor(tokens.LINE))
        y += 12
        for index, row in enumerate([("correction", "p50", "p95", "target"), *self.times]):
            for column, text in enumerate(row):
                ink = tokens.T3 if not index or column == 3 else tokens.T1 if column == 2 else tokens.T2
                if column == 0:
                    draw_text(painter, QRectF(12, y, self.width() - 174, 24), text, tokens.T2 if index else tokens.T3, 12 if index else 11)
                else:
                    right = self.width() - 12 - (3 - column) * 50
                    draw_text(painter, QRectF(right - 48, y, 48, 24), text, ink, 12 if index else 11, align=_RIGHT)
            y += 24


_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


def learner_rows(
    learner: LearnerStatus | None, actor: ActorStatus | None, state: State | None, round_trip_ms: float
) -> list[tuple[str, str]]:
    """(name, value) pairs; empty without a learner."""
    if learner is None:
        return []
    steps = state.train_steps if state else learner.finished_train_step + 1
    rows = [
        ("Learner", f"{learner.learner}, {learner.phase}" + (f" {100 * learner.progress:.0f} %" if learner.phase == "cloning" else "")),
        ("Updates", f"{learner.updates:,}, {learner.updates_per_s:.0f} per s"),
        ("Updates to data", _updates_to_data(learner, steps)),
        ("Versions", f"{learner.versions_published} published, newest v{learner.newest_version}"),
    ]
    if actor is not None:
        rows.append(("Driving", f"v{actor.version}, {actor.rate_hz:.1f} Hz, {actor.inference_ms:.1f} ms"))
    if state is not None:
        rows.append(("Control lateness, p99", f"{state.lateness_p99_ms:.1f} ms, target 10"))
        if state.picture_age_ms:
            rows.append(("Picture age, now", f"{max(state.picture_age_ms.values()):.0f} ms"))
    if round_trip_ms >= 0:
        rows.append(("Command round trip, now", f"{round_trip_ms:.1f} ms"))
    return rows


def _updates_to_data(learner: LearnerStatus, steps: int) -> str:
    ratio = f"{(learner.updates - learner.extra_updates) / steps:.2f} per step, " if steps > 0 else ""
    extra = f"{learner.extra_updates:,} more in resets, " if learner.extra_updates else ""
    return f"{ratio}{extra}backlog {learner.backlog_steps}"


def latency_rows(learner: LearnerStatus | None) -> list[tuple[str, str, str, str]]:
    """(correction to what, p50, p95, target), seconds; nothing is shown that was not measured."""
    rows: list[tuple[str, str, str, str]] = []
    if learner is not None:
        for name, values, target in (
            ("to batch", learner.correction_to_batch_s, "1 s"),
            ("to acting", learner.correction_to_acting_s, "5 s"),
        ):
            if values:
                rows.append((f"{name}, n {len(values)}", f"{quantile(values, 0.5):.1f} s", f"{quantile(values, 0.95):.1f} s", target))
    return rows


class CorrectionsPanel(Panel):
    """The newest corrections and when they reached the learner and the robot."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Corrections", "newest first", parent=parent)
        self.body.setContentsMargins(0, self.header, 0, 8)
        columns = [("episode", 0, False), ("length", 72, True), ("in update", 88, True), ("after", 64, True), ("acting", 72, True)]
        self.table = TableView([*columns, ("after", 64, True)])
        self.body.addWidget(self.table)
        self.body.addStretch(1)
        self._reason = "Corrections appear here while the learner runs,\nwith when they reached it and the robot."

    def show_status(self, learner: LearnerStatus | None) -> None:
        rows = learner.corrections if learner else []
        most = max(1, (self.height() - self.header - 30) // 24)
        self.table.set_rows([correction_row(one) for one in list(reversed(rows))[:most]])
        self.table.setVisible(bool(rows))
        self.update()

    def paint_body(self, painter: QPainter) -> None:
        if not self.table.rows:
            area = QRectF(24, self.header, self.width() - 48, self.height() - self.header - 12)
            painter.setFont(tokens.font(12))
            painter.setPen(QColor(tokens.T3))
            painter.drawText(area, int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap), self._reason)


def correction_row(one: dict[str, float | str]) -> list[str]:
    """What is known of one correction; a dash for what is not yet."""

    def number(name: str, form: str) -> str:
        value = one.get(name)
        return form.format(float(value)) if isinstance(value, int | float) and value >= 0 else "–"

    return [
        number("episode_number", "{:.0f}"),
        number("length_s", "{:.1f} s"),
        number("update", "{:,.0f}"),
        number("to_batch_s", "{:.1f} s"),
        number("version", "v{:.0f}"),
        number("to_acting_s", "{:.1f} s"),
    ]
