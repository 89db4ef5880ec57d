"""Rows of the Review page: title, transport, footer."""

import time

from PySide6.QtCore import QRectF
from PySide6.QtGui import QPainter
from PySide6.QtWidgets import QHBoxLayout, QWidget

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon
from takeover.app.console.models.review_items import Doubles, Hold, KappaCell, ReviewItem, ReviewTotals
from takeover.app.console.models.review_playhead import Playhead
from takeover.app.console.widgets import RIGHT, Button, KeyHints, Panel, Segmented, draw_text, text_width

SPEED_NAMES = ("0.25×", "0.5×", "1×", "2×", "4×")


class TitleRow(Panel):
    """What is being looked at, in one line."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setFixedHeight(40)
        self._item: ReviewItem | None = None
        self._extra = self.probe = ""
        self._hold: Hold | None = None
        self.setToolTip(
            "A segment that is open here is yours for half an hour, renewed while it stays open, and given back when you leave it."
        )

    def set_item(self, item: ReviewItem | None, extra: str = "", hold: Hold | None = None, probe: str = "") -> None:
        self._item, self._extra, self._hold, self.probe = item, extra, hold, probe
        self.update()

    @property
    def right_text(self) -> str:
        """At the right end: whose it is if not this person's, then what it is."""
        if self._item is None:
            return ""
        if self._hold is not None and not self._hold.mine:
            return self._hold.text(time.time_ns())
        if self._item.blind:
            return "blind second label: yes"
        return "excluded" if self._item.labels.get("exclude") == "true" else "flagged" if self._item.flagged else self._item.outcome

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
        parts = [part for part in (self.probe, item.task, version, item.operator, device, item.started) if part]
        right = self.right_text
        theirs = self._hold is not None and not self._hold.mine
        right_width = text_width(right) + (22 if theirs else 4)
        room = self.width() - 38 - width - 20 - right_width - 24
        draw_text(painter, QRectF(38 + width + 16, 0, room, 40), "  ·  ".join(parts), tokens.T3, 12)
        if theirs:
            draw_icon(painter, "lock", self.width() - 12 - right_width, 13, 14, tokens.TAKEOVER, 2)
        ink = tokens.TAKEOVER if theirs else tokens.T2
        draw_text(painter, QRectF(self.width() - 12 - right_width, 0, right_width, 40), right, ink, 12, align=RIGHT)


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
        hints = [("J L", "shuttle"), ("← →", "frame"), ("I O", "trim"), ("B", "onset"), ("Shift", "1 s")]
        row.addWidget(KeyHints(hints, [("Z", "undo")]), 1)
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
        self._doubles = Doubles()
        self.body.setContentsMargins(0, 0, 0, 0)

    @property
    def totals(self) -> ReviewTotals:
        return self._totals

    def set_doubles(self, doubles: Doubles) -> None:
        """Agreement of blind doubles takes the place of the counts once there are some."""
        self._doubles = doubles
        self.setToolTip(
            "Cohen's kappa of blind second opinions, per cause: this cause or another. n: doubles in which either said it. "
            "Flagged below 0.60: talk about these."
            if doubles.pairs
            else ""
        )
        self.update()

    @property
    def cells(self) -> list[tuple[str, str]]:
        """(name, value) of what is shown at the right."""
        if not self._doubles.pairs:
            return [(name, str(count) if count else "–") for name, count in self._totals.causes.items()]
        return [(one.name, f"{one.text}  n {one.n}") for one in self._doubles.causes]

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
        doubles = self._doubles
        if doubles.pairs:
            self._cell(painter, x, "Blind doubles", f"{doubles.pairs:,} pairs", 112)
            x += 112
            self._kappa(painter, x, KappaCell("Cohen's κ", doubles.overall.n, doubles.overall.kappa), 128)
            x += 128
        else:
            self._cell(painter, x, "Causes", f"{sum(totals.causes.values())} given", 112)
            x += 112
        share = (self.width() - x - 12) / max(1, len(self.cells))
        for index, (name, value) in enumerate(self.cells):
            if doubles.pairs:
                self._kappa(painter, x, doubles.causes[index], share)
            else:
                self._cell(painter, x, name, value, share)
            x += share

    @staticmethod
    def _kappa(painter: QPainter, x: float, cell: KappaCell, width: float) -> None:
        draw_text(painter, QRectF(x, 14, width - 8, 16), cell.name, tokens.T3, 12)
        if cell.low:
            draw_icon(painter, "flag", x, 34, 13, tokens.TAKEOVER, 2)
            x, width = x + 17, width - 17
        ink = tokens.TAKEOVER if cell.low else tokens.T1 if cell.kappa is not None else tokens.T2
        draw_text(painter, QRectF(x, 32, width - 8, 18), cell.text, ink, 13, tokens.MEDIUM)
        if cell.kappa is not None:
            draw_text(painter, QRectF(x + text_width(cell.text, 13, tokens.MEDIUM) + 6, 33, 60, 16), f"n {cell.n}", tokens.T3, 11)

    @staticmethod
    def _cell(painter: QPainter, x: float, name: str, value: str, width: float) -> None:
        draw_text(painter, QRectF(x, 14, width - 8, 16), name, tokens.T3, 12)
        draw_text(painter, QRectF(x, 32, width - 8, 18), value, tokens.T1, 13, tokens.MEDIUM)
