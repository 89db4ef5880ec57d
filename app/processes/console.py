"""The console process: the Qt app and the input devices."""

import os

from takeover.app.processes.common import ProcessContext, StartupError, run_process


def main(context: ProcessContext) -> None:
    if os.environ.get("QT_QPA_PLATFORM", "") == "" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise StartupError("no display: set DISPLAY or WAYLAND_DISPLAY, or run without a window by `takeover run --headless`")
    from takeover.app.console.application import run_console

    status = run_console(context.config, context.stop, context.ready)
    if status:
        raise RuntimeError(f"the window ended with status {status}")


if __name__ == "__main__":
    raise SystemExit(run_process("console", main))
