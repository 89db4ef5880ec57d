"""The queue: search, filter chips, and the list of segments, painted row by row so that thousands cost nothing."""

import time
from collections.abc import Sequence

from PySide6.QtCore import QAbstractListModel, QModelIndex, QPersistentModelIndex, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLineEdit,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from takeover.app.console import tokens
from takeover.app.console.icons import draw_icon, icon
from takeover.app.console.models.review_items import FILTERS, Hold, ReviewItem
from takeover.app.console.review_tags import Line
from takeover.app.console.widgets import CENTER, RIGHT, KeyCap, Panel, draw_text, fill_round, label, text_width

ROW = 48
Index = QModelIndex | QPersistentModelIndex


class _Model(QAbstractListModel):
    def __init__(self) -> None:
        super().__init__()
        self.items: list[ReviewItem] = []
        self.held: dict[str, Hold] = {}

    def rowCount(self, parent: Index | None = None) -> int:
        return len(self.items)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        if role == Qt.ItemDataRole.DisplayRole and 0 <= index.row() < len(self.items):
            item = self.items[index.row()]
            return f"{item.title}, {item.detail}"
        return None

    def replace(self, items: Sequence[ReviewItem]) -> None:
        if len(items) == len(self.items):  # same rows, other labels: keep the scroll position
            self.items = list(items)
            if items:
                self.dataChanged.emit(self.index(0), self.index(len(items) - 1))
            return
        self.beginResetModel()
        self.items = list(items)
        self.endResetModel()


class _Delegate(QStyledItemDelegate):
    def __init__(self, model: _Model) -> None:
        super().__init__()
        self._model = model

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        return QSize(200, ROW)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        item = self._model.items[index.row()]
        rect = QRectF(option.rect)
        selected = bool(option.state & QStyle.StateFlag.State_Selected)
        painter.save()
        if selected:
            painter.fillRect(rect, QColor(tokens.RAISED))
            painter.fillRect(QRectF(rect.left(), rect.top(), 3, rect.height() - 1), QColor(tokens.T1))
        painter.setPen(QPen(QColor(tokens.LINE), 1))
        painter.drawLine(rect.topLeft(), rect.topRight())
        hold = self._model.held.get(item.segment_id)
        free = item.open and (hold is None or hold.mine)
        ink = tokens.T1 if free or selected else tokens.T3
        draw_icon(painter, item.icon, rect.left() + 14, rect.top() + 15, 18, tokens.T2 if free else tokens.T3)
        state = item.state or item.started
        state_width = text_width(state) + 4
        room = rect.width() - 44 - 12
        draw_text(painter, QRectF(rect.left() + 44, rect.top() + 6, room - state_width - 8, 18), item.title, ink, 13, tokens.MEDIUM)
        draw_text(painter, QRectF(rect.left() + 44, rect.top() + 24, room - 4, 16), item.detail, tokens.T3, 12)
        if hold is not None:
            text = hold.text(time.time_ns())
            x = rect.left() + 44 + text_width(item.detail) + 12
            for shorter in (text, text.removesuffix(" left"), text.partition(",")[0]):
                if x + 17 + text_width(shorter) <= rect.right() - (30 if item.flagged else 8):
                    draw_icon(painter, "lock", x, rect.top() + 25, 13, tokens.T2 if hold.mine else tokens.T3, 2)
                    draw_text(painter, QRectF(x + 17, rect.top() + 24, 160, 16), shorter, tokens.T1 if hold.mine else tokens.T3, 12)
                    break
        draw_text(
            painter, QRectF(rect.left() + 44, rect.top() + 6, room, 18), state, tokens.T1 if item.labels else tokens.T3, 12, align=RIGHT
        )
        if item.flagged:
            draw_icon(painter, "flag", rect.right() - 26, rect.top() + 26, 13, tokens.T1, 2)
        painter.restore()


class FilterChips(QWidget):
    """All, Takeover, Failure, Safety with their numbers; exactly one is chosen. `changed` also when the chosen one is clicked again."""

    changed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.chosen = ""
        self._counts: dict[str, int] = {}
        self.setFixedHeight(28)

    def set_counts(self, counts: dict[str, int]) -> None:
        if counts != self._counts:
            self._counts = counts
            self.update()

    def boxes(self) -> list[tuple[str, str, QRectF]]:
        """(reason, text, where) of every chip."""
        x, made = 0.0, []
        for reason, name in FILTERS:
            text = f"{name} {self._counts.get(reason, 0)}"
            width = text_width(text, 11, tokens.SEMIBOLD) + 12
            made.append((reason, text, QRectF(x, 2, width, 24)))
            x += width + 5
        return made

    def choose(self, reason: str) -> None:
        self.chosen = reason
        self.changed.emit(reason)
        self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        for reason, _, box in self.boxes():
            if box.contains(event.position()):
                self.choose(reason)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        for reason, text, box in self.boxes():
            on = reason == self.chosen
            fill_round(painter, box, tokens.T1 if on else tokens.CONTROL, 3)
            if not on:
                fill_round(painter, box.adjusted(1, 1, -1, -1), tokens.SURFACE, 3)
            draw_text(painter, box, text, tokens.INK if on else tokens.T2, 11, tokens.SEMIBOLD if on else tokens.REGULAR, CENTER)


class QueuePanel(Panel):
    """`selected(row)` when the person picks a row; `searched(text)` and `filtered(reason)` when the list should change."""

    selected = Signal(int)
    searched = Signal(str)
    filtered = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Queue", "", parent=parent)
        self.setFixedWidth(304)
        self.search = Line()
        self.search.setPlaceholderText("episode, cause, person, note")
        self.search.setFixedHeight(32)
        self.search.setFont(tokens.font(12))
        self.search.addAction(icon("search", tokens.T3, 14), QLineEdit.ActionPosition.LeadingPosition)
        self.search.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self.search.textChanged.connect(self.searched)
        hint = QHBoxLayout(self.search)
        hint.setContentsMargins(0, 0, 8, 0)
        hint.addStretch(1)
        self._slash = KeyCap("/")
        hint.addWidget(self._slash)
        self.search.textChanged.connect(lambda text: self._slash.setVisible(not text))
        self.chips = FilterChips()
        self.chips.changed.connect(self.filtered)
        self._model = _Model()
        self.view = QListView()
        self.view.setModel(self._model)
        self.view.setItemDelegate(_Delegate(self._model))
        self.view.setUniformItemSizes(True)
        self.view.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.view.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.view.clicked.connect(lambda index: self.selected.emit(index.row()))
        self.foot = label("", tokens.T3, 12)
        self.body.setContentsMargins(0, self.header, 0, 0)
        self.body.setSpacing(0)
        top = QWidget()
        column = QHBoxLayout(top)
        column.setContentsMargins(12, 0, 12, 0)
        column.addWidget(self.search)
        chips = QWidget()
        row = QHBoxLayout(chips)
        row.setContentsMargins(12, 8, 12, 10)
        row.addWidget(self.chips)
        foot = QWidget()
        line = QHBoxLayout(foot)
        line.setContentsMargins(12, 0, 12, 0)
        line.setSpacing(6)
        line.addWidget(self.foot)
        line.addStretch(1)
        for text in (",", "."):
            line.addWidget(KeyCap(text))
        line.addWidget(label("segment", tokens.T3, 12))
        foot.setFixedHeight(40)
        for widget in (top, chips):
            self.body.addWidget(widget)
        self.body.addWidget(self.view, 1)
        self.body.addWidget(foot)

    @property
    def items(self) -> list[ReviewItem]:
        return self._model.items

    def set_held(self, held: dict[str, Hold]) -> None:
        """Who has which segment; shown in the rows."""
        self._model.held = held
        self.view.viewport().update()

    def set_items(self, items: Sequence[ReviewItem], counts: dict[str, int], open_total: int, current: int) -> None:
        """``items`` already filtered and searched; ``current`` is the selected row, -1 for none."""
        self._model.replace(items)
        self.chips.set_counts(counts)
        self.set_note(f"{open_total} open, newest first")
        self.foot.setText(f"{len(items)} of {counts.get('', 0)} shown")
        self.set_current(current)

    def set_current(self, row: int) -> None:
        if 0 <= row < len(self.items):
            index = self._model.index(row)
            self.view.setCurrentIndex(index)
            self.view.scrollTo(index)
        else:
            self.view.clearSelection()
