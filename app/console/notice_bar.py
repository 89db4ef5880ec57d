"""A line at the foot of the picture with what everyone should know: cut off where there is no room, in full in its tooltip."""

import html

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QApplication, QWidget

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon
from takeover.app.console.models.notices import Notice, in_full, line
from takeover.app.console.painting import RIGHT, draw_text, fill_round, text_width
from takeover.app.console.tokens import MEDIUM, T1, T2

HEIGHT = 28


class NoticeBar(QWidget):
    """Hidden while there is nothing to say. A click copies all of it. Takes no focus."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(HEIGHT)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self._notices: tuple[Notice, ...] = ()
        self.hide()

    @property
    def notices(self) -> tuple[Notice, ...]:
        return self._notices

    @property
    def wanted_width(self) -> int:
        """That shows the line whole."""
        return round(40 + sum(text_width(part, 12, MEDIUM) + 8 for part in line(self._notices) if part))

    def show_notices(self, found: tuple[Notice, ...]) -> None:
        if found == self._notices:
            return
        self._notices = found
        text = in_full(found)
        paragraphs = "<br><br>".join(html.escape(part).replace("\n", "<br>") for part in text.split("\n\n"))
        self.setToolTip(f"<p>{paragraphs}</p><p>Click to copy.</p>" if found else "")  # rich text is wrapped, plain text is not
        self.setAccessibleName(text)
        self.setVisible(bool(found))
        self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        QApplication.clipboard().setText(in_full(self._notices))

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        fill_round(painter, QRectF(self.rect()), tokens.BG, tokens.CHIP_RADIUS)
        fault = any(notice.fault for notice in self._notices)
        text, more = line(self._notices)
        end = text_width(more, 12, MEDIUM) + 8 if more else 0.0
        draw_icon(painter, "warning", 8, 6, 16, tokens.STOP if fault else tokens.HOLD, 2)
        draw_text(painter, QRectF(32, 0, self.width() - 40 - end, HEIGHT), text, tokens.STOP if fault else T1, 12, MEDIUM)
        draw_text(painter, QRectF(0, 0, self.width() - 8, HEIGHT), more, T2, 12, MEDIUM, RIGHT)
