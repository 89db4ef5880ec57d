"""The bridge on a robot that is a process of its own: what reaches it, and what happens when it goes away and comes back."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from takeover.data.schema import Clear, EpisodeKind, HoldReason, Mode, Stop
from takeover.robot_bridge.robots.sim_remote import RemoteSimRobot, _Link
from takeover.robot_bridge.robots.sim_wire import Request

from .station import Operator, Recorder, Station, eventually, station
from .test_sim_server import PATIENT_S, Server, patient


class Hardware:
    """A server, a bridge that drives it, and how to replace the server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = Server(folder, watchdog_s=PATIENT_S)
        self.station: Station
        self.operator: Operator
        self.recorder: Recorder

    def monitor(self) -> dict[str, Any]:
        link = _Link(self.server.address)
        report = link.ask(Request(op="monitor"), 2.0).monitor
        link.close()
        assert report is not None
        return report

    def begin(self) -> None:
        self.operator.deadman, self.operator.action = False, [0.0] * 4
        self.station.start(self.operator, EpisodeKind.DEMONSTRATION)
        self.station.until(lambda s: s.mode is Mode.READY and s.episode_kind is EpisodeKind.DEMONSTRATION)

    def drive(self, action: list[float]) -> None:
        self.station.drive(self.operator, action)

    def replace_server(self) -> None:
        self.server.close()
        self.server = Server(self.folder, address=self.server.address, watchdog_s=PATIENT_S)


@pytest.fixture
def hardware(tmp_path: Path) -> Iterator[Hardware]:
    made = Hardware(tmp_path)
    try:
        with station(tmp_path, hardware=patient(made.server.address), robot="sim-server") as running:
            made.station = running
            made.recorder = running.recorder()
            made.operator = running.operator()
            assert made.operator.take_lease().error == ""
            yield made
    finally:
        made.server.close()


def test_a_driven_episode_has_nothing_to_object_to(hardware: Hardware) -> None:
    hardware.begin()
    hardware.drive([0.6, -0.4, -0.2, 0.3])
    time.sleep(1.0)
    hardware.operator.action = [-1.0, 1.0, 0.5, 0.0]
    time.sleep(0.5)
    report = hardware.monitor()
    assert report["commands"] > 20
    assert report["violations"] == 0, report["first"]
    assert report["worst"]["speed_m_s"] > 0.02, "it did move"
    assert report["worst"]["gap_ms"] < 5000.0
    assert hardware.recorder.steps[-1].asked_action != [0.0] * 4


def test_a_killed_server_is_held_offline_and_found_again_disarmed(hardware: Hardware) -> None:
    hardware.begin()
    hardware.drive([0.0, -0.8, 0.0, 0.0])
    hardware.server.close()
    hardware.station.until(lambda s: s.mode is Mode.HOLD and s.hold_reason is HoldReason.ROBOT_FAULT)
    hardware.station.until_mode(Mode.OFFLINE)
    hardware.server = Server(hardware.folder, address=hardware.server.address, watchdog_s=PATIENT_S)
    hardware.station.until_mode(Mode.READY)
    time.sleep(0.5)  # the deadman is still pressed, the stick still deflected
    report = hardware.monitor()
    assert report["commands"] > 3
    assert report["worst"]["step_m"] == 0.0, "no motion before a person enables it anew"
    assert eventually(lambda: bool(hardware.recorder.ends) and hardware.recorder.ends[-1].outcome == "aborted")


def test_a_server_replaced_while_stopped_can_be_cleared(hardware: Hardware) -> None:
    """STOPPED is not left for OFFLINE, so the deliberate Clear is what finds the new process."""
    hardware.begin()
    hardware.drive([0.0, -0.8, 0.0, 0.0])
    assert hardware.operator.ask(Stop(sender="console")).error == ""
    hardware.station.until_mode(Mode.STOPPED)
    assert hardware.monitor()["counts"] == {}
    hardware.replace_server()
    time.sleep(2.0)
    assert hardware.station.state().mode is Mode.STOPPED
    faults = [event for event in hardware.recorder.events if event.kind == "robot_fault"]
    assert 1 <= len(faults) < 20, "said, but not at every step of a night"
    assert eventually(lambda: hardware.operator.ask(Clear(sender="console")).error == "")
    hardware.station.until_mode(Mode.READY)
    assert eventually(lambda: hardware.monitor()["commands"] > 5)


def test_stop_waits_for_no_pending_answer(hardware: Hardware) -> None:
    """The control thread's link is busy; STOP has one of its own."""
    robot: RemoteSimRobot = hardware.station.robot
    release = threading.Event()

    def busy() -> None:
        with robot._link._lock:
            release.wait(5.0)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        assert hardware.operator.ask(Stop(sender="console")).error == ""
        link = _Link(hardware.server.address)
        assert eventually(lambda: link.ask(Request(op="read"), 1.0).snapshot.stopped == "stop", 2.0)  # type: ignore[union-attr]
        link.close()
        assert thread.is_alive(), "nobody had to wait for it"
    finally:
        release.set()
        thread.join()
    hardware.station.until_mode(Mode.STOPPED)
