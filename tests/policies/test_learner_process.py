"""The real learner process, fed by a real publisher from a real recorder's store: phases, publishing, lockstep, restart."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from takeover.data.recorder import Recorder
from takeover.data.schema import Committed, ControlMode, EpisodeKind, LearnerStatus, RunConfig
from takeover.data.workspace import Workspace
from takeover.policies.publish import load_policy, published_versions, read_manifest, version_folder
from takeover.robot_bridge.protocol import Endpoints, Publisher, Subscriber
from tests.patience import patient

FAST = {"updates_per_step": 1, "clone_updates": 60, "critic_warmup": 20, "learning_starts": 5, "hidden": 16, "batch": 32, "actor_delay": 5}


class Station:
    """A workspace with its recorder, the committed stream, and a learner process."""

    def __init__(self, folder: Path, sockets: Path, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "session_id": "run-a",
            "workspace": str(folder),
            "sockets": str(sockets),
            "task": "reach",
            "clock": "lockstep",
            "demonstrations": 2,
            "publish_every_updates": 10,
            "learner_parameters": FAST,
        }
        self.config = RunConfig(**(fields | changes))
        self.endpoints = Endpoints(sockets)
        self.endpoints.prepare()
        self.path = sockets / "run.json"
        self.path.write_bytes(msgspec.json.encode(self.config))
        self.recorder = Recorder(Workspace(folder))
        self.publisher: Publisher[Committed] = Publisher(self.endpoints, "committed", Committed, queue=0)
        self.statuses: Subscriber[LearnerStatus] = Subscriber(self.endpoints, "learner_status", LearnerStatus)
        self.process: subprocess.Popen[bytes] | None = None

    def start_learner(self) -> None:
        """Started, and ready for messages."""
        self.launch_learner()
        self.until(lambda: (self.endpoints.folder / "learner.ready").exists(), 60.0)

    def launch_learner(self) -> None:
        (self.endpoints.folder / "learner.ready").unlink(missing_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "takeover.app.processes.learner", "--config", str(self.path)]
        self.process = subprocess.Popen(command, env=environment)

    def stop_learner(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(patient(10.0))

    def until(self, condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        deadline = time.monotonic() + patient(timeout_s)
        while not (value := condition()):
            assert time.monotonic() < deadline, "did not happen in time"
            assert self.process is None or self.process.poll() is None, "the learner ended"
            time.sleep(0.01)
        return value

    def status_when(self, condition: Callable[[LearnerStatus], bool]) -> LearnerStatus:
        def look() -> LearnerStatus | None:
            status = self.statuses.receive(0.2)
            return status if status is not None and condition(status) else None

        found: LearnerStatus = self.until(look)
        return found

    def commit(self, records: list[Any], announce: bool = True) -> None:
        for record in records:
            self.recorder.accept(record)
        synced = self.recorder.sync()
        if announce and synced.committed is not None:
            self.publisher.send(synced.committed)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(patient(10.0))
        self.publisher.close()
        self.statuses.close()
        self.recorder.close()


@pytest.fixture
def make_station(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Station]]:
    stations: list[Station] = []

    def make(name: str = "w", **changes: Any) -> Station:
        stations.append(Station(tmp_path / name, tmp_path_factory.mktemp("s"), **changes))
        return stations[-1]

    yield make
    for station in stations:
        station.close()


def demonstrations(script: Any, count: int = 2) -> list[Any]:
    rng = np.random.default_rng(1)
    records: list[Any] = []
    for _ in range(count):
        records.append(script.start(EpisodeKind.DEMONSTRATION))
        records += [script.step(ControlMode.HUMAN, **numbers(rng)) for _ in range(20)]
        records.append(script.end())
    return records


def episode(script: Any, rng: np.random.Generator, steps: int = 30) -> list[Any]:
    modes = [ControlMode.POLICY] * 10 + [ControlMode.TRANSITION] * 2 + [ControlMode.HUMAN] * 8 + [ControlMode.POLICY] * (steps - 20)
    return [script.start(), *(script.step(mode, **numbers(rng)) for mode in modes), script.end()]


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    observation = rng.normal(size=3)
    return {
        "observation": observation.tolist(),
        "next_observation": (observation + 0.1).tolist(),
        "action": np.clip(observation[:2], -1, 1).tolist(),
    }


def run_whole(station: Station, script: Any) -> str:
    """Demonstrations, then two episodes step by step; the hash of the last weights."""
    station.commit(demonstrations(script))
    station.status_when(lambda s: s.newest_version == 1)
    rng = np.random.default_rng(7)
    for record in episode(script, rng) + episode(script, rng):
        station.commit([record])
    status = station.status_when(lambda s: s.finished_train_step == 59)
    return read_manifest(version_folder(station.config.workspace, status.newest_version)).sha256


def test_lockstep_phases_updates_and_versions(make_station: Callable[..., Station], make_script: Callable[..., Any]) -> None:
    station, script = make_station(), make_script()
    station.start_learner()
    waiting = station.status_when(lambda s: s.phase == "waiting")
    assert (waiting.newest_version, waiting.finished_train_step) == (0, -1)
    station.commit(demonstrations(script))
    first = station.status_when(lambda s: s.newest_version == 1)
    assert (first.phase, first.versions, first.demonstrations) == ("training", [(1, 0)], 2)

    for record in episode(script, np.random.default_rng(7)):
        station.commit([record])
    status = station.status_when(lambda s: s.finished_train_step == 29)
    # 30 training steps, learning starts after 5: 25 updates; versions after 10 and 20, at train steps 14 and 24
    assert status.updates == 25
    assert status.versions == [(1, 0), (2, 14 + 17), (3, 24 + 17)]
    assert status.human_steps == 8
    assert status.correction_to_batch_s == []  # wall clock means nothing here
    for version in (1, 2, 3):
        manifest = load_policy(version_folder(station.config.workspace, version), script.spec).manifest
        assert (manifest.parent, manifest.learner) == (version - 1, "hil-serl")
    assert list((Path(station.config.workspace) / "learner").rglob("events.out.tfevents*"))
    with station.recorder.catalog as catalog:
        assert [row.version for row in catalog.policies()] == [1, 2, 3]
    assert station.stop_learner(signal.SIGTERM) == 0


def test_ended_twice_in_mid_run_it_continues_to_the_same_weights(
    make_station: Callable[..., Station], make_script: Callable[..., Any]
) -> None:
    undisturbed = make_station("a")
    undisturbed.start_learner()
    expected = run_whole(undisturbed, make_script())
    undisturbed.close()

    station, script = make_station("b"), make_script()
    station.start_learner()
    station.commit(demonstrations(script))
    station.status_when(lambda s: s.newest_version == 1)
    rng = np.random.default_rng(7)
    records = episode(script, rng) + episode(script, rng)
    cuts = ((25, signal.SIGKILL), (45, signal.SIGTERM))  # in the first episode from the cloned state; in the second from a saved one
    sent = 0
    for cut, number in cuts:
        for record in records[sent:cut]:
            station.commit([record])
        station.status_when(lambda s: s.finished_train_step >= 15)
        station.stop_learner(number)
        for record in records[cut : cut + 3]:  # committed while nobody listens
            station.commit([record], announce=False)
        sent = cut + 3
        station.start_learner()
    for record in records[sent:]:
        station.commit([record])
    status = station.status_when(lambda s: s.finished_train_step == 59)
    assert status.updates == 55
    assert read_manifest(version_folder(station.config.workspace, status.newest_version)).sha256 == expected
    assert len(published_versions(station.config.workspace)) == 6


def test_real_time_corrections_are_clocked_and_a_stop_is_prompt(
    make_station: Callable[..., Station], make_script: Callable[..., Any]
) -> None:
    station, script = make_station(clock="realtime", publish_every_s=0.1), make_script()
    station.start_learner()
    station.commit(demonstrations(script))
    station.status_when(lambda s: s.newest_version == 1)
    rng = np.random.default_rng(3)
    station.commit([script.start()])
    for i in range(30):
        mode = ControlMode.HUMAN if 10 <= i < 20 else ControlMode.POLICY
        station.commit([script.step(mode, t_applied_ns=time.monotonic_ns(), **numbers(rng))])
    used = station.status_when(lambda s: bool(s.correction_to_batch_s) and bool(s.last_correction.get("version")))
    assert 0.0 < used.correction_to_batch_s[0] < 30.0
    version = int(used.last_correction["version"])
    station.commit([script.step(policy_version=version, t_applied_ns=time.monotonic_ns(), **numbers(rng))])
    acted = station.status_when(lambda s: bool(s.correction_to_acting_s))
    assert acted.correction_to_acting_s[0] > acted.correction_to_batch_s[0]
    station.status_when(lambda s: s.backlog_steps == 0 and s.updates == 26)  # the ratio is held: 31 steps, from the 6th on
    started = time.monotonic()
    assert station.stop_learner(signal.SIGTERM) == 0
    assert time.monotonic() - started < 5.0


def test_an_unknown_learner_ends_with_the_known_ones(make_station: Callable[..., Station]) -> None:
    station = make_station(learner="sac")
    command = [sys.executable, "-m", "takeover.app.processes.learner", "--config", str(station.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "unknown learner 'sac'; known: hil-serl, sirius" in done.stderr
