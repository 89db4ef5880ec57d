"""Run the console: one Qt application, one window, one controller."""

import logging
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from takeover.app.console.controller import Controller
from takeover.app.console.garbage import GuiThreadCollector
from takeover.app.console.tokens import apply_theme
from takeover.app.console.window import MainWindow
from takeover.app.inputs.manager import DeviceManager
from takeover.data.schema import RunConfig

_log = logging.getLogger("console")


def make_application() -> QApplication:
    """The one QApplication, in our look."""
    app = QApplication.instance() or QApplication(sys.argv[:1])
    if not isinstance(app, QApplication):
        raise RuntimeError("a Qt application without widgets is already running in this process")
    app.setApplicationName("Takeover")
    apply_theme(app)
    return app


def make_controller(config: RunConfig) -> Controller:
    """With all devices; a device's STOP goes out from the device thread, also while the GUI is blocked."""
    controller = Controller(config)
    controller.devices.manager = DeviceManager(
        on_stop=lambda reading: controller.client.stop_robot(f"STOP pressed on {reading.name}"), kinds=config.devices
    )
    return controller


def run_console(config: RunConfig, stop: threading.Event, ready: Callable[[], None]) -> int:
    """Until the window is closed or ``stop`` is set. Returns Qt's exit status (0: closed by the person)."""
    sys.setswitchinterval(0.001)  # painting must not keep the link thread from its 20 ms
    app = make_application()
    collector = GuiThreadCollector()
    controller = make_controller(config)
    window = MainWindow(controller)

    def on_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """An error in a slot: logged whole, shown, and the window lives on."""
        _log.error("error in the window:\n%s", "".join(traceback.format_exception(kind, error, trace)))
        window.toast.show_text(f"{kind.__name__}: {error} (details in the log)")

    sys.excepthook = on_error
    controller.start()
    window.show()
    watch = QTimer()
    watch.setInterval(100)
    watch.timeout.connect(lambda: window.close() if stop.is_set() else None)
    watch.start()
    QTimer.singleShot(0, ready)
    try:
        return app.exec()
    finally:
        watch.stop()
        collector.close()
        sys.excepthook = sys.__excepthook__
