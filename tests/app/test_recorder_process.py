"""The real recorder process against a bridge-side socket: killed at random moments it loses no acknowledged record."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from takeover.data.catalog import Catalog
from takeover.data.episode_file import verify_file
from takeover.data.schema import (
    ActionGroup,
    ActionSpec,
    AnyRecord,
    CameraFrame,
    CameraSpec,
    Committed,
    ControlMode,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Mode,
    ObservationSpec,
    Outcome,
    OutcomeSource,
    RecordAck,
    RecorderHello,
    RecorderMessage,
    RobotSpec,
    RunConfig,
    Source,
    Step,
)
from takeover.data.store import iter_episode_records, read_gap
from takeover.data.workspace import Workspace
from takeover.robot_bridge.protocol import Endpoints, PeerGone, Router, Subscriber

SPEC = RobotSpec(
    robot_id="sim",
    task_id="peg-insert",
    prompt="",
    control_hz=20.0,
    max_steps=100,
    action=ActionSpec(
        kind="ee_delta",
        frame="base",
        names=["x", "y"],
        units=["m", "m"],
        scale=[0.005, 0.005],
        groups=[ActionGroup(name="arm", start=0, stop=2)],
        gripper="none",
    ),
    observation=ObservationSpec(names=["a", "b", "c"], units=["", "", ""]),
    cameras=[CameraSpec(name="front", width=64, height=48, rate_hz=20.0)],
    simulated=True,
    has_watchdog=False,
    can_reset=True,
    workspace_low=[0.0, 0.0, 0.0],
    workspace_high=[1.0, 1.0, 1.0],
)


class BridgeSide:
    """The bridge's end of the ``record`` socket: numbers records, keeps them until acknowledged, sends again after a hello."""

    def __init__(self, endpoints: Endpoints, session: str) -> None:
        self.session = session
        self.router: Router[RecorderMessage, AnyRecord] = Router(endpoints, "record", RecorderMessage, AnyRecord)
        self.records: list[AnyRecord] = []
        self.acked = -1
        self.sent = 0
        self.peer: bytes | None = None
        self.hellos: list[RecorderHello] = []
        self.last_ack: RecordAck | None = None
        self.seq = 0
        self.rng = np.random.default_rng(3)

    def add(self, make) -> None:
        self.records.append(make(len(self.records)))

    def pump(self, timeout_s: float = 0.0) -> None:
        received = self.router.receive(timeout_s)
        while received is not None:
            peer, message = received
            ours = message.session == self.session
            if isinstance(message, RecorderHello):
                self.hellos.append(message)
                self.peer, self.sent = peer, (message.acked_rec_seq if ours else -1) + 1
            else:
                self.last_ack = message
            if ours:
                self.acked = max(self.acked, message.acked_rec_seq)
            received = self.router.receive(0.0)
        if self.peer is not None:
            self.sent = max(self.sent, self.acked + 1)
            for record in self.records[self.sent :]:
                try:
                    if not self.router.send_encoded(self.peer, self.router.encode(record)):
                        break  # the recorder does not keep up: the rest follows with the next call
                except PeerGone:
                    self.peer = None
                    break
                self.sent += 1

    def wait(self, condition, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"acked {self.acked} of {len(self.records)}, last {self.last_ack}"
            self.pump(0.02)

    def start(self, number: int) -> str:
        episode_id = f"{self.session}-{number}"
        self.add(
            lambda rec: EpisodeStart(
                session=self.session,
                rec_seq=rec,
                episode_id=episode_id,
                number=number,
                kind=EpisodeKind.POLICY,
                spec=SPEC,
                station_id="st",
                operator="op",
                start_seed=1,
                policy_version=1,
                policy_sha256="",
                config_sha256="",
                wall_ns=1_790_000_000_000_000_000 + self.seq,
                t_ns=self.seq * 50_000_000,
            )
        )
        return episode_id

    def step(self, episode_id: str, index: int, picture: bool = True) -> None:
        self.seq += 1
        seq = self.seq
        action = self.rng.uniform(-1, 1, 2).tolist()
        self.add(
            lambda rec: Step(
                session=self.session,
                rec_seq=rec,
                seq=seq,
                episode_id=episode_id,
                episode_step=index,
                train_step=seq,
                run_id=0,
                kind=EpisodeKind.POLICY,
                t_observation_ns=seq * 50_000_000,
                t_decision_ns=seq * 50_000_000 + 1,
                t_applied_ns=seq * 50_000_000 + 2,
                wall_ns=seq,
                mode=Mode.POLICY,
                control_mode=ControlMode.POLICY,
                observation=[float(seq), 0.1, 0.2],
                next_observation=[float(seq + 1), 0.1, 0.2],
                source=[Source.POLICY],
                policy_action=action,
                policy_from_seq=seq,
                policy_version=1,
                human_action=None,
                asked_action=action,
                action=action,
            )
        )
        if picture:
            jpeg = self.rng.bytes(2000)
            self.add(
                lambda rec: CameraFrame(
                    session=self.session,
                    rec_seq=rec,
                    camera="front",
                    counter=index,
                    t_source_ns=seq * 50_000_000,
                    width=64,
                    height=48,
                    jpeg=jpeg,
                    episode_id=episode_id,
                    seq=seq,
                )
            )

    def end(self, episode_id: str, steps: int) -> None:
        self.add(
            lambda rec: EpisodeEnd(
                session=self.session,
                rec_seq=rec,
                episode_id=episode_id,
                outcome=Outcome.SUCCESS,
                outcome_source=OutcomeSource.TASK,
                event_step=steps - 1,
                steps=steps,
                human_steps=0,
                takeovers=0,
                autonomous=True,
                t_ns=self.seq,
                wall_ns=self.seq,
            )
        )

    def episode(self, number: int, steps: int, pause_s: float = 0.0) -> None:
        """One episode with pictures; with ``pause_s`` sent step by step."""
        episode_id = self.start(number)
        for index in range(steps):
            self.step(episode_id, index)
            if pause_s:
                self.pump(pause_s)
        self.end(episode_id, steps)


class Station:
    """A workspace, its sockets, and recorder processes on it."""

    def __init__(self, folder: Path, clock: str) -> None:
        self.workspace = Workspace(folder / "ws").prepare()
        self.endpoints = Endpoints(folder / "s")
        self.endpoints.prepare()
        config = RunConfig(session_id="run", workspace=str(self.workspace.path), sockets=str(self.endpoints.folder), clock=clock)
        self.config = folder / "run.json"
        self.config.write_bytes(msgspec.json.encode(config))
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        command = [sys.executable, "-m", "takeover.app.processes.recorder", "--config", str(self.config)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stderr.close()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(10)
        self.process.stderr.close()
        return status


@pytest.fixture
def station(tmp_path, request):
    made = Station(tmp_path, request.param)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def durable(station: Station, session: str, acked: int) -> list[AnyRecord]:
    """Everything up to ``acked``, read from the disk with no recorder running."""
    return read_gap(station.workspace, session, 0, acked, timeout_s=0.0) if acked >= 0 else []


@pytest.mark.parametrize("station", ["realtime", "lockstep"], indirect=True)
def test_killed_at_random_moments_no_acknowledged_record_is_lost(station):
    rng = np.random.default_rng(11)
    bridge = BridgeSide(station.endpoints, "sess")
    number = 0
    for _ in range(3):
        station.launch()
        hellos = len(bridge.hellos)
        bridge.wait(lambda before=hellos: len(bridge.hellos) > before)
        assert bridge.hellos[hellos].acked_rec_seq >= bridge.acked  # it says what it has, never less than it acknowledged
        for _ in range(2):
            bridge.episode(number, int(rng.integers(3, 25)), pause_s=0.004)
            number += 1
        cut = bridge.start(number)  # killed in the middle of this one, with some of it acknowledged
        before = bridge.acked
        steps = 0
        while bridge.acked < max(before, len(bridge.records) - 20) or steps < rng.integers(5, 25):
            bridge.step(cut, steps)
            steps += 1
            bridge.pump(0.004)
        station.kill()
        bridge.pump()
        bridge.end(cut, steps)
        number += 1
        kept = {record.rec_seq: record for record in durable(station, "sess", bridge.acked)}
        expected = [record for record in bridge.records[: bridge.acked + 1] if not isinstance(record, CameraFrame)]
        assert [kept[record.rec_seq] for record in expected] == expected
    assert bridge.acked > 0
    station.launch()
    last = bridge.start(number)
    bridge.step(last, 0)
    bridge.end(last, 1)
    bridge.wait(lambda: bridge.acked == len(bridge.records) - 1)
    assert station.stop() == 0
    bridge.router.close()
    episodes = list(iter_episode_records(station.workspace))
    steps = [step for _, found, _ in episodes for step in found]
    assert steps == [record for record in bridge.records if isinstance(record, Step)]
    with Catalog.open(station.workspace) as catalog:
        rows = catalog.episodes()
    assert len(rows) == number + 1
    assert not any(row.recovered for row in rows)
    assert all(verify_file(station.workspace.path / row.path) == [] for row in rows)
    assert station.workspace.index_path.exists()
    assert not list(station.workspace.path.glob("*.lock"))


@pytest.mark.parametrize("station", ["lockstep"], indirect=True)
def test_committed_stream_is_gapless_and_names_closed_episodes(station):
    bridge = BridgeSide(station.endpoints, "sess")
    station.launch()
    with Subscriber(station.endpoints, "committed", Committed, latest=False) as committed:
        bridge.wait(lambda: bridge.peer is not None)
        time.sleep(0.2)  # the subscription has to arrive before the first message
        for number in range(3):
            bridge.episode(number, 10)
        bridge.wait(lambda: bridge.acked == len(bridge.records) - 1)
        cursor, records, closed = -1, [], []
        deadline = time.monotonic() + 10
        while len(closed) < 3 and time.monotonic() < deadline:
            bridge.pump()
            message = committed.receive(0.05)
            if message is None or message.session != "sess":
                continue
            assert message.first == cursor + 1
            cursor = message.cursor
            records += message.records
            closed += [message.closed_episode] if message.closed_episode else []
    assert records == [record for record in bridge.records if not isinstance(record, CameraFrame)]
    assert closed == ["sess-0", "sess-1", "sess-2"]
    assert bridge.last_ack.error == ""
    assert bridge.last_ack.disk_free_bytes > 0
    assert station.stop() == 0
    bridge.router.close()


@pytest.mark.parametrize("station", ["lockstep"], indirect=True)
def test_a_new_bridge_session_is_greeted_and_the_old_episode_recovered(station):
    first = BridgeSide(station.endpoints, "one")
    station.launch()
    episode_id = first.start(0)
    for index in range(5):
        first.step(episode_id, index)
    first.wait(lambda: first.acked == len(first.records) - 1)
    first.router.close()
    second = BridgeSide(station.endpoints, "two")
    second.episode(0, 4)
    second.wait(lambda: second.acked == len(second.records) - 1)
    assert station.stop() == 0
    second.router.close()
    with Catalog.open(station.workspace) as catalog:
        rows = {row.session_id: row for row in catalog.episodes()}
    assert (rows["one"].recovered, rows["one"].steps, rows["one"].outcome) == (True, 5, "unknown")
    assert (rows["two"].recovered, rows["two"].steps) == (False, 4)


@pytest.mark.parametrize("station", ["realtime"], indirect=True)
def test_a_second_recorder_and_an_unwritable_workspace_are_refused_in_one_line(station, tmp_path):
    bridge = BridgeSide(station.endpoints, "sess")
    station.launch()
    bridge.wait(lambda: bridge.last_ack is not None)
    command = [sys.executable, "-m", "takeover.app.processes.recorder", "--config", str(station.config)]
    second = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert second.returncode == 2
    assert second.stderr.decode().count("\n") == 1
    assert f"process {station.process.pid}" in second.stderr.decode()
    assert station.stop() == 0
    bridge.router.close()
    assert not os.path.exists(station.workspace.path / "recorder.lock")
