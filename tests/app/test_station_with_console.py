"""The launcher around the real window and the operator that is started on demand."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from takeover.app.launcher import Launcher
from takeover.app.stream import StationLink
from takeover.data.schema import EpisodeKind, Mode, Start
from takeover.robot_bridge.protocol import Endpoints


@pytest.fixture
def station(tmp_path):
    """``takeover`` as a person starts it, its window off screen."""
    with tempfile.TemporaryDirectory(prefix="tk") as runtime:
        environment = os.environ | {"QT_QPA_PLATFORM": "offscreen", "XDG_RUNTIME_DIR": runtime}
        command = [sys.executable, "-m", "takeover.app.cli", "--workspace", str(tmp_path / "ws"), "--learner", "none"]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        process.runtime = Path(runtime)
        process.workspace = tmp_path / "ws"
        yield process
        process.kill()
        process.communicate()


def pid_of(station: subprocess.Popen, name: str) -> int:
    """0 until it is ready."""
    paths = list(station.runtime.glob(f"takeover/*/{name}.ready"))
    return int(paths[0].read_text()) if paths else 0


def assert_gone(station: subprocess.Popen) -> None:
    assert not list((station.runtime / "takeover").iterdir())
    assert not list(station.workspace.glob("*.lock"))
    assert [p for p in psutil.process_iter(["cmdline"]) if str(station.runtime) in " ".join(p.info["cmdline"] or [])] == []


def test_the_window_comes_back_when_killed_and_closing_it_ends_everything(station, eventually):
    first = eventually(lambda: pid_of(station, "bridge") and pid_of(station, "console"), 60)
    os.kill(first, signal.SIGKILL)
    second = eventually(lambda: (pid := pid_of(station, "console")) != first and pid, 60)
    assert station.poll() is None
    os.kill(second, signal.SIGTERM)  # the window closes itself and ends with status 0, as by its close button
    _, error = station.communicate(timeout=30)
    assert station.returncode == 0, error
    assert_gone(station)


def test_sigterm_closes_the_window_too(station, eventually):
    eventually(lambda: pid_of(station, "bridge") and pid_of(station, "console"), 60)
    station.send_signal(signal.SIGTERM)
    _, error = station.communicate(timeout=30)
    assert station.returncode == 0, error
    assert_gone(station)


def test_the_operator_on_demand_makes_demonstrations_and_nothing_else(station_config, eventually):
    config = station_config(operator="console", clock="realtime", learner="none")
    with Launcher(config, ["bridge", "recorder"]) as launcher:
        launcher.wait_ready(60)
        link = StationLink(Endpoints(config.sockets), "test", config.workspace)
        try:

            def state():
                link.update(0.05)
                return link.state

            eventually(state)
            launcher.request("start", "operator")
            eventually(lambda: launcher.states().get("operator") == "up", 30)
            assert state().commander == "", "no demonstration, no lease"
            eventually(lambda: not link.ask(Start(sender="test", kind=EpisodeKind.DEMONSTRATION, episodes=1)), 20)
            eventually(lambda: state().mode == Mode.TAKEOVER and state().commander == "operator", 20)
            eventually(lambda: state() and link.log.of_kind(EpisodeKind.DEMONSTRATION), 40)
            (episode,) = link.log.of_kind(EpisodeKind.DEMONSTRATION)
            assert episode.end.steps == episode.end.human_steps > 10
            eventually(lambda: state().commander == "", 10)
        finally:
            link.close()
