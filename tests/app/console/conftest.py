"""Console tests run without a screen unless one is asked for; one QApplication, a peer on real sockets."""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).parent))

from peer import Peer

from takeover.app.console.controller import Controller
from takeover.app.console.tokens import apply_theme
from takeover.app.console.window import MainWindow


@pytest.fixture(autouse=True, scope="module")
def _garbage_in_the_gui_thread() -> Iterator[None]:
    """As in the console: worker threads of a page must not destroy the Qt objects of one that was closed."""
    gc.disable()
    yield
    gc.collect()
    gc.enable()


@pytest.fixture
def theme(qapp) -> None:
    apply_theme(qapp)


@pytest.fixture
def peer(tmp_path_factory, qapp) -> Iterator[Peer]:
    made = Peer(tmp_path_factory.mktemp("p"))
    yield made
    made.close()


@pytest.fixture
def console(peer: Peer, theme, qtbot) -> Iterator[tuple[MainWindow, Controller]]:
    """A shown window, connected, with the lease."""
    controller = Controller(peer.config)
    window = MainWindow(controller)
    controller.start()
    window.resize(1600, 1000)
    window.show()
    window.activateWindow()
    qtbot.waitUntil(lambda: controller.client.commands_sent > 2 and window.isActiveWindow() and controller.client.focused, timeout=8000)
    yield window, controller
    window.close()


@pytest.fixture
def until(qtbot) -> Callable[..., None]:
    def wait(condition: Callable[[], object], timeout_ms: int = 5000) -> None:
        qtbot.waitUntil(lambda: bool(condition()), timeout=timeout_ms)

    return wait


@pytest.fixture
def pump(qapp) -> Callable[[float], None]:
    """Let the window live for a while."""

    def run(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            qapp.processEvents()
            time.sleep(0.004)

    return run
