"""The frame round every page: mode banner, STOP, rail, status line."""

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon
from takeover.app.console.models.banner import Banner
from takeover.app.console.models.status import Item
from takeover.app.console.tokens import BOLD, MEDIUM, REGULAR, SEMIBOLD, T1, T2, T3
from takeover.app.console.widgets import CENTER, Run, draw_key_cap, draw_runs, draw_text, hatch, key_cap_width, text_width

BANNER_HEIGHT, RAIL_WIDTH, STATUS_HEIGHT, STOP_WIDTH = 48, 72, 32, 160
CLEAR_HOLD_MS = 1000
PAGES = (("operate", "Operate"), ("review", "Review"), ("insights", "Insights"), ("setup", "Setup"))


def bold_runs(text: str, color: str, base: int = REGULAR) -> list[Run]:
    """``a **b** c`` -> runs; what is between the stars is bold."""
    pieces = text.split("**")
    return [(piece, color, SEMIBOLD if i % 2 else base) for i, piece in enumerate(pieces) if piece]


class BannerView(QWidget):
    """Word, icon and time sit at the same x in every state; the bar is filled only when a person must know."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(BANNER_HEIGHT)
        self._banner = Banner("OFFLINE", "plug", T3, "")

    @property
    def banner(self) -> Banner:
        return self._banner

    def show_banner(self, banner: Banner) -> None:
        if banner != self._banner:
            self._banner = banner
            self.setAccessibleName(f"{banner.word}: {' '.join(banner.parts)}".replace("**", ""))
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        item, height = self._banner, self.height()
        whole = QRectF(self.rect())
        painter.fillRect(whole, QColor(item.color if item.filled else tokens.SURFACE))
        ink = tokens.INK if item.filled else T2
        word = tokens.INK if item.filled else item.color
        if not item.filled:
            painter.fillRect(QRectF(0, 0, 3, height), QColor(item.color))
            painter.fillRect(QRectF(0, height - 1, self.width(), 1), QColor(tokens.LINE))
        draw_icon(painter, item.icon, 23, 11, 26, word, 2)
        draw_text(painter, QRectF(80, 0, 200, height), item.word, word, 20, BOLD, spacing_px=0.8)
        x = 80 + text_width(item.word, 20, BOLD) + 0.8 * len(item.word) + 16
        if item.elapsed:
            draw_text(painter, QRectF(x, 0, 120, height), item.elapsed, tokens.INK if item.filled else T1, 20, MEDIUM)
        x = max(x + 88, x + text_width(item.elapsed, 20, MEDIUM) + 16) if item.elapsed else x + 8
        for part in item.parts:
            runs = bold_runs(part, ink, MEDIUM if item.filled else REGULAR)
            width = sum(text_width(text, 13, weight) for text, _, weight in runs)
            if x + width > self.width() - 8:
                break
            painter.fillRect(QRectF(round(x), 12, 1, 24), tokens.color(ink, 0.35))
            x = draw_runs(painter, x + 17, QRectF(0, 0, self.width(), height), runs, 13) + 16
        if item.hatched:  # beside the words, never under them
            rest = QRectF(x + 8, 0, self.width() - x - 8, height)
            hatch(painter, rest, tokens.color(tokens.INK, 0.35) if item.filled else tokens.color(item.color, 0.4), 8, 28)


class StopButton(QWidget):
    """Filled in every state and never moves. A press stops at once, also when stopped: somebody else may just have cleared that.
    Holding it for 1 s then clears."""

    stop_pressed = Signal()
    cleared = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedSize(STOP_WIDTH, BANNER_HEIGHT)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAccessibleName("STOP")
        self.setToolTip("Stops the robot at once, whatever is shown. When stopped: hold for 1 s (or the C key) to clear")
        self._stopped = False
        self._progress = 0.0
        self._timer = QTimer(self)
        self._timer.setInterval(50)
        self._timer.timeout.connect(self._tick)

    def set_stopped(self, stopped: bool) -> None:
        if stopped != self._stopped:
            self._stopped = stopped
            self.end_hold()
            self.update()

    @property
    def stopped(self) -> bool:
        return self._stopped

    def begin_hold(self) -> None:
        """Start clearing (mouse or the C key); does nothing unless stopped."""
        if self._stopped and not self._timer.isActive():
            self._progress = 0.0
            self._timer.start()

    def end_hold(self) -> None:
        self._timer.stop()
        self._progress = 0.0
        self.update()

    def _tick(self) -> None:
        self._progress += self._timer.interval() / CLEAR_HOLD_MS
        if self._progress >= 1.0:
            self.end_hold()
            self.cleared.emit()
        self.update()

    @property
    def progress(self) -> float:
        return self._progress

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self.stop_pressed.emit()
        self.begin_hold()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self.end_hold()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(tokens.STOP))
        word, key = ("CLEAR", "C 1 s") if self._stopped else ("STOP", "Esc")
        size = 16 if self._stopped else 20
        width = text_width(word, size, BOLD) + 1.2 * len(word)
        cap = key_cap_width(key)
        x = (self.width() - (22 + 10 + width + 10 + cap)) / 2
        draw_icon(painter, "octagon", x, 13, 22, tokens.STOP_INK, 2)
        draw_text(painter, QRectF(x + 32, 0, width + 4, self.height()), word, tokens.STOP_INK, size, BOLD, spacing_px=1.2)
        draw_key_cap(painter, x + 42 + width, 24, key, tokens.STOP_INK, "#8A3722", "")
        if self._progress > 0:
            painter.fillRect(QRectF(0, 42, self.width() * min(1.0, self._progress), 6), QColor(tokens.STOP_INK))


class Rail(QWidget):
    """Pages, at the left. A white mark, never a hue, shows the present one."""

    chosen = Signal(int)
    help_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedWidth(RAIL_WIDTH)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self._index = 0
        self._badges = [0] * len(PAGES)

    def set_index(self, index: int) -> None:
        self._index = index
        self.update()

    def set_badge(self, index: int, count: int) -> None:
        if self._badges[index] != count:
            self._badges[index] = count
            self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        row = int((event.position().y() - 8) // 64)
        if 0 <= row < len(PAGES):
            self.chosen.emit(row)
        elif event.position().y() > self.height() - 60:
            self.help_asked.emit()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(tokens.BG))
        painter.fillRect(QRectF(self.width() - 1, 0, 1, self.height()), QColor(tokens.LINE))
        for i, (icon, title) in enumerate(PAGES):
            y, on = 8 + 64 * i, i == self._index
            ink = T1 if on else T3
            if on:
                painter.fillRect(QRectF(0, y, self.width() - 1, 64), QColor(tokens.RAISED))
                painter.fillRect(QRectF(0, y, 3, 64), QColor(T1))
            draw_icon(painter, icon, 26, y + 12, 20, ink)
            draw_text(painter, QRectF(0, y + 36, self.width() - 1, 16), title, ink, 11, REGULAR, CENTER)
            if self._badges[i]:
                text = str(self._badges[i]) if self._badges[i] < 1000 else "999+"
                width = text_width(text, 11) + 8
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(QColor(tokens.LINE))
                box = QRectF(self.width() - 4 - width, y + 6, width, 14)
                painter.drawRoundedRect(box, 7, 7)
                draw_text(painter, box, text, T1, 11, REGULAR, CENTER)
        draw_key_cap(painter, (self.width() - key_cap_width("F1")) / 2, self.height() - 38, "F1")
        draw_text(painter, QRectF(0, self.height() - 25, self.width() - 1, 16), "Keys", T3, 11, REGULAR, CENTER)


class StatusLine(QWidget):
    """What every page needs to know at a glance; faults in red."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedHeight(STATUS_HEIGHT)
        self._left: list[Item] = []
        self._right: list[Item] = []

    def show_items(self, left: Sequence[Item], right: Sequence[Item]) -> None:
        if list(left) != self._left or list(right) != self._right:
            self._left, self._right = list(left), list(right)
            self.update()

    @staticmethod
    def _width(item: Item) -> float:
        return 24 + text_width(item[0]) + 6 + text_width(item[1], 12, SEMIBOLD if item[2] else REGULAR)

    def _draw(self, painter: QPainter, x: float, item: Item) -> None:
        rect = QRectF(0, 0, self.width(), self.height())
        ink, weight = (tokens.STOP, SEMIBOLD) if item[2] else (T1, REGULAR)
        end = draw_runs(painter, x + 12, rect, [(item[0], T3, REGULAR)])
        draw_runs(painter, end + 6, rect, [(item[1], ink, weight)])

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(tokens.SURFACE))
        painter.fillRect(QRectF(0, 0, self.width(), 1), QColor(tokens.LINE))
        painter.setPen(QPen(QColor(tokens.LINE), 1))
        right = self.width() - 8 - sum(self._width(item) for item in self._right)
        x = 8.0
        for item in self._left:
            width = self._width(item)
            if x + width > right:
                break
            self._draw(painter, x, item)
            x += width
            painter.setPen(QPen(QColor(tokens.LINE), 1))
            painter.drawLine(QPointF(round(x) + 0.5, 8), QPointF(round(x) + 0.5, 24))
        x = max(right, x)
        for i, item in enumerate(self._right):
            self._draw(painter, x, item)
            x += self._width(item)
            if i < len(self._right) - 1:
                painter.setPen(QPen(QColor(tokens.LINE), 1))
                painter.drawLine(QPointF(round(x) + 0.5, 8), QPointF(round(x) + 0.5, 24))
