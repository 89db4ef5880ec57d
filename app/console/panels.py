"""The panels of the Operate page: episode, gate, learner, intervention rate."""

import math
from collections.abc import Sequence

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QWidget

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon
from takeover.app.console.models import strip as strip_model
from takeover.app.console.models.episode import EpisodeView
from takeover.app.console.models.gate import Gate
from takeover.app.console.models.learner_card import LearnerCard
from takeover.app.console.models.rate import Rate
from takeover.app.console.tokens import MEDIUM, REGULAR, SEMIBOLD, T1, T2, T3
from takeover.app.console.widgets import CENTER, RIGHT, Button, Panel, draw_key_cap, draw_runs, draw_text, key_cap_width, text_width

_SEGMENT = {
    strip_model.POLICY: tokens.POLICY,
    strip_model.PERSON: tokens.TAKEOVER,
    strip_model.RAMP: tokens.TAKEOVER,
    strip_model.HELD: tokens.HOLD,
    strip_model.STOPPED: tokens.STOP,
}


class EpisodePanel(Panel):
    """Progress of the running episode by who drove, and the outcome buttons. 208 px high."""

    act = Signal(str)  # "success", "failure", "redo", "veto", "finish"

    def __init__(self) -> None:
        super().__init__("Episode", padding=0)
        self._view: EpisodeView | None = None
        self._drivers: list[tuple[float, float, int]] = []
        self.success = Button("Success")
        self.failure = Button("Failure")
        self.redo = Button("Redo")
        self.veto = Button("Veto", ["V"])
        self.veto.setVisible(False)
        self.body.addStretch(1)
        row = QHBoxLayout()
        row.setContentsMargins(12, 0, 12, 34)
        row.setSpacing(8)
        for button, name in ((self.success, "success"), (self.failure, "failure"), (self.redo, "redo"), (self.veto, "veto")):
            row.addWidget(button)
            button.clicked.connect(lambda _=False, name=name: self.act.emit(name))
        self.body.addLayout(row)

    def show_episode(self, view: EpisodeView, drivers: Sequence[tuple[float, float, int]], collecting: bool) -> None:
        """``drivers``: (from, to, who) as shares of the step limit."""
        crowded = collecting or view.can_veto  # three buttons leave no room for their keys; the key bar has them
        self.success.set_keys([] if crowded else [view.success_key])
        self.failure.set_keys([] if crowded else [view.failure_key])
        for button in (self.success, self.failure):
            button.setEnabled(view.can_judge)
        self.redo.setVisible(collecting)
        self.veto.setVisible(view.can_veto and not collecting)
        self.redo.setEnabled(view.can_redo)
        if view != self._view or list(drivers) != self._drivers:
            self._view, self._drivers = view, list(drivers)
            self.set_title(view.title, view.note)
            self.update()

    def paint_body(self, painter: QPainter) -> None:
        view = self._view
        if view is None:
            return
        width = self.width() - 24
        draw_text(painter, QRectF(12, 32, width, 16), view.prompt, T2)
        bar = QRectF(12, 58, width, 8)
        painter.fillRect(bar, QColor(tokens.LINE))
        for start, end, who in self._drivers:
            if who in _SEGMENT:
                painter.fillRect(QRectF(bar.x() + start * width, bar.y(), max(1.0, (end - start) * width), 8), QColor(_SEGMENT[who]))
        for i, (name, value) in enumerate(view.rows):
            row = QRectF(12, 72 + 20 * i, width, 24)
            draw_text(painter, row, name, T2)
            draw_text(painter, row, value, T1, 12, MEDIUM, RIGHT)
        if view.to_go >= 0.0:  # fills up as the steps to go run out
            left = 12 + text_width(view.rows[-1][0]) + 12
            room = max(0.0, self.width() - 24 - left - text_width(view.rows[-1][1], 12, MEDIUM))
            painter.fillRect(QRectF(left, 123, room, 2), QColor(tokens.LINE))
            painter.fillRect(QRectF(left, 123, room * (1.0 - view.to_go), 2), QColor(T1))
        y = self.height() - 28
        draw_text(painter, QRectF(12, y, width - 90, 18), view.hint, T3, 11)
        undo = text_width("undo", 11)
        draw_text(painter, QRectF(12, y, width, 18), "undo", T3, 11, REGULAR, RIGHT)
        draw_key_cap(painter, 12 + width - undo - 6 - key_cap_width("Ctrl+Z"), y + 9, "Ctrl+Z")


class GatePanel(Panel):
    """What must be true before the robot may move; rows are 23 px, in a low panel only the failed ones."""

    def __init__(self) -> None:
        super().__init__("Start gate")
        self._gate: Gate | None = None

    def show_gate(self, gate: Gate) -> None:
        if gate != self._gate:
            self._gate = gate
            self.set_title(gate.title, gate.note)
            self.setAccessibleDescription("; ".join(f"{row.name}: {row.value}" for row in gate.rows if not row.ok))
            self.update()

    def paint_body(self, painter: QPainter) -> None:
        if self._gate is None:
            return
        room = int((self.height() - 32 - 4) // 23)
        rows = list(self._gate.rows)
        if len(rows) > room:
            rows = sorted(rows, key=lambda row: row.ok)[:room]
        for i, row in enumerate(rows):
            y = 32 + 23 * i
            fault = not row.ok and not row.pending
            ink = tokens.STOP if fault else T2
            if fault:
                painter.fillRect(QRectF(0, y, self.width(), 23), QColor(tokens.FAULT_ROW))
            draw_icon(painter, "check" if row.ok else "xcirc" if fault else "dots", 12, y + 4.5, 14, ink, 2.2)
            draw_text(painter, QRectF(34, y, 130, 23), row.name, ink)
            left = 34 + text_width(row.name) + 10
            value = QRectF(left, y, self.width() - 12 - left, 23)
            draw_text(painter, value, row.value, tokens.STOP if fault else T1, 12, SEMIBOLD if fault else REGULAR, RIGHT)


class LearnerPanel(Panel):
    """Which version acts, and when each correction reached the learner and the robot."""

    act = Signal(str)  # "review"

    def __init__(self) -> None:
        super().__init__("Learner", padding=0)
        self._card: LearnerCard | None = None
        self._last = ""
        self.review = Button("Relabel")
        self.discard = Button("Discard")
        self.discard.setToolTip("Take the newest correction out of training, or put it back")
        self.review.setToolTip("Open the newest correction in Review")
        self.body.addStretch(1)
        row = QHBoxLayout()
        row.setContentsMargins(12, 0, 12, 12)
        row.setSpacing(8)
        row.addWidget(self.discard)
        row.addWidget(self.review)
        self.body.addLayout(row)
        self.review.clicked.connect(lambda: self.act.emit("review"))
        self.discard.clicked.connect(lambda: self.act.emit("discard"))

    def show_card(self, card: LearnerCard) -> None:
        if card != self._card:
            self._card = card
            self.set_note(card.note)
            self.update()

    def show_last(self, name: str, discarded: bool) -> None:
        """The newest correction that can be acted on, its row lit; empty: none."""
        if name != self._last:
            self._last = name
            self.update()
        self.discard.setText(f"{'Restore' if discarded else 'Discard'} {name}".rstrip())
        self.review.setText(f"Relabel {name}".rstrip())
        for button in (self.discard, self.review):
            button.setEnabled(bool(name))

    def resizeEvent(self, event: QResizeEvent) -> None:
        for button in (self.discard, self.review):
            button.setVisible(self.height() >= 230)

    def paint_body(self, painter: QPainter) -> None:
        card = self._card
        if card is None:
            return
        width = self.width() - 24
        for x, name, value in ((12.0, "acting", card.acting), (90.0, "newest", card.newest)):
            draw_text(painter, QRectF(x, 32, 80, 16), name, T3, 11)
            draw_text(painter, QRectF(x, 48, 90, 24), value, T1, 20, MEDIUM)
        draw_text(painter, QRectF(12, 32, width, 16), "updates", T3, 11, REGULAR, RIGHT)
        draw_text(painter, QRectF(12, 48, width, 24), card.updates, T1, 20, MEDIUM, RIGHT)
        if self.height() < 120:
            return
        painter.fillRect(QRectF(12, 84, width, 1), QColor(tokens.LINE))
        pieces = ((card.error, True),) if card.error else card.sentence
        y = self._sentence(painter, 94.0, pieces, tokens.STOP if card.error else T1)
        if card.progress is not None:
            draw_text(painter, QRectF(12, y + 4, width, 16), card.progress_text, T2, 12)
            painter.fillRect(QRectF(12, y + 26, width, 6), QColor(tokens.LINE))
            painter.fillRect(QRectF(12, y + 26, width * max(0.0, min(1.0, card.progress)), 6), QColor(T1))
            return
        self._table(painter, y + 4)

    def _sentence(self, painter: QPainter, y: float, pieces: Sequence[tuple[str, bool]], strong: str) -> float:
        """Words wrapped by hand, as weights differ within the line."""
        x, limit = 12.0, self.width() - 12.0
        for text, bold in pieces:
            weight, ink = (MEDIUM, strong) if bold else (REGULAR, T2)
            words = [text] if bold and text_width(text, 12, weight) < 120 else text.split(" ")
            for i, word in enumerate(words):
                part = word if i == len(words) - 1 else word + " "
                needed = text_width(part, 12, weight)
                if x + text_width(word.rstrip(), 12, weight) > limit and x > 12:
                    x, y = 12.0, y + 18
                    part = part.lstrip()
                    needed = text_width(part, 12, weight)
                draw_runs(painter, x, QRectF(0, y, self.width(), 18), [(part, ink, weight)])
                x += needed
        return y + 22

    def _table(self, painter: QPainter, y: float) -> None:
        card = self._card
        bottom = self.height() - (52 if self.review.isVisible() else 8)
        if card is None or not card.rows or y + 42 > bottom:
            return
        columns = (("ep.", 12.0, 40.0, False), ("length", 52.0, 62.0, True), ("in, s", 114.0, 54.0, True), ("acts, s", 168.0, 58.0, True))
        last = (self.width() - 12 - 70.0, 70.0)
        for title, x, width, right in columns:
            draw_text(painter, QRectF(x, y, width, 18), title, T3, 11, REGULAR, RIGHT if right else Qt.AlignmentFlag.AlignVCenter)
        draw_text(painter, QRectF(last[0], y, last[1], 18), "version", T3, 11, REGULAR, RIGHT)
        y += 18
        lit = next((i for i, row in enumerate(card.rows) if row.episode == self._last), -1)
        for i, row in enumerate(card.rows):
            if y + 24 > bottom:
                break
            if i == lit:
                painter.fillRect(QRectF(0, y, self.width(), 24), QColor(tokens.RAISED))
            values = (row.episode, row.length, row.in_batch, row.acts)
            for (_, x, width, right), value in zip(columns, values, strict=True):
                ink = T1 if x == 12.0 else T2
                draw_text(painter, QRectF(x, y, width, 24), value, ink, 12, REGULAR, RIGHT if right else Qt.AlignmentFlag.AlignVCenter)
            draw_text(painter, QRectF(last[0], y, last[1], 24), row.version, T1, 12, REGULAR, RIGHT)
            y += 24


class RatePanel(Panel):
    """Share of steps by a person over the last 20 policy episodes, bars per episode, dashed mean."""

    def __init__(self) -> None:
        super().__init__("Intervention rate", "last 20 episodes", header=28)
        self._rate = Rate()
        self.setToolTip(
            "Steps by a person (ramps included, holds excluded) over all steps of the last 20 policy episodes; 95 % Wilson on episodes"
        )

    def show_rate(self, rate: Rate, scripted: bool = False) -> None:
        """``scripted``: the corrections are a script's, not a person's."""
        self.set_note("last 20 episodes, scripted" if scripted else "last 20 episodes")
        if rate != self._rate:
            self._rate = rate
            self.update()

    def paint_body(self, painter: QPainter) -> None:
        rate = self._rate
        if not rate.episodes:
            draw_text(painter, QRectF(12, 28, self.width() - 24, self.height() - 40), "no policy episode yet", T3, 12, REGULAR, CENTER)
            return
        draw_text(painter, QRectF(12, 30, 100, 24), f"{100 * rate.mean:.0f} %", T1, 20, MEDIUM)
        draw_text(painter, QRectF(12, 54, 100, 16), f"of {rate.steps:,} steps", T3, 11)
        draw_text(painter, QRectF(116, 30, 150, 24), f"{rate.with_takeover} of {rate.episodes}", T1, 20, MEDIUM)
        interval = f"episodes, 95 %: {100 * rate.low:.0f}–{100 * rate.high:.0f} %"
        draw_text(painter, QRectF(116, 54, self.width() - 124, 16), interval, T3, 11)
        plot = QRectF(40, 84, self.width() - 40 - 16, self.height() - 84 - 26)
        if plot.height() < 20:
            return
        top = max(0.1, math.ceil(max(rate.shares) * 10) / 10)
        for share in (0.0, 0.5, 1.0):
            y = plot.bottom() - share * plot.height()
            painter.fillRect(QRectF(plot.x(), round(y), plot.width(), 1), QColor(tokens.GRID))
            draw_text(painter, QRectF(0, y - 8, 34, 16), f"{100 * top * share:.0f}", T3, 11, REGULAR, RIGHT)
        slot = plot.width() / 20
        for i, share in enumerate(rate.shares):
            x = plot.x() + 2 + (20 - rate.episodes + i) * slot
            height = max(2.0, share / top * plot.height())
            painter.fillRect(QRectF(x, plot.bottom() - height, slot - 4, height), QColor(T2 if share else tokens.KEY_BORDER))
        y = plot.bottom() - rate.mean / top * plot.height()
        painter.setPen(QPen(QColor(tokens.TAKEOVER), 1, Qt.PenStyle.CustomDashLine))
        pen = painter.pen()
        pen.setDashPattern([4, 3])
        painter.setPen(pen)
        painter.drawLine(int(plot.x()), round(y), int(plot.right()), round(y))
        axis = QRectF(plot.x(), plot.bottom() + 6, plot.width(), 16)
        first = plot.x() + 2 + (20 - rate.episodes) * slot
        if rate.episodes > 4:
            draw_text(painter, QRectF(min(first, plot.right() - 60), axis.y(), 60, 16), str(rate.numbers[0]), T3, 11)
        draw_text(painter, axis, str(rate.numbers[-1]), T3, 11, REGULAR, RIGHT)
        if rate.episodes > 12:
            draw_text(painter, axis, "episode", T3, 11, REGULAR, CENTER)


class HoldButton(Button):
    """Acts only after it was held for ``hold_s``; fills while it is held. Given ``hold_s`` 0 it is an ordinary button."""

    held = Signal()

    def __init__(
        self, text: str, keys: Sequence[str] = (), kind: str = "normal", hold_s: float = 0.0, parent: QWidget | None = None
    ) -> None:
        super().__init__(text, keys, kind, parent=parent)
        self.hold_s = hold_s
        self._share = 0.0
        self._timer_id = 0
        self.pressed.connect(self._begin)
        self.released.connect(self._end)

    def _begin(self) -> None:
        if self.hold_s:
            self._share = 0.0
            self._timer_id = self.startTimer(50)
        else:
            self.held.emit()

    def _end(self) -> None:
        if self._timer_id:
            self.killTimer(self._timer_id)
            self._timer_id = 0
        self._share = 0.0
        self.update()

    def timerEvent(self, event: object) -> None:
        self._share += 0.05 / self.hold_s
        if self._share >= 1.0:
            self._end()
            self.held.emit()
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if self._share > 0:
            painter = QPainter(self)
            painter.fillRect(QRectF(2, self.height() - 6, (self.width() - 4) * min(1.0, self._share), 4), QColor(tokens.STOP))
