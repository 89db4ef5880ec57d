"""The launcher with the real processes: start, kill, restart, give up, stop, leave nothing behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from takeover.app import child
from takeover.app.launcher import RUN_FILE, Interrupted, Launcher, StationFailed
from takeover.app.processes.common import StartupError
from takeover.data.schema import LauncherReply, LauncherRequest, ProcessStatus, RunConfig
from takeover.robot_bridge.protocol import Dealer, Endpoints, Subscriber

SMALL = ["bridge", "recorder", "operator"]
EVERYTHING = ["bridge", "recorder", "actor", "learner", "evaluator", "operator"]


def processes_of(config: RunConfig) -> list[psutil.Process]:
    """Every living process that was started with this station's configuration."""
    path = str(Path(config.sockets) / RUN_FILE)
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if path in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def assert_nothing_left(config: RunConfig) -> None:
    assert processes_of(config) == []
    assert not Path(config.sockets).exists()
    assert list(Path(config.workspace).glob("*.lock")) == []


def test_start_and_stop_leave_nothing_behind(station_config):
    config = station_config()
    with Launcher(config, SMALL) as launcher:
        launcher.wait_ready(60)
        assert launcher.states() == dict.fromkeys(SMALL, "up")
        assert {process.pid for process in processes_of(config)} == set(launcher.pids().values())
        assert Path(config.sockets).stat().st_mode & 0o077 == 0
        stopping_s = time.monotonic()
    assert time.monotonic() - stopping_s < 10
    assert_nothing_left(config)
    assert launcher.error == ""


@pytest.mark.parametrize("limit_s", [30.0, 4.0])
def test_a_recorder_that_is_slow_to_end_may_finish_what_it_writes(station_config, monkeypatch, limit_s):
    """A stopped process is as slow as one whose disk is."""
    monkeypatch.setattr("takeover.app.launcher.LAST_STOP_TIMEOUT_S", limit_s)
    config, said = station_config(), []
    with Launcher(config, SMALL, said.append) as launcher:
        launcher.wait_ready(60)
        pid = launcher.pids()["recorder"]
        os.kill(pid, signal.SIGSTOP)
        going_on = threading.Timer(6.0, os.kill, (pid, signal.SIGCONT))
        if limit_s > 6.0:
            going_on.start()
    slow = f"recorder is still writing to the disk; it has {limit_s:.0f} s"
    if limit_s > 6.0:
        assert said == [slow]
        assert_nothing_left(config)
    else:
        assert said == [slow, "recorder did not stop within 4 s and was killed"]
        assert processes_of(config) == []


def test_every_process_killed_once_comes_back(station_config, eventually):
    config = station_config()
    with Launcher(config, EVERYTHING) as launcher:
        launcher.wait_ready(100)
        before = launcher.pids()
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: all(count == 1 for count in launcher.restarts().values()), 30)
        launcher.wait_ready(100)
        after = launcher.pids()
        assert set(after) == set(before)
        assert not set(after.values()) & set(before.values())
    assert_nothing_left(config)


def test_the_second_station_on_a_workspace_is_refused(station_config):
    config = station_config()
    with Launcher(config, ["recorder"]) as launcher:
        launcher.wait_ready(60)
        other = msgspec.structs.replace(config, sockets=config.sockets + "2")
        with pytest.raises(StartupError, match=str(os.getpid())):
            Launcher(other, ["recorder"]).start()
        assert not Path(other.sockets).exists()
        assert launcher.states() == {"recorder": "up"}


def test_sockets_in_use_are_refused(station_config, tmp_path):
    config = station_config()
    with Launcher(config, ["recorder"]) as launcher:
        launcher.wait_ready(60)
        other = msgspec.structs.replace(config, workspace=str(tmp_path / "other"))
        with pytest.raises(StartupError, match="still uses"):
            Launcher(other, ["recorder"]).start()
        assert Path(config.sockets, RUN_FILE).exists()
    assert list((tmp_path / "other").glob("*.lock")) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"task_parameters": {"no_such_parameter": 1.0}}, "bridge"),
        ({"learner_parameters": {"no_such_parameter": 1.0}}, "learner"),
        ({"learner": "iwr", "learner_parameters": {"no_such_parameter": 1.0}}, "learner"),
    ],
)
def test_a_process_that_refuses_its_configuration_stops_everything_with_its_line(station_config, changes, name):
    config = station_config(**changes)
    with Launcher(config, [*SMALL, "learner"]) as launcher:
        with pytest.raises(StartupError) as refusal:
            launcher.wait_ready(60)
        assert str(refusal.value).startswith(f"{name}: ")
        assert "no_such_parameter" in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert launcher.exit_status == 2
    assert_nothing_left(config)


def test_no_opengl_is_one_line_and_status_2(station_config, monkeypatch):
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_DIRS", "/nonexistent")
    config = station_config(cameras=True)
    with Launcher(config, ["bridge", "recorder"]) as launcher:
        assert launcher.wait(60)
        with pytest.raises(StartupError, match="OpenGL") as refusal:
            launcher.check()
        assert "\n" not in str(refusal.value)
    assert_nothing_left(config)


def test_a_process_that_keeps_dying_is_given_up(station_config, monkeypatch, eventually):
    monkeypatch.setattr(child, "FIRST_BACKOFF_S", 0.01)
    config = station_config()
    with Launcher(config, ["recorder", "operator"]) as launcher:
        killed = 0
        while launcher.running:
            pid = launcher.pids().get("operator", 0)
            if pid and pid != killed:
                os.kill(pid, signal.SIGKILL)
                killed = pid
            time.sleep(0.005)
        with pytest.raises(StationFailed, match="operator ended 8 times within a minute, last by SIGKILL"):
            launcher.check()
        assert launcher.restarts()["operator"] == child.GIVE_UP_RESTARTS - 1
        assert launcher.exit_status == 1
    assert_nothing_left(config)


def test_an_unusable_catalog_is_one_line_and_status_2(station_config):
    config = station_config()
    (Path(config.workspace) / "catalog.sqlite").mkdir(parents=True)
    with Launcher(config, ["recorder"]) as launcher:
        assert launcher.wait(60)
        with pytest.raises(StartupError, match="catalog") as refusal:
            launcher.check()
        assert "\n" not in str(refusal.value)
    assert_nothing_left(config)


def test_requests_over_the_socket(station_config, eventually):
    config = station_config()
    endpoints = Endpoints(config.sockets)
    with Launcher(config, ["recorder"]) as launcher:
        launcher.wait_ready(60)
        with (
            Dealer(endpoints, "launcher", LauncherRequest, LauncherReply) as dealer,
            Subscriber(endpoints, "process_status", ProcessStatus) as statuses,
        ):

            def ask(action: str, process: str = "") -> str:
                dealer.send(LauncherRequest(request_id=1, action=action, process=process))
                reply = dealer.receive(10.0)
                assert reply is not None
                return reply.error

            assert "known: bridge" in ask("start", "rm")
            assert ask("start", "operator") == ""
            eventually(lambda: launcher.states().get("operator") == "starting")
            status = statuses.receive(5.0)
            assert status.states["recorder"] == "up"
            assert status.pids["recorder"] == launcher.pids()["recorder"]
            assert ask("stop", "operator") == ""
            eventually(lambda: launcher.states()["operator"] == "stopped")
            old = launcher.pids()["recorder"]
            assert ask("restart", "recorder") == ""
            eventually(lambda: launcher.states()["recorder"] == "up")
            assert launcher.pids()["recorder"] != old
            assert launcher.restarts()["recorder"] == 0, "restarts count deaths, not requests"
            assert ask("shutdown") == ""
        assert launcher.wait(10)
        with pytest.raises(Interrupted):
            launcher.check()
    assert_nothing_left(config)


LAUNCH = """
import sys, msgspec
from takeover.app.launcher import Launcher
from takeover.app.processes.common import load_config
with Launcher(load_config(sys.argv[1]), ["bridge", "recorder", "operator"]) as launcher:
    launcher.wait_ready(60)
    print("up", flush=True)
    launcher.wait()
"""


def test_a_killed_launcher_takes_its_processes_with_it_and_the_next_one_cleans_up(station_config, tmp_path, eventually):
    config = station_config()
    path = tmp_path / "config.json"
    path.write_bytes(msgspec.json.encode(config))
    first = subprocess.Popen([sys.executable, "-c", LAUNCH, str(path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "up\n"
    assert len(processes_of(config)) == 3
    first.kill()
    first.wait()
    # At once, while the orphans may still be ending: the next station waits for them instead of mixing with them.
    with Launcher(msgspec.structs.replace(config, sockets=config.sockets + "2"), SMALL) as launcher:
        launcher.wait_ready(60)
        assert processes_of(config) == []
        assert not Path(config.sockets).exists()
    assert_nothing_left(config)


def test_unknown_processes_are_refused(station_config):
    with pytest.raises(StartupError, match="known: bridge, recorder"):
        Launcher(station_config(), ["bridge", "cat"])
