"""Pictures of every page, of a real station at work: ``python -m takeover.app.console.screenshots --out docs/images``.

Starts bridge, recorder, actor, learner, evaluator and the scripted operator on the simulated robot, lets them demonstrate, clone
and run some episodes, and takes each picture from the real window when the station is in that state. Takes a few minutes.
Without a display it needs ``xvfb-run`` or ``QT_QPA_PLATFORM=offscreen``.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from PySide6.QtWidgets import QApplication

from takeover.app.commands.options import StationOptions, make_config
from takeover.app.console.application import make_application
from takeover.app.console.controller import Controller
from takeover.app.console.models.cards import card
from takeover.app.console.window import INSIGHTS, OPERATE, REVIEW, SETUP, MainWindow
from takeover.app.launcher import Interrupted, Launcher, StationFailed
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import Progress, RunError, RunPlan, Supervisor
from takeover.data.schema import Mode, RunConfig

PROCESSES = ("bridge", "recorder", "actor", "learner", "evaluator", "operator")


@dataclass(frozen=True)
class Screenshots:
    """Take a picture of each page of the console."""

    workspace: str = ""
    """Folder for the station's records, a new or an earlier one (default: one that is thrown away)."""
    out: Path = Path("docs/images")
    """Where the pictures go."""
    robot: str = "sim:peg-insert"
    """Robot and task."""
    episodes: int = 25
    """Policy episodes before the pictures of the loop are taken."""
    width: int = 1600
    """Width of the window in pixels."""
    height: int = 1000
    """Height of the window in pixels."""
    patience_s: float = 600.0
    """How long to wait for each state before giving up."""


class Photographer:
    """Pumps the window's event loop until something is so, then grabs it."""

    def __init__(self, app: QApplication, window: MainWindow, controller: Controller, options: Screenshots) -> None:
        self.app, self.window, self.controller, self.options = app, window, controller, options
        self.problem: Callable[[], str] = lambda: ""

    def pump(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.app.processEvents()
            time.sleep(0.004)

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Raises `RunError` naming ``what`` when it does not come true in time, or when the station failed."""
        deadline = time.monotonic() + self.options.patience_s
        while not condition():
            if problem := self.problem():
                raise RunError(f"while waiting until {what}: {problem}")
            if time.monotonic() > deadline:
                raise RunError(f"waited {self.options.patience_s:.0f} s until {what}")
            self.pump(0.05)

    def take(self, name: str) -> None:
        self.app.processEvents()
        path = self.options.out / f"{name}.png"
        if not self.window.grab().save(str(path)):
            raise RunError(f"cannot write {path}")
        print(path)

    def mode(self) -> Mode:
        return self.controller.snapshot().mode

    def policy_drives(self, from_step: int = 0) -> bool:
        """Also lets it go on when a busy computer made it late."""
        state = self.controller.client.state
        if self.mode() is Mode.HOLD:
            self.controller.act("resume")
            self.pump(0.3)
        return state is not None and self.mode() is Mode.POLICY and state.episode_step > from_step

    def held_card(self) -> bool:
        shown = card(self.controller.snapshot())
        return self.mode() is Mode.HOLD and shown is not None and self.window.operate.card.isVisible()


def take_all(photo: Photographer) -> None:
    """Every page and state, in the order in which a session has them."""
    window, controller, client = photo.window, photo.controller, photo.controller.client
    keyboard = controller.keyboard
    photo.until(lambda: client.state is not None and len(client.frames) >= 2, "the cameras are live")
    photo.pump(1.0)
    photo.take("operate_first")
    photo.until(lambda: photo.mode() is Mode.TAKEOVER, "a demonstration runs")
    photo.pump(1.0)
    photo.take("operate_demonstration")
    photo.until(lambda: sum(e.kind == "policy" for e in client.episodes) >= photo.options.episodes, "the policy episodes are done")
    _relieve_operator(photo)
    for _ in range(20):  # an episode in full swing, taken over by the keyboard
        photo.until(lambda: photo.policy_drives(from_step=15), "the policy drives")
        photo.take("operate_policy")
        for key in ("space", "w", "f"):
            keyboard.press(key)
        photo.pump(0.9)
        driving = photo.mode() is Mode.TAKEOVER and client.holds_lease
        if driving:
            photo.take("operate")
        keyboard.release_all()
        if driving:
            break
        photo.pump(3.0)
    else:
        raise RunError("twenty takeovers by the keyboard were all cut short")
    photo.pump(1.0)
    photo.until(photo.policy_drives, "the policy drives again")
    controller.act("hold")
    photo.until(photo.held_card, "the robot is held")
    photo.pump(0.4)
    photo.take("operate_hold")
    _pages(photo)
    window.show_page(OPERATE)
    controller.act("stop")
    photo.until(lambda: photo.mode() is Mode.STOPPED and window.stop.stopped, "the robot is stopped")
    photo.pump(1.0)
    photo.take("operate_stopped")


def _relieve_operator(photo: Photographer) -> None:
    """From here on the person at this window supervises: the script would press resume at once."""
    client = photo.controller.client
    client.only_on_press = False
    photo.until(lambda: client.holds_lease, "the console has the lease")
    client.launcher("stop", "operator")
    photo.until(lambda: client.processes is not None and client.processes.states.get("operator") == "stopped", "the script has stopped")


def _pages(photo: Photographer) -> None:
    window = photo.window
    for index, name in ((REVIEW, "review"), (INSIGHTS, "insights"), (SETUP, "setup")):
        window.show_page(index)
        photo.pump(4.0)
        photo.take(name)
    window.show_page(OPERATE)
    window.toggle_keys()
    photo.pump(0.3)
    photo.take("keys")
    window.toggle_keys()


def _drive(config: RunConfig, launcher: Launcher, errors: list[str]) -> None:
    """Demonstrations, cloning and policy episodes, as a person would start them."""
    supervisor = Supervisor(config, launcher, RunPlan(episodes=10_000), _ignore)
    try:
        supervisor.prepare()
        supervisor.work()
    except (RunError, StartupError, StationFailed) as error:
        errors.append(str(error))
    except Interrupted:
        return
    finally:
        supervisor.close()


def _ignore(progress: Progress) -> None:
    """The window shows it."""


def run(options: Screenshots) -> None:
    """Raises `StartupError` or `RunError`."""
    if not options.workspace:
        with tempfile.TemporaryDirectory(prefix="takeover-screenshots-") as folder:
            return run(replace(options, workspace=folder))
    options.out.mkdir(parents=True, exist_ok=True)
    config = make_config(StationOptions(workspace=options.workspace, robot=options.robot), operator="scripted")
    app = make_application()
    errors: list[str] = []
    with Launcher(config, PROCESSES) as launcher:
        driver = threading.Thread(target=_drive, args=(config, launcher, errors), name="driver")
        driver.start()
        controller = Controller(config)
        window = MainWindow(controller)
        window.show_page(OPERATE)
        window.resize(options.width, options.height)
        controller.start()
        window.show()
        window.activateWindow()
        photo = Photographer(app, window, controller, options)
        photo.problem = lambda: launcher.error or "".join(errors)
        try:
            take_all(photo)
        finally:
            window.close()
            launcher.shutdown()
            driver.join()


def main() -> int:
    try:
        run(tyro.cli(Screenshots, description=__doc__))
    except (StartupError, RunError) as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 2 if isinstance(error, StartupError) else 1
    return 0


if __name__ == "__main__":
    os.environ["QT_QPA_PLATFORM"] = "offscreen"  # always: the window must be the active one for its keyboard to drive
    raise SystemExit(main())
