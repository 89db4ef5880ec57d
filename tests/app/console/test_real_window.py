"""A real window on an X server, driven by real key events, against the real bridge and recorder, started by the real launcher."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from takeover.app.launcher import Launcher
from takeover.data.episode_file import EpisodeReader, verify_file
from takeover.data.schema import EpisodeKind, HoldReason, Mode, RunConfig, State
from takeover.robot_bridge.protocol import Endpoints, Subscriber


class Screen:
    """An X server of our own with nothing but the console on it, and hands on its keyboard."""

    def __init__(self) -> None:
        for tool, package in (("Xvfb", "xvfb"), ("xdotool", "xdotool")):
            if shutil.which(tool) is None:
                raise RuntimeError(f"{tool} is missing; run: apt-get install {package}")
        read, write = os.pipe()
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"],
            pass_fds=[write],
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        with os.fdopen(read) as pipe:
            self.display = f":{pipe.readline().strip()}"

    def hands(self, *words: str) -> None:
        subprocess.run(["xdotool", *words], env={**os.environ, "DISPLAY": self.display}, check=True, capture_output=True, timeout=10)

    def focus(self) -> None:
        self.hands("search", "--sync", "--onlyvisible", "--name", "^Takeover$", "windowfocus", "--sync")

    def close(self) -> None:
        self._server.terminate()
        self._server.wait(5)


class Watch:
    """What the bridge says, as anybody can hear it."""

    def __init__(self, sockets: str) -> None:
        self._states: Subscriber[State] = Subscriber(Endpoints(sockets), "state", State)
        self.state: State | None = None

    def until(self, condition: Callable[[State], bool], what: str, timeout_s: float = 15.0) -> State:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.state = self._states.receive(0.2) or self.state
            if self.state is not None and condition(self.state):
                return self.state
        raise AssertionError(
            f"{what}: not within {timeout_s} s; the bridge says {self.state and (self.state.mode, self.state.hold_reason, self.state.gate)}"
        )

    def close(self) -> None:
        self._states.close()


def take_over(screen: Screen, watch: Watch) -> State:
    """Hold Space. On a busy computer a command may be late at the very press; then only a fresh one counts, as the banner says."""
    for _ in range(5):
        screen.hands("keydown", "space")
        try:
            return watch.until(lambda s: s.mode is Mode.TAKEOVER, "Space takes over", 2.0)
        except AssertionError:
            screen.hands("keyup", "space")
            time.sleep(0.3)
    raise AssertionError("five presses of Space did not take over")


@pytest.fixture
def screen(monkeypatch) -> Iterator[Screen]:
    made = Screen()
    monkeypatch.setenv("DISPLAY", made.display)
    monkeypatch.setenv("QT_QPA_PLATFORM", "xcb")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    yield made
    made.close()


@pytest.fixture
def station(screen: Screen, tmp_path: Path) -> Iterator[tuple[Launcher, Watch]]:
    sockets = tmp_path / "s"
    config = RunConfig(session_id="t", workspace=str(tmp_path / "w"), sockets=str(sockets), learner="none", cameras=False, demonstrations=3)
    with Launcher(config, ["bridge", "recorder", "console"]) as launcher:
        launcher.wait_ready(60)
        watch = Watch(str(sockets))
        yield launcher, watch
        watch.close()


def test_keys_in_a_real_window_drive_the_real_bridge(screen: Screen, station: tuple[Launcher, Watch]) -> None:
    """Collect from the palette, take over with Space, move, let go, STOP with Esc, clear with C, close."""
    launcher, watch = station
    watch.until(lambda s: s.commander.startswith("console-"), "the console gets the lease")
    screen.focus()
    screen.hands("key", "ctrl+k")
    time.sleep(0.5)
    screen.hands("type", "--delay", "30", "start a block of demo")
    screen.hands("key", "Return")
    watch.until(
        lambda s: s.mode is Mode.READY and s.episode_kind == EpisodeKind.DEMONSTRATION and bool(s.episode_id), "a demonstration waits"
    )

    start = take_over(screen, watch)
    screen.hands("keydown", "f")
    watch.until(lambda s: s.tool_position[2] < start.tool_position[2] - 0.01, "F lowers the tool")
    screen.hands("keyup", "f")
    screen.hands("keyup", "space")
    watch.until(lambda s: s.mode is Mode.HOLD and s.hold_reason is HoldReason.RELEASED, "letting go holds the demonstration")

    take_over(screen, watch)  # a fresh press goes on
    screen.hands("keydown", "w")
    screen.hands("key", "Escape")
    stopped = watch.until(lambda s: s.mode is Mode.STOPPED, "Esc stops while Space and W are held")
    screen.hands("keyup", "w", "keyup", "space")
    time.sleep(0.5)
    still = watch.until(lambda s: s.seq > stopped.seq + 10, "states go on")
    assert still.mode is Mode.STOPPED, "STOP latches"
    screen.hands("keydown", "c")
    time.sleep(0.4)
    screen.hands("keyup", "c")
    time.sleep(0.3)
    assert watch.until(lambda s: True, "a state").mode is Mode.STOPPED, "a short press clears nothing"
    screen.hands("keydown", "c")
    watch.until(lambda s: s.mode is Mode.READY, "C held for a second clears")
    screen.hands("keyup", "c")

    screen.hands("key", "ctrl+k")
    time.sleep(0.5)
    screen.hands("type", "--delay", "30", "close takeover")
    screen.hands("key", "Return")
    assert launcher.wait(15), "closing the window ends the station"
    assert launcher.error == ""


def test_losing_the_focus_while_the_keyboard_drives_holds(screen: Screen, station: tuple[Launcher, Watch]) -> None:
    _, watch = station
    watch.until(lambda s: s.commander.startswith("console-"), "the console gets the lease")
    screen.focus()
    screen.hands("key", "ctrl+k")
    time.sleep(0.5)
    screen.hands("type", "--delay", "30", "start a block of demo")
    screen.hands("key", "Return")
    watch.until(lambda s: s.mode is Mode.READY and bool(s.episode_id), "a demonstration waits")
    take_over(screen, watch)
    screen.hands("search", "--onlyvisible", "--name", "^Takeover$", "windowunmap")
    held = watch.until(lambda s: s.mode is Mode.HOLD, "the robot is held")
    assert held.hold_reason is HoldReason.FOCUS_LOST
    screen.hands("keyup", "space")


def test_killing_the_console_in_mid_takeover_holds_and_loses_no_step(
    screen: Screen, station: tuple[Launcher, Watch], tmp_path: Path, eventually: Callable[[Callable[[], object]], list[Path]]
) -> None:
    """The window dies while Space drives: the robot is held. The next window drives only after a fresh press, on the same episode."""
    launcher, watch = station
    watch.until(lambda s: s.commander.startswith("console-"), "the console gets the lease")
    screen.focus()
    screen.hands("key", "ctrl+k")
    time.sleep(0.5)
    screen.hands("type", "--delay", "30", "start a block of demo")
    screen.hands("key", "Return")
    watch.until(lambda s: s.mode is Mode.READY and bool(s.episode_id), "a demonstration waits")
    take_over(screen, watch)
    screen.hands("keydown", "f")
    driving = watch.until(lambda s: s.human_steps > 10, "the keys drive")
    os.kill(launcher.pids()["console"], signal.SIGKILL)
    held = watch.until(lambda s: s.mode is Mode.HOLD, "without its console the robot is held", 2.0)
    assert held.hold_reason in (HoldReason.COMMAND_STALE, HoldReason.LEASE_LAPSED)
    watch.until(lambda s: s.commander == "", "the lease lapses")
    watch.until(lambda s: s.commander.startswith("console-"), "the next window gets the lease", 40.0)
    screen.focus()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:  # Space and F were never let go
        still = watch.until(lambda s: True, "a state")
        assert still.mode is Mode.HOLD
    assert (still.episode_id, still.human_steps) == (driving.episode_id, held.human_steps)
    screen.hands("keyup", "f", "keyup", "space")
    time.sleep(0.5)
    take_over(screen, watch)
    watch.until(lambda s: s.human_steps > held.human_steps + 5, "a fresh press goes on with the episode")
    screen.hands("keyup", "space")
    watch.until(lambda s: s.mode is Mode.HOLD, "let go")
    screen.hands("key", "Return")
    watch.until(lambda s: s.block_done == 1, "Enter is success")
    files = eventually(lambda: list((tmp_path / "w" / "episodes").glob("*/*.hdf5")))
    assert verify_file(files[0]) == []
    with EpisodeReader(files[0]) as episode:
        assert len(episode) >= held.human_steps + 5
