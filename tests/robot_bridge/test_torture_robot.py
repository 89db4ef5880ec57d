"""The robot of `benchmarks.torture` is killed too: what its monitors saw is not lost with them, and the bridge finds the new one."""

import ast
import importlib.util
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks.torture_events import LIMITS, PROCESSES, ROBOT, THREADS, Strike, motion, strike
from benchmarks.torture_report import report
from benchmarks.torture_robot import TortureRobot, joined
from benchmarks.torture_run import Torturer
from benchmarks.whole_station import WholeStation, Worker
from takeover.data.schema import EpisodeKind, EvaluatorStatus, HoldReason, Mode, State
from takeover.robot_bridge.protocol import Subscriber
from takeover.robot_bridge.robots.base import RobotError
from takeover.robot_bridge.robots.sim_remote import RemoteSimRobot
from tests.faults.rig import HOOKS, rig

ROOT = Path(__file__).resolve().parents[2]
MS = 1_000_000
KILLED = Strike(0, "kill", ROBOT, "", 0.3, 0.2)


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[TortureRobot]:
    made = TortureRobot(tmp_path)
    yield made
    made.close()


def test_every_process_is_killed_and_stopped() -> None:
    struck = {(made.do, made.process) for made in (strike(0, i) for i in range(600))}
    everything = {*PROCESSES, ROBOT}
    assert {process for do, process in struck if do == "kill"} == everything
    assert {process for do, process in struck if do == "stop"} == everything
    assert {process for do, process in struck if do == "stick"} == set(THREADS) == set(PROCESSES)


def test_every_thread_that_is_stuck_has_a_place_where() -> None:
    """A name or a place that is not there would stick nothing, and every event of it would pass."""
    found = importlib.util.spec_from_file_location("hooks", HOOKS / "sitecustomize.py")
    assert found is not None
    assert found.loader is not None
    hooks = importlib.util.module_from_spec(found)
    found.loader.exec_module(hooks)
    missing = []
    for process, names in THREADS.items():
        for name in names:
            module, owner, method = hooks.WHERE[name]
            module = f"takeover.app.processes.{process}" if module == "__main__" else module
            tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
            methods = {
                made.name
                for kind in tree.body
                if isinstance(kind, ast.ClassDef) and kind.name == owner
                for made in kind.body
                if isinstance(made, ast.FunctionDef)
            }
            missing += [] if method in methods else [(name, module, owner, method)]
    assert missing == []


def test_the_evaluators_loop_is_stuck_for_as_long_as_it_is_told() -> None:
    with rig(("bridge", "recorder", "evaluator")) as station:
        with Subscriber[EvaluatorStatus](station.endpoints, "evaluator_status", EvaluatorStatus, latest=False) as statuses:
            assert statuses.receive(10.0) is not None
            asked = station.hook("evaluator", "stick", "evaluator", 2.0) / 1e9
            heard = [asked]
            while time.monotonic() < asked + 4.0:
                if statuses.receive(0.1) is not None:
                    heard.append(time.monotonic())
        assert max(later - before for before, later in itertools.pairwise(heard)) > 1.5
        assert heard[-1] > asked + 2.0, "it goes on"
        assert station.launcher.restarts()["evaluator"] == 0


def test_a_killed_robot_is_judged_by_what_the_bridge_says_and_says_how_long_it_was_gone() -> None:
    assert str(KILLED) == "kill robot 0.3 s"
    assert str(Strike(0, "kill", "bridge", "", 0.3, 0.2)) == "kill bridge"
    held = cast(State, SimpleNamespace(t_ns=90 * MS, mode=Mode.HOLD))
    judged = motion(KILLED, 0, 2000 * MS, [], [held])
    assert (judged.judged, judged.last_ms, judged.limit_ms) == (True, 90, LIMITS[ROBOT].policy_ms)
    assert motion(KILLED, 0, 2000 * MS, [], []).last_ms == 2000


def test_counts_go_on_over_a_kill() -> None:
    one = {"commands": 3, "violations": 1, "counts": {"range": 1}, "first": [{"command": 2}], "watchdog_trips": [{"after_ms": 151.0}]}
    other = {"commands": 2, "violations": 2, "counts": {"range": 1, "step": 1}, "first": [{"command": 1}], "watchdog_trips": []}
    assert joined({}, one) == one
    both = joined(one, other)
    assert (both["commands"], both["violations"], both["counts"]) == (5, 3, {"range": 2, "step": 1})
    assert (len(both["first"]), len(both["watchdog_trips"])) == (2, 1)


def test_violations_before_a_kill_count_in_the_report(robot: TortureRobot) -> None:
    driver = RemoteSimRobot("peg-insert", robot.address)
    driver._deadline_s = 2.0

    def violate() -> None:
        driver.connect()
        with pytest.raises(RobotError, match="not what this robot can execute"):
            driver.apply([3.0, 0.0, 0.0, 0.0])  # type: ignore[arg-type]

    violate()
    before, pid = robot.monitor(), robot.pid
    assert before["violations"] >= 1
    robot.kill()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(RobotError, match="is not there"):
        robot.monitor()
    robot.start()
    assert robot.pid != pid
    assert robot.monitor() == before, "nothing new, nothing lost"
    driver._link.close()
    violate()
    driver.close()
    after = robot.monitor()
    assert after["commands"] == 2 * before["commands"]
    assert after["violations"] == 2 * before["violations"]
    content = {"seed": 0, "commit": "", "wall_s": 0.0, "sessions": 1, "events": [], "problems": [], "monitors": [after]}
    assert f"{after['commands']} commands, {after['violations']} violations," in report(content, 0, "", 0, 0, 0, [])


def test_a_station_whose_robot_is_killed_holds_and_drives_the_new_one(robot: TortureRobot) -> None:
    with rig(robot="sim-server", robot_address=robot.address) as station:
        station.actor(lambda _: [0.0] * 4)
        operator = station.operator()
        station.begin(operator, EpisodeKind.POLICY)
        station.policy_runs(operator)
        torturer = Torturer(WholeStation(station, Worker(None)), robot)  # type: ignore[arg-type]
        before = robot.monitor()
        fault_ns, end_ns = torturer._strike(KILLED)
        assert end_ns - fault_ns > 0.3e9
        result = torturer._judge(KILLED, fault_ns, end_ns, before)
        assert (result["limit_ms"], result["problems"]) == (LIMITS[ROBOT].policy_ms, [])
        assert result["halted"].split()[0] in (Mode.HOLD, Mode.OFFLINE)
        station.until(lambda s: s.t_ns > end_ns and s.mode is Mode.READY, "connected to the new one", 10.0)
        faults = [event.text for event in station.watch.events if event.kind == "robot_fault"]
        assert any("is not there" in text for text in faults)
        assert station.watch.state is not None
        assert station.watch.state.hold_reason is HoldReason.NONE
        station.begin(operator, EpisodeKind.POLICY)
        station.policy_runs(operator)
        after = robot.monitor()
        assert after["commands"] > before["commands"]
        assert after["violations"] == 0, after["first"]
