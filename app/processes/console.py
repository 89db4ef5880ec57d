"""The console process: the Qt app and the input devices."""

import ctypes
import ctypes.util
import os

from takeover.app.processes.common import ProcessContext, StartupError, run_process

XCB_LIBRARIES = {
    "xcb-cursor": "libxcb-cursor0",
    "xkbcommon-x11": "libxkbcommon-x11-0",
    "xcb-icccm": "libxcb-icccm4",
    "xcb-keysyms": "libxcb-keysyms1",
}


def check_display() -> None:
    """Raises `StartupError` when a window cannot be opened. Qt itself would abort without a word for the user."""
    if os.environ.get("QT_QPA_PLATFORM", "") not in ("", "xcb") or os.environ.get("WAYLAND_DISPLAY"):
        return
    display = os.environ.get("DISPLAY", "")
    if not display:
        raise StartupError("no display: set DISPLAY or WAYLAND_DISPLAY, or run without a window by `takeover run --headless`")
    missing = [package for library, package in XCB_LIBRARIES.items() if ctypes.util.find_library(library) is None]
    if missing:
        raise StartupError(f"the window system needs {' '.join(missing)}; run: sudo apt-get install {' '.join(missing)}")
    name = ctypes.util.find_library("xcb")
    if name is None:
        raise StartupError("the window system needs libxcb1; run: sudo apt-get install libxcb1")
    xcb = ctypes.CDLL(name)
    xcb.xcb_connect.restype = ctypes.c_void_p
    connection = ctypes.c_void_p(xcb.xcb_connect(None, None))
    failed = xcb.xcb_connection_has_error(connection)
    xcb.xcb_disconnect(connection)
    if failed:
        raise StartupError(f"cannot open the display {display!r}: is its server running, and may you use it?")


def main(context: ProcessContext) -> None:
    check_display()
    from takeover.app.console.application import run_console

    status = run_console(context.config, context.stop, context.ready)
    if status:
        raise RuntimeError(f"the window ended with status {status}")


if __name__ == "__main__":
    raise SystemExit(run_process("console", main))
