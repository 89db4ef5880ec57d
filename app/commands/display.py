"""Whether a window can be opened here."""

import os
import socket

from takeover.app.processes.common import StartupError


def has_display() -> bool:
    """Whether a window can be opened here. A DISPLAY whose server does not answer counts as none."""
    platform = os.environ.get("QT_QPA_PLATFORM", "")
    if platform in ("offscreen", "minimal", "vnc") or os.environ.get("WAYLAND_DISPLAY"):
        return True
    display = os.environ.get("DISPLAY", "")
    if not display.startswith(":"):
        return bool(display)  # on another computer: only Qt can tell
    number = display[1:].partition(".")[0]
    return any(_answers(address) for address in (f"/tmp/.X11-unix/X{number}", f"\0/tmp/.X11-unix/X{number}"))


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(address)
        except OSError:
            return False
    return True


def require_display(command: str) -> None:
    if not has_display():
        raise StartupError(
            f"no display: `{command}` opens a window and neither DISPLAY nor WAYLAND_DISPLAY leads to one; "
            "use `takeover run --headless`, or `xvfb-run takeover`"
        )
