"""Rows of the Review page: title, transport, footer."""

from PySide6.QtCore import QRectF
from PySide6.QtGui import QPainter
from PySide6.QtWidgets import QHBoxLayout, QWidget

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon
from takeover.app.console.models.review import ReviewItem, ReviewTotals
from takeover.app.console.models.review_playhead import Playhead
from takeover.app.console.widgets import RIGHT, Button, KeyHints, Panel, Segmented, draw_text, text_width

SPEED_NAMES = ("0.25×", "0.5×", "1×", "2×", "4×")


class TitleRow(Panel):
    """What is being looked at, in one line."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setFixedHeight(40)
        self._item: ReviewItem | None = None
        self._extra = ""

    def set_item(self, item: ReviewItem | None, extra: str = "") -> None:
        self._item, self._extra = item, extra
        self.update()

    def paint_body(self, painter: QPainter) -> None:
        if self._item is None:
            return
        item = self._item
        draw_icon(painter, item.icon, 12, 11, 18, tokens.T2)
        title = f"{item.title}, episode {item.episode_number}"
        width = text_width(title, 15, tokens.SEMIBOLD) + 4
        draw_text(painter, QRectF(38, 0, width, 40), title, tokens.T1, 15, tokens.SEMIBOLD)
        version = f"policy v{item.policy_version}" if item.policy_version else ""
        device = self._extra if self._extra != item.operator else ""  # the script is its own device
        parts = [part for part in (item.task, version, item.operator, device, item.started) if part]
        right = "excluded" if item.labels.get("exclude") == "true" else "flagged" if item.flagged else item.outcome
        right_width = text_width(right) + 4
        room = self.width() - 38 - width - 20 - right_width - 24
        draw_text(painter, QRectF(38 + width + 16, 0, room, 40), "  ·  ".join(parts), tokens.T3, 12)
        draw_text(painter, QRectF(self.width() - 12 - right_width, 0, right_width, 40), right, tokens.T2, 12, align=RIGHT)


class TransportRow(Panel):
    """Time, play button, speed, key hints. Paints the time itself so that playback does not re-lay anything out."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setFixedHeight(40)
        self.body.setContentsMargins(0, 0, 0, 0)
        row = QHBoxLayout()
        row.setContentsMargins(148, 4, 8, 4)
        row.setSpacing(12)
        self.play = Button("Play", ["K"])
        self.play.setFixedWidth(92)
        self.speed = Segmented(SPEED_NAMES, 2)
        self.speed.setFixedWidth(224)
        row.addWidget(self.play)
        row.addWidget(self.speed)
        row.addWidget(KeyHints([("J", "back"), ("L", "faster"), ("← →", "frame"), ("Shift", "1 s")], [("Z", "undo")]), 1)
        self.body.addLayout(row)
        self._text = ("", "")

    def set_playhead(self, playhead: Playhead | None, speeds: tuple[float, ...]) -> None:
        if playhead is None:
            text = ("–", "")
        else:
            text = (f"{playhead.position_s:.2f} s", f"of {playhead.duration_s:.2f} s")
            self.speed.set_index(speeds.index(playhead.speed))
            self.play.setText("Pause" if playhead.playing else "Play")
        self.play.setEnabled(playhead is not None)
        if text != self._text:
            self._text = text
            self.update()

    def paint_body(self, painter: QPainter) -> None:
        draw_text(painter, QRectF(12, 0, 64, 40), self._text[0], tokens.T1, 15, tokens.MEDIUM)
        draw_text(painter, QRectF(80, 0, 72, 40), self._text[1], tokens.T3, 12)


class FooterRow(Panel):
    """Done today, median seconds each, open, causes so far."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setFixedHeight(64)
        self._totals = ReviewTotals(0, None, 0, {})
        self.body.setContentsMargins(0, 0, 0, 0)

    @property
    def totals(self) -> ReviewTotals:
        return self._totals

    def set_totals(self, totals: ReviewTotals) -> None:
        self._totals = totals
        self.update()

    def paint_body(self, painter: QPainter) -> None:
        totals = self._totals
        median = "–" if totals.median_s is None else f"{totals.median_s:.1f} s each"
        cells = [("Done today", str(totals.done_today), 112), ("Median", median, 112), ("Open", f"{totals.open:,}", 96)]
        x = 12.0
        for name, value, width in cells:
            self._cell(painter, x, name, value, width)
            x += width
        painter.fillRect(QRectF(x, 12, 1, 40), tokens.color(tokens.LINE))
        x += 16
        self._cell(painter, x, "Causes", f"{sum(totals.causes.values())} given", 112)
        x += 112
        share = (self.width() - x - 12) / max(1, len(totals.causes))
        for name, count in totals.causes.items():
            self._cell(painter, x, name, str(count) if count else "–", share)
            x += share

    @staticmethod
    def _cell(painter: QPainter, x: float, name: str, value: str, width: float) -> None:
        draw_text(painter, QRectF(x, 14, width - 8, 16), name, tokens.T3, 12)
        draw_text(painter, QRectF(x, 32, width - 8, 18), value, tokens.T1, 13, tokens.MEDIUM)
