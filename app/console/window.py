"""The main window: frame, pages, keys, timers. Key events only update a snapshot or ask for something; the link thread sends."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from PySide6.QtCore import QEvent, QSettings, QSize, Qt, QTimer
from PySide6.QtGui import QCloseEvent, QKeyEvent, QKeySequence, QPainter, QPaintEvent, QResizeEvent, QShortcut
from PySide6.QtWidgets import QApplication, QLineEdit, QPlainTextEdit, QStackedWidget, QTextEdit, QWidget

from takeover.app.console import tokens
from takeover.app.console.controller import Controller
from takeover.app.console.frame import BANNER_HEIGHT, PAGES, RAIL_WIDTH, STATUS_HEIGHT, STOP_WIDTH, BannerView, Rail, StatusLine, StopButton
from takeover.app.console.models.banner import banner
from takeover.app.console.models.snapshot import Snapshot
from takeover.app.console.models.status import status_items
from takeover.app.console.operate_page import OperatePage
from takeover.app.console.overlays import CommandPalette, KeyOverlay, Toast
from takeover.app.console.pages import FailedPage, load_page
from takeover.app.console.setup_page import SetupPage
from takeover.app.console.window_commands import commands
from takeover.app.console.window_keys import OperateKeys
from takeover.app.inputs.mapping import FRAMES
from takeover.data.schema import Mode

HEARTBEAT_MS, PAINT_MS, PANEL_MS = 20, 16, 80
OPERATE, REVIEW, INSIGHTS, SETUP = range(4)
_log = logging.getLogger("console")


class Page(Protocol):
    """What Review, Insights and Setup are to the window."""

    def activated(self) -> None: ...

    def deactivated(self) -> None: ...

    def handle_key(self, event: QKeyEvent) -> bool: ...


class MainWindow(QWidget):
    """Has the keyboard focus itself: its children take none but text fields, so Space never presses a button."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.setWindowTitle("Takeover")
        self.setMinimumSize(1180, 720)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.settings = QSettings(str(Path(controller.config.workspace) / "console.ini"), QSettings.Format.IniFormat)
        self.banner = BannerView(self)
        self.stop = StopButton(self)
        self.rail = Rail(self)
        self.status = StatusLine(self)
        self.stack = QStackedWidget(self)
        self.operate = OperatePage(controller)
        self.setup = SetupPage(controller)
        workspace = Path(controller.config.workspace)
        self.review = load_page("review", workspace, controller.config.person, controller.client)
        self.insights = load_page("insights", workspace, controller.config.person, controller.client)
        self.pages: list[Page] = [self.operate, self.review, self.insights, self.setup]
        for widget in (self.operate, self.review, self.insights, self.setup):
            self.stack.addWidget(widget)
        self.keys = KeyOverlay(self)
        self.palette_view = CommandPalette(self)
        self.toast = Toast(self)
        self._last_panels_s = 0.0
        self._operate_keys = OperateKeys(self)
        self._connect()
        self._make_shortcuts()
        self._restore()
        self._timers = [self._timer(HEARTBEAT_MS, controller.client.stamp_gui), self._timer(PAINT_MS, self.tick)]

    def _timer(self, interval_ms: int, slot: Callable[[], None]) -> QTimer:
        timer = QTimer(self)
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.setInterval(interval_ms)
        timer.timeout.connect(slot)
        timer.start()
        return timer

    def _connect(self) -> None:
        self.rail.chosen.connect(self.show_page)
        self.rail.help_asked.connect(self.toggle_keys)
        self.stop.stop_pressed.connect(lambda: self.act("stop"))
        self.stop.cleared.connect(lambda: self.act("clear"))
        self.operate.act.connect(self.act)
        self.palette_view.closed.connect(self.setFocus)
        if isinstance(self.review, FailedPage) or isinstance(self.insights, FailedPage):
            return
        self.review.open_changed.connect(lambda count: self.rail.set_badge(REVIEW, count))
        self.review.go_operate.connect(lambda: self.show_page(OPERATE))
        self.insights.go_operate.connect(lambda: self.show_page(OPERATE))
        self.insights.open_segments.connect(self._open_segments)

    def _open_segments(self, segment_ids: list[str]) -> None:
        """A stretch brushed in Insights."""
        self.show_page(REVIEW)
        self.review.show_segments(segment_ids)

    def _make_shortcuts(self) -> None:
        pairs: list[tuple[str, Callable[[], None]]] = [(f"Ctrl+{i + 1}", partial(self.show_page, i)) for i in range(4)]
        pairs += [("F1", self.toggle_keys), ("Ctrl+K", self.open_palette), ("Esc", self.escape)]
        for keys, slot in pairs:
            shortcut = QShortcut(QKeySequence(keys), self)
            shortcut.setContext(Qt.ShortcutContext.ApplicationShortcut)
            shortcut.setAutoRepeat(False)
            shortcut.activated.connect(slot)

    # --- pages and acts ---

    @property
    def page_index(self) -> int:
        return self.stack.currentIndex()

    def show_page(self, index: int) -> None:
        if index == self.page_index:
            return
        self.controller.keyboard.release_all()
        self.pages[self.page_index].deactivated()
        self.stack.setCurrentIndex(index)
        self.rail.set_index(index)
        self.keys.hide()
        self.pages[index].activated()
        self.setFocus()

    def act(self, name: str) -> None:
        if name == "review":
            found = self.controller.last_correction()
            self.show_page(REVIEW)
            if found is not None and not isinstance(self.review, FailedPage):
                self.review.show_segments([found[1]])
        else:
            self.controller.act(name)

    def escape(self) -> None:
        """STOP, wherever the focus is; also closes what lies over the page."""
        self.controller.act("stop")
        self.keys.hide()
        self.palette_view.close_palette()

    def toggle_keys(self) -> None:
        """The keys of the present page (F1)."""
        self.keys.toggle(PAGES[self.page_index][0])

    def open_palette(self) -> None:
        self.controller.keyboard.release_all()
        self.palette_view.open(commands(self))

    # --- keys ---

    @staticmethod
    def _typing() -> bool:
        return isinstance(QApplication.focusWidget(), QLineEdit | QTextEdit | QPlainTextEdit)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key = event.key()
        if self._operate_keys.repeats(key):
            return
        if key == Qt.Key.Key_Escape:
            if not event.isAutoRepeat():
                self.escape()
            return
        if self._typing():
            return
        if key == Qt.Key.Key_C and not event.modifiers() & Qt.KeyboardModifier.ControlModifier and self.stop.stopped:
            if not event.isAutoRepeat():
                self.stop.begin_hold()
            return
        if self.page_index != OPERATE:
            if not self.pages[self.page_index].handle_key(event):
                super().keyPressEvent(event)
            return
        if not self._operate_keys.press(event):
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        self._operate_keys.release(event)
        super().keyReleaseEvent(event)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.ActivationChange:
            self._focus_changed()
        super().changeEvent(event)

    def _focus_changed(self) -> None:
        """Losing the focus releases what the keyboard holds; the bridge is told and holds if the keyboard drove."""
        focused = self.isActiveWindow()
        self.controller.client.focused = focused
        if not focused:
            self.controller.keyboard.release_all()
            self.stop.end_hold()

    # --- clock ---

    def tick(self) -> None:
        """Pull what is new. Pictures every tick, panels at about 12 Hz."""
        client = self.controller.client
        if self.isActiveWindow() != client.focused:
            self._focus_changed()
        self.controller.tick()
        states = [client.states.popleft() for _ in range(len(client.states))]
        self.operate.feed(states)
        view = self.controller.snapshot()
        self.banner.show_banner(banner(view))
        self.stop.set_stopped(view.mode is Mode.STOPPED and view.live)
        if self.page_index == OPERATE:
            self.operate.refresh_pictures(view)
        now_s = time.monotonic()
        if now_s - self._last_panels_s >= PANEL_MS / 1e3:
            self._last_panels_s = now_s
            self._refresh_panels(view)

    def _refresh_panels(self, view: Snapshot) -> None:
        self.status.show_items(*status_items(view))
        if self.page_index == OPERATE:
            self.operate.refresh_panels(view)
        elif self.page_index == SETUP:
            self.setup.refresh(view)
        client = self.controller.client
        if not client.running and client.state is not None:
            self.toast.show_text("The console's link failed and nothing can be commanded. Close and open the window again.")
        while client.notices:
            self.toast.show_text(client.notices.popleft().text)

    # --- geometry, settings, end ---

    def resizeEvent(self, event: QResizeEvent) -> None:
        width, height = self.width(), self.height()
        self.banner.setGeometry(0, 0, width - STOP_WIDTH - 8, BANNER_HEIGHT)
        self.stop.move(width - STOP_WIDTH, 0)
        self.rail.setGeometry(0, BANNER_HEIGHT, RAIL_WIDTH, height - BANNER_HEIGHT - STATUS_HEIGHT)
        self.status.setGeometry(0, height - STATUS_HEIGHT, width, STATUS_HEIGHT)
        self.stack.setGeometry(RAIL_WIDTH, BANNER_HEIGHT, width - RAIL_WIDTH, height - BANNER_HEIGHT - STATUS_HEIGHT)
        if self.keys.isVisible():
            self.keys.setGeometry(0, BANNER_HEIGHT, width, height - BANNER_HEIGHT)

    def paintEvent(self, event: QPaintEvent) -> None:
        QPainter(self).fillRect(self.rect(), tokens.color(tokens.BG))

    def _restore(self) -> None:
        """As it was left. Values that make no sense (an edited file) fall back to the defaults."""
        size = self.settings.value("size")
        self.resize(size if isinstance(size, QSize) and size.isValid() else QSize(1600, 1000))
        if self.settings.value("maximized") == "true":
            self.setWindowState(Qt.WindowState.WindowMaximized)
        frame = str(self.settings.value("frame", "view"))
        if frame in FRAMES:
            self.controller.set_frame(frame)
        self.controller.speed = min(1.0, max(0.25, self._number("speed", 1.0)))
        page = int(self._number("page", OPERATE))
        if page in (REVIEW, INSIGHTS, SETUP):
            self.show_page(page)

    def _number(self, key: str, default: float) -> float:
        try:
            return float(str(self.settings.value(key, default)))
        except ValueError:
            _log.warning("console.ini: %s is not a number; using %s", key, default)
            return default

    def save_settings(self) -> None:
        if not self.isMaximized():
            self.settings.setValue("size", self.size())
        self.settings.setValue("maximized", "true" if self.isMaximized() else "false")
        self.settings.setValue("page", self.page_index)
        self.settings.setValue("frame", self.controller.frame)
        self.settings.setValue("speed", self.controller.speed)
        self.settings.sync()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Closing the window closes the station."""
        for timer in self._timers:
            timer.stop()
        self.pages[self.page_index].deactivated()
        for page in (self.review, self.insights):
            if not isinstance(page, FailedPage):
                page.close_page()  # waits until the last label is written
        self.save_settings()
        self.controller.client.launcher("shutdown")
        self.controller.close()
        super().closeEvent(event)
