"""The bridge as a process: start, cameras, kill and restart, bad input, clean end."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import simplejpeg

from takeover.data.schema import CameraFrame, Command, Fault, Mode, Role, RunConfig, SafetyLimits, State
from takeover.robot_bridge.protocol import ControlClient, Endpoints, Push, Subscriber

ENTRY = [sys.executable, "-m", "takeover.app.processes.bridge", "--config"]


class BridgeProcess:
    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder
        settings: dict[str, Any] = {"session_id": "x", "workspace": str(folder), "sockets": str(folder / "s"), "cameras": False}
        self.config = RunConfig(**(settings | config))
        self.file = folder / "run.json"
        self.file.write_bytes(msgspec.json.encode(self.config))
        (folder / "s").mkdir(mode=0o700, exist_ok=True)
        self.endpoints = Endpoints(folder / "s")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([*ENTRY, str(self.file)], stderr=subprocess.PIPE)
        ready = self.folder / "s" / "bridge.ready"
        deadline = time.monotonic() + 30.0
        while not (ready.exists() and ready.read_text() == str(self.process.pid)):
            assert self.process.poll() is None, self.process.stderr.read() if self.process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[BridgeProcess]:
    made = BridgeProcess(tmp_path)
    yield made
    made.stop()


def test_killed_and_restarted_it_is_disarmed_in_a_new_session(bridge: BridgeProcess) -> None:
    bridge.start()
    assert bridge.process is not None
    client = ControlClient(bridge.endpoints, "console", Role.OPERATOR)
    with (
        Subscriber[State](bridge.endpoints, "state", State) as states,
        Push[Command](bridge.endpoints, "command", Command) as commands,
    ):
        first = client.hello("test", 5.0)
        bridge.process.kill()
        bridge.process.wait()
        bridge.start()
        second = client.hello("test", 10.0)
        assert second.session != first.session
        old = Command(
            session=first.session,
            sender="console",
            seq=10**6,
            lease="x",
            device_id="pad",
            device_kind="gamepad",
            device_alive=True,
            deadman=True,
            neutral=False,
            focused=True,
            gui_alive=True,
            action=[1.0, 0.0, 0.0, 0.0],
            authority=["arm"],
            newest_state_seq=1,
        )
        assert commands.send(old, 2.0)
        time.sleep(0.3)
        while (state := states.receive(1.0)) is not None and state.session != second.session:
            pass
        assert state is not None
        assert state.mode is Mode.READY
        assert state.action == [0.0] * 4
        assert state.commander == ""
    client.close()
    began = time.monotonic()
    bridge.process.terminate()
    assert bridge.process.wait(10) == 0
    assert time.monotonic() - began < 3.0  # measured 0.2 s
    assert not (bridge.folder / "s" / "bridge.ready").exists()


def test_pictures_are_published_with_counter_and_source_time(tmp_path: Path) -> None:
    bridge = BridgeProcess(tmp_path, cameras=True)
    try:
        bridge.start()
        with Subscriber[CameraFrame](bridge.endpoints, "camera/front", CameraFrame) as front:
            frames = [frame for _ in range(3) if (frame := front.receive(5.0)) is not None]
        assert len(frames) == 3
        assert frames[0].counter < frames[1].counter < frames[2].counter
        assert frames[0].t_source_ns < frames[2].t_source_ns <= time.monotonic_ns()
        picture = simplejpeg.decode_jpeg(frames[0].jpeg)
        assert picture.shape == (480, 640, 3)
        assert picture.std() > 5.0
        client = ControlClient(bridge.endpoints, "console", Role.OPERATOR)
        client.hello("test", 5.0)
        assert client.ask(Fault(sender="console", name="frozen_camera"), 5.0).error == ""
        with Subscriber[State](bridge.endpoints, "state", State) as states:
            deadline = time.monotonic() + 10.0
            while (state := states.receive(1.0)) is None or "no new picture" not in state.gate["cameras"]:
                assert time.monotonic() < deadline
        client.close()
    finally:
        bridge.stop()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"robot": "toaster"}, "unknown robot 'toaster'; known: sim"),
        ({"limits": SafetyLimits(workspace_low=[0.29, 0.29, 0.49])}, "leave nothing of the robot's workspace"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_two(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    bridge = BridgeProcess(tmp_path, **config)
    done = subprocess.run([*ENTRY, str(bridge.file)], capture_output=True, text=True, timeout=60, env=dict(os.environ), check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "s" / "bridge.ready").exists()
