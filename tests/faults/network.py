"""A bridge in a process of its own that listens on a loopback address, set up by the commands that a person types."""

import contextlib
import io
import subprocess
import sys
import time
from pathlib import Path

from takeover.app.cli import main
from takeover.robot_bridge.protocol import ControlClient, Endpoints, KeyFolder, RequestTimeout
from takeover.robot_bridge.protocol.link import Link


def takeover(*arguments: str) -> str:
    """What `takeover` prints; raises when its exit status is not 0."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main(arguments)
    assert status == 0, out.getvalue()
    return out.getvalue()


class BridgeProcess:
    """`takeover bridge --listen` with the card ``robot.json``; `desk` makes another computer's workspace."""

    def __init__(self, folder: Path, port: int, *options: str) -> None:
        self.folder, self.port = folder, port
        self.workspace = folder / "robot"
        self.card = folder / "robot.json"
        self.card.write_text(takeover("keys", "new", "robot", "--workspace", str(self.workspace)))
        self.address = f"tcp://127.0.0.2:{port}"
        command = [sys.executable, "-m", "takeover.app.cli", "bridge", "--listen", self.address, "--workspace", str(self.workspace)]
        self.process = subprocess.Popen([*command, "--operator", "none", *options], stdout=subprocess.DEVNULL)

    def desk(self, name: str, *roles: str) -> Path:
        """A workspace whose key the bridge admits with ``roles``; without roles it does not."""
        workspace = self.folder / name
        card = self.folder / f"{name}.json"
        card.write_text(takeover("keys", "new", name, "--workspace", str(workspace)))
        takeover("keys", "trust", str(self.card), "--workspace", str(workspace))
        if roles:
            takeover("keys", "allow", str(card), "--role", *roles, "--workspace", str(self.workspace))
        return workspace

    def endpoints(self, workspace: Path) -> Endpoints:
        return Endpoints(workspace / "s", Link("127.0.0.2", self.port, False, KeyFolder(workspace / "keys")))

    def wait(self, workspace: Path) -> None:
        """Until it answers."""
        client = ControlClient(self.endpoints(workspace), "waiting")
        deadline = time.monotonic() + 30.0
        try:
            while True:
                with contextlib.suppress(RequestTimeout):
                    if not client.hello("test", 0.5).error:
                        return
                assert time.monotonic() < deadline, "the bridge does not answer"
        finally:
            client.close()

    def close(self) -> None:
        self.process.terminate()
        assert self.process.wait(10) == 0
