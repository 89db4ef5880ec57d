"""Things laid over a page: the key list (F1), the command palette (Ctrl+K), short notices."""

from collections.abc import Callable, Sequence

from PySide6.QtCore import QEvent, QObject, QRectF, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent, QPainter, QPaintEvent
from PySide6.QtWidgets import QApplication, QLineEdit, QListWidget, QVBoxLayout, QWidget

from takeover.app.console import tokens
from takeover.app.console.frame import BANNER_HEIGHT
from takeover.app.console.icons import draw_icon
from takeover.app.console.models.hints import KEY_GROUPS
from takeover.app.console.tokens import MEDIUM, REGULAR, SEMIBOLD, T1, T2, T3
from takeover.app.console.widgets import RIGHT, draw_key_cap, draw_text, fill_round, text_width

Command = tuple[str, str, Callable[[], object]]  # label, keys, what it does


class KeyOverlay(QWidget):
    """The keys of the present page. Any click or F1 closes it; the page below stays live."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._groups = KEY_GROUPS["operate"]
        self.hide()

    def toggle(self, page: str = "operate") -> None:
        """Below the banner: STOP and the mode are never covered. Raises `KeyError` for an unknown page."""
        self._groups = KEY_GROUPS[page]
        window = self.window().rect()
        self.setGeometry(0, BANNER_HEIGHT, window.width(), window.height() - BANNER_HEIGHT)
        self.setVisible(not self.isVisible())
        self.raise_()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self.hide()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.fillRect(self.rect(), tokens.color(tokens.BG, 0.82))
        width, height = min(960.0, self.width() - 120.0), 250.0 + 190.0 * ((len(self._groups) - 1) // 2)
        box = QRectF((self.width() - width) / 2, (self.height() - height) / 2, width, height)
        fill_round(painter, box, tokens.SURFACE, tokens.RADIUS)
        draw_text(painter, QRectF(box.x() + 24, box.y() + 16, 400, 24), "Keys", T1, 15, SEMIBOLD)
        draw_text(painter, QRectF(box.x(), box.y() + 16, width - 24, 24), "F1 closes", T3, 12, REGULAR, RIGHT)
        for i, (title, keys) in enumerate(self._groups):
            x = box.x() + 24 + (i % 2) * (width / 2)
            y = box.y() + 56 + (i // 2) * 190
            draw_text(painter, QRectF(x, y, 300, 20), title, T2, 12, SEMIBOLD)
            for j, (key, text) in enumerate(keys):
                row, column = (j % 6, j // 6) if len(keys) > 6 else (j, 0)
                kx, ky = x + column * 215, y + 26 + row * 25
                cap = draw_key_cap(painter, kx, ky + 11, key)
                draw_text(painter, QRectF(kx + max(96.0 if column == 0 else 0.0, cap + 8), ky, 320, 22), text, T1, 12)


class CommandPalette(QWidget):
    """Type a few letters, Enter does it. Closes when it loses the focus."""

    closed = Signal()

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._commands: list[Command] = []
        self._shown: list[Command] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        self.edit = QLineEdit(placeholderText="Type a command")
        self.list = QListWidget()
        self.list.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        layout.addWidget(self.edit)
        layout.addWidget(self.list)
        self.edit.textChanged.connect(self._filter)
        self.edit.installEventFilter(self)
        self.list.itemClicked.connect(lambda _: self.run())
        self.hide()

    def open(self, commands: Sequence[Command]) -> None:
        self._commands = list(commands)
        parent = self.window()
        self.setGeometry((parent.width() - 560) // 2, 96, 560, 380)
        self.edit.clear()
        self._filter("")
        self.show()
        self.raise_()
        self.edit.setFocus()

    def close_palette(self) -> None:
        if self.isVisible():
            self.hide()
            self.closed.emit()

    def _filter(self, text: str) -> None:
        words = text.lower().split()
        self._shown = [command for command in self._commands if all(word in command[0].lower() for word in words)]
        self.list.clear()
        for label, keys, _ in self._shown:
            self.list.addItem(f"{label}    {keys}" if keys else label)
        self.list.setCurrentRow(0)

    def run(self) -> None:
        row = self.list.currentRow()
        chosen = self._shown[row] if 0 <= row < len(self._shown) else None
        self.close_palette()
        if chosen is not None:
            chosen[2]()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self.run()
                return True  # else it would go on to the window, which starts what its card offers
            step = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1}.get(Qt.Key(event.key()))
            if step is not None and self._shown:
                self.list.setCurrentRow((self.list.currentRow() + step) % len(self._shown))
                return True
        elif event.type() == QEvent.Type.FocusOut:
            self.close_palette()
        return False

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        fill_round(painter, QRectF(self.rect()), tokens.CONTROL, tokens.RADIUS)
        fill_round(painter, QRectF(self.rect()).adjusted(1, 1, -1, -1), tokens.SURFACE, tokens.RADIUS)


class Toast(QWidget):
    """The newest notice, 6 s, at the lower right; a click copies its text."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self._text = ""
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.hide)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setToolTip("Click to copy the details")
        self.hide()

    @property
    def text(self) -> str:
        return self._text

    def show_text(self, text: str) -> None:
        self._text = text
        parent = self.window()
        width = int(min(parent.width() - 120, text_width(text, 13) + 72))
        self.setGeometry(parent.width() - width - 16, parent.height() - 32 - 16 - 40, width, 40)
        self.show()
        self.raise_()
        self.update()
        self._timer.start(6000)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        QApplication.clipboard().setText(self._text)
        self.hide()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        fill_round(painter, QRectF(self.rect()), tokens.RAISED, tokens.RADIUS)
        draw_icon(painter, "warning", 12, 11, 18, tokens.HOLD, 2)
        draw_text(painter, QRectF(40, 0, self.width() - 52, 40), self._text, T1, 13, MEDIUM)
