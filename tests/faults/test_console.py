"""Row 8, seen from the window: the bridge hangs and the real console, with the real bridge process at the other end, says so."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from PySide6.QtWidgets import QApplication

from takeover.app.console.application import make_controller
from takeover.app.console.tokens import apply_theme
from takeover.app.console.window import MainWindow

from .rig import Rig, rig

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

Bound = Callable[[float, float, str], None]
SHOWN_MS = 500.0  # states end (of a stuck control thread after 100 ms), 350 ms without one, the window looks again


@pytest.fixture(scope="module")
def shown(qapp: QApplication) -> Iterator[tuple[Rig, MainWindow]]:
    """A window of this process that knows the bridge of that process."""
    apply_theme(qapp)
    with rig(["bridge", "recorder"], operator="console") as station:
        controller = make_controller(station.config)
        window = MainWindow(controller)
        controller.start()
        window.show()
        try:
            assert says(qapp, window, 20.0, lambda word: word not in ("OFFLINE", "LINK LOST")) >= 0.0, "the window does not connect"
            yield station, window
        finally:
            window.close()


def says(qapp: QApplication, window: MainWindow, timeout_s: float, expected: Callable[[str], bool]) -> float:
    """Let the window live until its banner says what is expected; returns when (monotonic ns), -1: it does not."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        qapp.processEvents()
        if expected(window.banner.banner.word):
            return float(time.monotonic_ns())
        time.sleep(0.004)
    return -1.0


@pytest.mark.parametrize("how", ["stopped", "control thread stuck"])
def test_row_08_console_shows_it(shown: tuple[Rig, MainWindow], qapp: QApplication, bound: Bound, how: str) -> None:
    station, window = shown
    stopped = how == "stopped"
    fault = station.kill("bridge", signal.SIGSTOP) if stopped else station.hook("bridge", "stick", "control", 3.0)
    at = says(qapp, window, 10.0, lambda word: word == "LINK LOST")
    assert at > 0, "the window goes on as if nothing had happened"
    bound((at - fault) / 1e6, SHOWN_MS, "ms")
    if stopped:
        station.kill("bridge", signal.SIGCONT)
    assert says(qapp, window, 10.0, lambda word: word != "LINK LOST") > 0, "it is back"
