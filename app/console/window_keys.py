"""The keys of Operate, and when a key that was let go counts as released. Key events only update a snapshot or ask for something."""

from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QKeyEvent

from takeover.data.schema import Mode

if TYPE_CHECKING:
    from takeover.app.console.window import MainWindow

RELEASE_MS = 25

KEY_NAMES: dict[int, str] = {
    Qt.Key.Key_Space: "space",
    Qt.Key.Key_Up: "up",
    Qt.Key.Key_Down: "down",
    Qt.Key.Key_Left: "left",
    Qt.Key.Key_Right: "right",
    **{getattr(Qt.Key, f"Key_{letter.upper()}"): letter for letter in "wasdrfqeg"},
}
ACTS: dict[int, str] = {
    Qt.Key.Key_Backspace: "failure",
    Qt.Key.Key_M: "mark",
    Qt.Key.Key_V: "veto",
    Qt.Key.Key_N: "next",
    Qt.Key.Key_BracketLeft: "speed_down",
    Qt.Key.Key_BracketRight: "speed_up",
}


class OperateKeys:
    """Of one window."""

    _REPEATING = frozenset({Qt.Key.Key_C, Qt.Key.Key_P, Qt.Key.Key_Return, Qt.Key.Key_Enter, *KEY_NAMES})

    def __init__(self, window: "MainWindow") -> None:
        self._window = window
        self._releasing: dict[int, QTimer] = {}

    def press(self, event: QKeyEvent) -> bool:
        """Whether the key means something here."""
        key, modifiers = event.key(), event.modifiers()
        if modifiers & Qt.KeyboardModifier.ControlModifier:
            if key == Qt.Key.Key_Z and not event.isAutoRepeat():
                self._window.act("undo")
                return True
            return False
        shift = bool(modifiers & Qt.KeyboardModifier.ShiftModifier)
        name = KEY_NAMES.get(key)
        if name is not None:
            return self._window.controller.keyboard.press(name, shift=shift, auto_repeat=event.isAutoRepeat())
        if event.isAutoRepeat():
            return True
        if key == Qt.Key.Key_P:
            self._window.controller.hold_or_resume()
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._enter()
        elif key in ACTS:
            self._window.act(ACTS[key])
        else:
            return False
        return True

    def _enter(self) -> None:
        """The card's main button when ready, else success; neither while an episode is just over."""
        if not self._window.controller.enter_counts():
            return
        view = self._window.controller.snapshot()
        if view.mode is Mode.READY:
            shown = self._window.operate.card.card
            for button in shown.buttons if shown is not None else ():
                if button.primary and button.enabled:
                    self._window.act(button.act)
                    return
        elif view.in_episode:
            self._window.act("success")

    def release(self, event: QKeyEvent) -> None:
        """A release counts 25 ms later unless the key is pressed again: auto-repeat on some X servers looks like release and
        press, without Qt's flag, and must not flicker the deadman, nor press P or Enter again and again while they are held (also from
        before the window had the focus). No finger is that quick."""
        key = event.key()
        if key in self._REPEATING and not event.isAutoRepeat() and key not in self._releasing:
            timer = QTimer(self._window)
            timer.setTimerType(Qt.TimerType.PreciseTimer)
            timer.setSingleShot(True)
            timer.timeout.connect(partial(self._released, key))
            timer.start(RELEASE_MS)
            self._releasing[key] = timer

    def _released(self, key: int) -> None:
        timer = self._releasing.pop(key, None)
        if timer is not None:
            timer.deleteLater()
        if key == Qt.Key.Key_C:
            self._window.stop.end_hold()
        elif key in KEY_NAMES:
            self._window.controller.keyboard.release(KEY_NAMES[key])

    def repeats(self, key: int) -> bool:
        """The key's release is pending: this press is auto-repeat, and the key was never let go."""
        timer = self._releasing.pop(key, None)
        if timer is None:
            return False
        timer.stop()
        timer.deleteLater()
        return True
