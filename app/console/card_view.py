"""The card on the front picture: why, numbered steps, facts, what is possible now. Covers the arm's upper part, not the tool."""

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QWidget

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon
from takeover.app.console.models.cards import Card, CardButton
from takeover.app.console.panels import HoldButton
from takeover.app.console.tokens import MEDIUM, REGULAR, SEMIBOLD, T1, T2, T3
from takeover.app.console.widgets import RIGHT, draw_runs, draw_text, fill_round, text_width


def _width_of(step: str, base: int = REGULAR) -> float:
    return text_width(step, 13, base)


class CardView(QWidget):
    act = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._card: Card | None = None
        self._buttons: list[HoldButton] = []
        self._made_for: tuple[CardButton, ...] = ()
        self.hide()

    @property
    def card(self) -> Card | None:
        return self._card

    def show_card(self, card: Card | None) -> None:
        if card == self._card:
            return
        self._card = card
        if card is None:
            self.hide()
            return
        self._make_buttons(card.buttons)
        self._arrange()
        self.show()
        self.update()

    def button(self, act: str) -> HoldButton | None:
        for spec, button in zip(self._made_for, self._buttons, strict=True):
            if spec.act == act:
                return button
        return None

    def _make_buttons(self, specs: tuple[CardButton, ...]) -> None:
        """Keep the widgets while only enabledness changes: a button must not vanish under a press."""
        if [(s.act, s.label, s.keys, s.hold_s) for s in specs] != [(s.act, s.label, s.keys, s.hold_s) for s in self._made_for]:
            for button in self._buttons:
                button.hide()
                button.deleteLater()
            self._buttons = []
            for spec in specs:
                button = HoldButton(spec.label, spec.keys, hold_s=spec.hold_s, parent=self)
                button.held.connect(lambda act=spec.act: self.act.emit(act))
                button.show()
                self._buttons.append(button)
        self._made_for = specs
        for spec, button in zip(specs, self._buttons, strict=True):
            button.setEnabled(spec.enabled)
            button.kind = "primary" if spec.primary and spec.enabled else "normal"
            button.update()

    def lines(self) -> list[tuple[int, str]]:
        """Steps wrapped to the room there is, as (number of the step, text)."""
        if self._card is None:
            return []
        limit = max(160.0, self.width() - 44 - (260 if self._card.facts else 24))
        out: list[tuple[int, str]] = []
        for number, step in enumerate(self._card.steps, 1):
            line = ""
            for word in step.split(" "):
                if line and _width_of(f"{line} {word}") > limit:
                    out.append((number, line))
                    line, number = word, 0
                else:
                    line = f"{line} {word}".strip()
            out.append((number, line))
        return out

    def needed_height(self) -> int:
        """176 px for three lines at the mockup's width; grows when lines wrap."""
        if self._card is None:
            return 0
        rows = max(len(self.lines()), len(self._card.facts))
        progress = 20 if self._card.progress is not None else 0
        buttons = 48 if self._card.buttons or self._card.note else 4
        return 16 + 20 + 12 + 22 * rows + progress + buttons + 12

    def resizeEvent(self, event: object) -> None:
        self._arrange()

    def _arrange(self) -> None:
        x, y = 24, self.height() - 48
        for button in self._buttons:
            size = button.sizeHint()
            button.setGeometry(x, y, size.width(), 32)
            x += size.width() + 8

    def paintEvent(self, event: QPaintEvent) -> None:
        card = self._card
        if card is None:
            return
        painter = QPainter(self)
        fill_round(painter, QRectF(self.rect()), tokens.BG, tokens.RADIUS)
        painter.fillRect(QRectF(0, 2, 4, self.height() - 4), QColor(card.color))
        draw_icon(painter, card.icon, 24, 16, 20, card.color, 2)
        draw_text(painter, QRectF(54, 16, self.width() - 78, 20), card.title, T1, 15, SEMIBOLD)
        y = 48.0
        for number, text in self.lines():
            row = QRectF(24, y, self.width() - 48, 22)
            x = 24.0
            if card.numbered:
                if number:
                    draw_text(painter, row, str(number), T1, 13, MEDIUM)
                x += 18
            draw_runs(painter, x, row, [(text, T2, REGULAR)], 13)
            y += 22
        fact_y = 48.0
        for name, value in card.facts:
            limit = 232 - text_width(name)
            painter_rect = QRectF(self.width() - 24 - 240, fact_y, 240, 22)
            shown = value if text_width(value) < limit else value[: max(8, int(len(value) * limit / max(1.0, text_width(value))) - 1)] + "…"
            draw_text(painter, painter_rect, shown, T1, 12, REGULAR, RIGHT)
            draw_text(painter, painter_rect.adjusted(0, 0, -text_width(shown) - 5, 0), name, T3, 12, REGULAR, RIGHT)
            fact_y += 22
        y = max(y, fact_y)
        if card.progress is not None:
            bar = QRectF(24, y + 6, self.width() - 48, 6)
            painter.fillRect(bar, QColor(tokens.LINE))
            painter.fillRect(QRectF(bar.x(), bar.y(), bar.width() * max(0.0, min(1.0, card.progress)), 6), QColor(T1))
        if card.note:
            left = 24 + sum(button.width() + 8 for button in self._buttons)
            rect = QRectF(left + 12, self.height() - 48, self.width() - 36 - left, 32)
            draw_text(painter, rect, card.note, T3, 12, REGULAR, RIGHT if self._buttons else Qt.AlignmentFlag.AlignVCenter)
