"""Row 23: the learner is killed while the robot works; nobody notices but the learning curve, and it goes on where it was."""

import itertools
import signal
import threading
import time
from collections.abc import Callable

from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.schema import LearnerStatus, Mode
from takeover.robot_bridge.protocol import Subscriber

from .rig import BUSY, rig

Bound = Callable[[float, float, str], None]
PROCESSES = ["bridge", "recorder", "actor", "learner", "operator"]


def test_row_23_learner_killed(bound: Bound) -> None:
    settings = {"clone_updates": 20.0, "actor_delay": 0.0}
    with rig(PROCESSES, operator="scripted", learner="hil-serl", demonstrations=3, learner_parameters=settings) as station:
        supervisor = Supervisor(station.config, station.launcher, RunPlan(episodes=10_000), lambda progress: None)
        supervisor.prepare()
        threading.Thread(target=_work, args=(supervisor,), daemon=True).start()
        with Subscriber[LearnerStatus](station.endpoints, "learner_status", LearnerStatus) as statuses:

            def learner(condition: Callable[[LearnerStatus], bool], timeout_s: float) -> LearnerStatus:
                deadline = time.monotonic() + timeout_s
                while (status := statuses.receive(0.5)) is None or not condition(status):
                    assert time.monotonic() < deadline, status
                return status

            before = learner(lambda status: status.phase == "training" and status.updates > 60 and status.newest_version > 1, 60.0)
            fault = station.kill("learner", signal.SIGKILL)
            time.sleep(2.0)
            steps = [step for step in station.steps_since(fault) if step.mode in (Mode.POLICY, Mode.TAKEOVER)]
            gaps = [(b.t_applied_ns - a.t_applied_ns) / 1e6 for a, b in itertools.pairwise(steps) if b.seq == a.seq + 1]
            assert len(steps) > 10
            bound(max(gaps), 2 * 50.0, "ms")  # between two steps of an episode
            held = [step for step in station.steps_since(fault) if step.hold_reason and step.hold_reason not in BUSY]
            assert held == []
            after = learner(lambda status: status.phase == "training" and status.updates > 0, 60.0)
            bound((time.monotonic_ns() - fault) / 1e9, 30.0, "s")
            assert after.demonstrations == before.demonstrations
            learner(lambda status: status.updates >= before.updates and status.newest_version > before.newest_version, 60.0)


def _work(supervisor: Supervisor) -> None:
    try:
        supervisor.work()
    except Exception as error:  # noqa: BLE001 - the station is stopped under it
        print(f"the loop ended: {error}")
