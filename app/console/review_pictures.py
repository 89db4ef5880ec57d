"""Recorded pictures with their chips, and the bars of who asked for what at the play-head."""

from dataclasses import dataclass

import numpy as np
from PySide6.QtCore import QPointF, QRectF
from PySide6.QtGui import QColor, QImage, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from takeover.app.console import tokens
from takeover.app.console.models.review import Timeline, clipped_text
from takeover.app.console.widgets import CENTER, RIGHT, Panel, Run, draw_runs, draw_text, fill_round, text_width


class PictureView(QWidget):
    """A picture that fills the widget (cropped, never distorted); chips in the corners; a reason where there is no picture."""

    def __init__(self, name: str, chip_width: float = 0.0, parent: QWidget | None = None) -> None:
        """``chip_width``: least width of the right chip, so that its digits do not jitter."""
        super().__init__(parent)
        self._name, self._chip_width = name, chip_width
        self._image: QImage | None = None
        self._chip: list[Run] = []
        self._missing = ""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumSize(120, 90)

    @property
    def image(self) -> QImage | None:
        return self._image

    def set_image(self, image: QImage | None, chip: list[Run] | None = None) -> None:
        self._image = image
        self._chip = chip or []
        self.update()

    def set_name(self, name: str) -> None:
        self._name = name
        self.update()

    def set_missing(self, reason: str) -> None:
        """What to say instead of a picture."""
        self._image, self._missing = None, reason
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        area = QRectF(self.rect())
        shape = QPainterPath()
        shape.addRoundedRect(area, tokens.PICTURE_RADIUS, tokens.PICTURE_RADIUS)
        painter.setClipPath(shape)
        if self._image is None or self._image.isNull():
            painter.fillRect(area, QColor(tokens.SURFACE))
            self._paint_missing(painter, area)
            return
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        scale = max(area.width() / self._image.width(), area.height() / self._image.height())
        width, height = area.width() / scale, area.height() / scale
        source = QRectF((self._image.width() - width) / 2, (self._image.height() - height) / 2, width, height)
        painter.drawImage(area, self._image, source)
        name_width = text_width(self._name, 12, tokens.MEDIUM) + 16
        self._paint_chip(painter, QRectF(8, 8, name_width, 24), [(self._name, tokens.T1, tokens.MEDIUM)])
        if self._chip:
            width = max(self._chip_width, sum(text_width(text, 12, weight) for text, _, weight in self._chip) + 16)
            if width + name_width + 24 <= area.width():
                self._paint_chip(painter, QRectF(area.width() - 8 - width, 8, width, 24), self._chip)

    def _paint_missing(self, painter: QPainter, area: QRectF) -> None:
        if self._missing:
            middle = area.center().y()
            draw_text(painter, QRectF(12, middle - 20, area.width() - 24, 20), self._name, tokens.T2, 13, tokens.SEMIBOLD, CENTER)
            for index, line in enumerate(self._missing.splitlines()):
                draw_text(painter, QRectF(12, middle + 2 + 18 * index, area.width() - 24, 18), line, tokens.T3, 12, align=CENTER)

    @staticmethod
    def _paint_chip(painter: QPainter, box: QRectF, runs: list[Run]) -> None:
        fill_round(painter, box, tokens.BG, tokens.CHIP_RADIUS)
        width = sum(text_width(text, 12, weight) for text, _, weight in runs)
        draw_runs(painter, box.center().x() - width / 2, box, runs)


@dataclass(frozen=True)
class _Bar:
    value: float
    colour: str


class ActionPanel(Panel):
    """Policy asked (blue), person asked (amber), robot got (white), per action entry, each in [-1, 1]."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Action", parent=parent, header=30)
        self._timeline: Timeline | None = None
        self._step = 0
        self.setMinimumHeight(112)

    def set_state(self, timeline: Timeline | None, step: int) -> None:
        self._timeline, self._step = timeline, step
        seconds = step / timeline.control_hz if timeline else 0.0
        self.set_title(f"Action at {seconds:.2f} s" if timeline else "Action")
        self.update()

    def bars(self, entry: int) -> list[_Bar]:
        """What is known of one action entry at the present step, top to bottom."""
        if self._timeline is None:
            return []
        pairs = (
            (self._timeline.policy_action, tokens.POLICY),
            (self._timeline.human_action, tokens.TAKEOVER),
            (self._timeline.applied_action, tokens.T1),
        )
        return [_Bar(float(rows[self._step, entry]), colour) for rows, colour in pairs if np.isfinite(rows[self._step, entry])]

    def paint_body(self, painter: QPainter) -> None:
        if self._timeline is None:
            return
        clipped = clipped_text(int(self._timeline.safety_bits[self._step]))
        person = bool(np.isfinite(self._timeline.human_action[self._step]).any())
        wide = self.width() > 300
        runs: list[Run] = [("policy asked" if wide else "policy", tokens.POLICY, tokens.REGULAR)]
        runs += [(", person", tokens.TAKEOVER, tokens.REGULAR)] if person else []
        runs += [(", robot got" if wide else ", robot", tokens.T1, tokens.REGULAR)]
        runs += [(f", {clipped} limited", tokens.T2, tokens.REGULAR)] if clipped and self.width() > 420 else []
        if not wide:
            self.set_title("Action")
        width = sum(text_width(text) for text, _, _ in runs)
        draw_runs(painter, self.width() - 12 - width, QRectF(0, 0, self.width(), self.header), runs)
        names = self._timeline.action_names
        left, right = 92.0, self.width() - 64.0
        centre, half = (left + right) / 2, (right - left) / 2
        row = min(28.0, (self.height() - self.header - 8) / max(1, len(names)))
        for entry, name in enumerate(names):
            top = self.header + entry * row
            draw_text(painter, QRectF(12, top, left - 16, row), name, tokens.T2, 12)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
            painter.fillRect(QRectF(left, round(top + row / 2), right - left, 1), QColor(tokens.LINE))
            bars = self.bars(entry)
            height = max(2.0, min(4.0, (row - 6) / max(1, len(bars)) - 1))
            y = top + (row - len(bars) * (height + 1)) / 2
            for bar in bars:
                length = max(-1.0, min(1.0, bar.value)) * half
                painter.fillRect(QRectF(min(centre, centre + length), y, abs(length), height), QColor(bar.colour))
                y += height + 1
            painter.setPen(QPen(QColor(tokens.OUTLINE), 1))
            painter.drawLine(QPointF(centre, top + 3), QPointF(centre, top + row - 3))
            got = float(self._timeline.applied_action[self._step, entry])
            draw_text(painter, QRectF(right, top, 52, row), f"{got:+.2f}".replace("-", "−"), tokens.T1, 12, align=RIGHT)
