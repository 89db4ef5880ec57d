"""The whole station in real time, window and pictures too: every process is killed once, and nothing acknowledged is lost."""

import os
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path

from takeover.app.launcher import Launcher
from takeover.app.supervisor import RunPlan, Supervisor
from takeover.data.catalog import Catalog
from takeover.data.episode_file import EpisodeReader, verify_file
from takeover.data.recovery import left_over_journals
from takeover.data.schema import Committed, Mode, RunConfig, State, Step
from takeover.data.workspace import Workspace
from takeover.robot_bridge.protocol import Endpoints, Subscriber

PROCESSES = ["bridge", "recorder", "actor", "learner", "evaluator", "operator", "console"]
ORDER = ["actor", "learner", "console", "recorder", "operator", "evaluator", "bridge"]


class Listener(threading.Thread):
    """Which steps the recorder said are on disk, and what the bridge says."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__(daemon=True)
        self._endpoints = Endpoints(config.sockets)
        self.committed: dict[str, set[int]] = defaultdict(set)
        self.state: State | None = None
        self.closing = threading.Event()
        self.start()

    def run(self) -> None:
        committed: Subscriber[Committed] = Subscriber(self._endpoints, "committed", Committed, latest=False)
        states: Subscriber[State] = Subscriber(self._endpoints, "state", State)
        while not self.closing.is_set():
            self.state = states.receive(0.02) or self.state
            while (message := committed.receive()) is not None:
                for record in message.records:
                    if isinstance(record, Step) and record.episode_id:
                        self.committed[record.episode_id].add(record.rec_seq)
        committed.close()
        states.close()


def test_every_process_killed_once_in_real_time(station_config, eventually, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    config = station_config(clock="realtime", cameras=True, demonstrations=3, learner_parameters={"clone_updates": 20})
    with Launcher(config, PROCESSES) as launcher:
        launcher.wait_ready(100)
        listener = Listener(config)
        supervisor = Supervisor(config, launcher, RunPlan(episodes=1000), lambda progress: None)
        supervisor.prepare()
        worker = threading.Thread(target=_work, args=(supervisor,), daemon=True)
        worker.start()
        moving = (Mode.POLICY, Mode.TAKEOVER)
        for name in ORDER:
            eventually(lambda: listener.state is not None and listener.state.mode in moving and listener.state.episode_step > 2, 60)
            time.sleep(0.5)
            before = launcher.restarts()[name]
            os.kill(launcher.pids()[name], signal.SIGKILL)
            eventually(lambda name=name, before=before: launcher.restarts()[name] == before + 1, 30)
            launcher.wait_ready(60)
            done = listener.state.steps_total if name != "bridge" else 0
            eventually(lambda done=done: 0 < listener.state.steps_total != done and listener.state.mode in moving, 60)
        assert all(count == 1 for count in launcher.restarts().values()), launcher.restarts()
        listener.closing.set()
        listener.join()
    worker.join(10)
    with Catalog.open(config.workspace) as catalog:
        files = {row.id: Path(config.workspace) / row.path for row in catalog.episodes()}
    assert [problem for path in files.values() for problem in verify_file(path)] == []
    assert len(files) > 3
    kept = {
        episode.episode_id: {record.rec_seq for record in episode.records} for episode in left_over_journals(Workspace(config.workspace))
    }
    for episode_id, path in files.items():
        with EpisodeReader(path) as episode:
            kept.setdefault(episode_id, set()).update(episode.column("rec_seq", held=True).tolist())
    assert sum(len(numbers) for numbers in listener.committed.values()) > 200
    for episode_id, numbers in listener.committed.items():
        assert numbers <= kept[episode_id], episode_id


def _work(supervisor: Supervisor) -> None:
    try:
        supervisor.work()
    except Exception as error:  # noqa: BLE001 - the station is stopped under it; what counts is looked at afterwards
        print(f"the loop ended: {error}")
