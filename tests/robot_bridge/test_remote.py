"""Bridge and people on two computers: two loopback addresses with a bad network between them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from takeover.data.schema import CameraFrame, EpisodeKind, HoldReason, Mode, Resume, Role, Start, State, ViewReport
from takeover.robot_bridge.picture_quality import LEVELS, PictureQuality
from takeover.robot_bridge.protocol import ClockOffset, Endpoints, Subscriber
from takeover.robot_bridge.protocol.link import Link, port_offset
from tests.fault_proxy import FaultProxy
from tests.introduced import introduced
from tests.patience import patient

from .station import Actor, Operator, Recorder, Station, eventually
from .test_security import free_port

STREAMS = ("state", "observation", "privileged", "policy_action", "command", "control", "event", "record", "camera/front", "camera/wrist")
OTHER_BYTES_PER_S = 133_000.0  # state and observations
__all__ = ["free_port"]


class Remote:
    """A bridge on 127.0.0.2; recorder, actor and operator on this side of a proxy on 127.0.0.3."""

    def __init__(self, folder: Path, port: int, *, cameras: bool) -> None:
        robot_keys, our_keys = introduced(folder, [Role.OPERATOR, Role.LEARNER])
        self.station = Station(
            folder / "w",
            link=False,
            listen=f"tcp://127.0.0.2:{port}",
            keys=str(robot_keys.path),
            sockets=str(folder / "s"),
            cameras=cameras,
        )
        self.proxy = FaultProxy("127.0.0.3", port, "127.0.0.2", port, [port_offset(name) for name in STREAMS])
        self.endpoints = Endpoints(folder / "s2", Link("127.0.0.3", port, False, our_keys))
        self.recorder = Recorder(self.endpoints)
        self.actor = Actor(self.endpoints, lambda _: [0.1, 0.0, 0.0, 0.0])
        self.operator = Operator(self.endpoints)
        assert self.operator.take_lease().error == ""

    @property
    def state(self) -> State:
        assert self.operator.state is not None
        return self.operator.state

    def run_policy(self) -> None:
        deadline = time.monotonic() + 10.0
        while error := self.operator.ask(Start(sender="console", kind=EpisodeKind.POLICY)).error:
            assert time.monotonic() < deadline, error
            time.sleep(0.05)
        self.resume_until(lambda: self.state.mode is Mode.POLICY and self.state.episode_step > 3)

    def resume_until(self, condition: object) -> None:
        deadline = time.monotonic() + 20.0
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, f"{self.state.mode} {self.state.hold_reason} {self.state.hold_detail}"
            if self.state.mode is Mode.HOLD:
                self.operator.take_lease()
                self.operator.ask(Resume(sender="console"))
            time.sleep(0.1)

    def close(self) -> None:
        self.proxy.cut = False
        self.operator.close()
        self.actor.peer.stop()
        self.recorder.peer.stop()
        self.proxy.close()
        self.station.close()


@pytest.fixture
def remote(tmp_path: Path, free_port: int) -> Iterator[Remote]:
    made = Remote(tmp_path, free_port, cameras=False)
    yield made
    made.close()


@pytest.fixture
def remote_with_cameras(tmp_path: Path, free_port: int) -> Iterator[Remote]:
    made = Remote(tmp_path, free_port, cameras=True)
    yield made
    made.close()


def test_policy_takeover_and_record_over_a_good_network(remote: Remote) -> None:
    remote.run_policy()
    assert remote.operator.drive([0.4, 0.0, 0.0, 0.0], lambda state: state.mode is Mode.TAKEOVER and state.human_steps > 5)
    remote.operator.deadman, remote.operator.action = False, [0.0] * 4
    assert eventually(lambda: remote.state.mode is Mode.POLICY)
    assert eventually(lambda: len([step for step in remote.recorder.steps if step.human_action is not None]) > 5)
    clock = remote.operator.client.clock
    assert 0 <= clock.error_ns < 100e6
    assert abs(clock.offset_ns) <= clock.error_ns + 1e6, "both sides are this computer"


def test_an_outage_holds_replays_nothing_and_ends_without_a_restart(remote: Remote) -> None:
    remote.run_policy()
    assert remote.operator.drive([0.4, 0.0, 0.0, 0.0], lambda state: state.mode is Mode.TAKEOVER and state.human_steps > 5)
    remote.proxy.cut = True
    began = time.monotonic_ns()
    control = remote.station.bridge.control
    assert eventually(lambda: control.mode.mode is Mode.HOLD)
    assert control.mode.reason in (HoldReason.COMMAND_STALE, HoldReason.LEASE_LAPSED)
    time.sleep(2.0)
    back = time.monotonic_ns()
    remote.proxy.cut = False  # everything that was sent meanwhile arrives now; the deadman is still down
    assert eventually(lambda: remote.state.t_ns > back)
    time.sleep(1.0)
    assert control.mode.mode is Mode.HOLD
    moved = [step for step in remote.recorder.steps if step.t_applied_ns > began + int(4e8) and any(step.action)]
    assert moved == []
    remote.operator.deadman, remote.operator.action = False, [0.0] * 4
    remote.resume_until(lambda: remote.state.mode is Mode.POLICY)
    assert eventually(lambda: remote.recorder.steps[-1].t_applied_ns > back), "the record goes on"
    numbers = [record.rec_seq for record in remote.recorder.records]
    assert numbers == list(range(len(numbers))), "without a gap, nothing twice"


def test_dropped_connections_come_back_by_themselves(remote: Remote) -> None:
    remote.run_policy()
    session = remote.state.session
    remote.proxy.drop_connections()
    dropped = time.monotonic_ns()
    assert eventually(lambda: remote.state.t_ns > dropped + int(5e8))
    remote.operator.client.hello("test", 5.0)
    remote.resume_until(lambda: remote.state.mode is Mode.POLICY)
    assert remote.state.session == session


def test_a_delay_beyond_the_life_of_a_command_drives_nothing(remote: Remote) -> None:
    remote.run_policy()
    remote.proxy.delay_s = 0.2
    assert eventually(lambda: remote.station.bridge.control.mode.mode is Mode.HOLD), "the policy's answers are late too"
    time.sleep(0.5)
    began = time.monotonic_ns()
    remote.operator.action, remote.operator.deadman = [0.4, 0.0, 0.0, 0.0], True
    time.sleep(1.0)
    assert remote.station.bridge.control.mode.mode is Mode.HOLD
    remote.proxy.delay_s = 0.0
    remote.operator.deadman, remote.operator.action = False, [0.0] * 4
    time.sleep(0.5)
    assert [step for step in remote.recorder.steps if step.t_applied_ns > began and any(step.action)] == []


class Viewer:
    """Looks at a camera over the link and says once a second how late its pictures are.

    What this computer itself takes for them when nothing is narrow (``own_ms``, on a busy one more than the bounds of `PictureQuality`)
    is no lateness of the link.
    """

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.own_ms = -1.0  # not known yet: nothing is said
        self.bytes_per_s = 0.0  # of the camera, as watched lately
        self.picture_bytes = 0  # of the newest picture

    def watch(self, seconds: float) -> list[float]:
        """Ages of the newest picture at every look, ms, beyond ``own_ms``."""
        ages, size, next_report = [], 0, time.monotonic() + 0.5
        end = time.monotonic() + seconds
        with Subscriber[CameraFrame](self._remote.endpoints, "camera/front", CameraFrame) as frames:
            newest = frames.receive(patient(5.0))
            while time.monotonic() < end:
                if (frame := frames.receive(0.1)) is not None:
                    newest, size = frame, size + len(frame.jpeg)
                assert newest is not None
                ages.append((time.monotonic_ns() - newest.t_source_ns) / 1e6 - max(0.0, self.own_ms))
                if self.own_ms >= 0 and time.monotonic() > next_report:
                    next_report = time.monotonic() + 1.0
                    self._remote.operator.client.send(ViewReport(sender="console", age_ms=max(0.0, ages[-1])))
        self.bytes_per_s, self.picture_bytes = size / seconds, len(newest.jpeg) if newest is not None else 0
        return ages

    def watch_until(self, condition: Callable[[list[float]], bool], seconds: float, what: str) -> None:
        """Two seconds at a time, until ``condition`` holds for their ages."""
        deadline = time.monotonic() + seconds
        while not condition(ages := self.watch(2.0)):
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s, ages at last {[round(age) for age in ages[-5:]]} ms"


@pytest.mark.timeout(300)  # a busy computer takes its time for pictures
def test_pictures_get_coarser_on_a_narrow_link_and_better_again(remote_with_cameras: Remote) -> None:
    """Two cameras are 1 MB/s at full quality where nothing else runs; the link carries a quarter of what comes, beside the rest."""
    remote = remote_with_cameras
    quality = remote.station.bridge.cameras.quality if remote.station.bridge.cameras is not None else None
    assert quality is not None
    viewer = Viewer(remote)
    viewer.watch_until(lambda ages: min(ages) < 500.0, 20.0, "pictures in time on a good link")
    ages = sorted(viewer.watch(4.0))
    assert quality.index == 0
    viewer.own_ms = ages[round(0.9 * (len(ages) - 1))]
    began, best = time.monotonic(), viewer.picture_bytes
    remote.proxy.bytes_per_s = OTHER_BYTES_PER_S + 0.27 * 2 * viewer.bytes_per_s
    viewer.watch_until(lambda ages: quality.index >= 1, 40.0, "coarser on a narrow link")
    viewer.watch_until(
        lambda ages: time.monotonic() - began > 8.0 and sorted(ages[-10:])[5] < 3000.0 and viewer.picture_bytes < 0.9 * best,
        60.0,
        "pictures small enough to come in time",
    )
    worst = quality.index
    remote.proxy.bytes_per_s = 0.0
    viewer.watch_until(lambda ages: quality.index < worst, 90.0, "better again when the link carries more")


def test_while_somebody_drives_nobody_elses_link_makes_its_pictures_coarser() -> None:
    quality = PictureQuality()
    for second in range(10):
        quality.report("onlooker", 9000.0, float(second), "driver")
    assert quality.index == 0
    quality.report("onlooker", 9000.0, 10.0)
    quality.report("onlooker", 9000.0, 11.0)
    assert quality.index == 2, "nobody drives"
    for second in range(12, 20):
        quality.report("driver", 100.0, float(second), "driver")
        quality.report("onlooker", 9000.0, second + 0.5, "driver")
    assert quality.index == 1, "what an onlooker said before does not count any more"
    quality.report("driver", 400.0, 21.0, "driver")
    assert quality.index == 2, "the driver's own link does"
    for second in range(30, 50):
        quality.report("onlooker", 9000.0, float(second), "driver")
    assert quality.index == 0, "who drives on this computer reports nothing"


def test_quality_goes_down_at_once_and_up_slowly() -> None:
    quality = PictureQuality()
    quality.report("a", 400.0, 0.0)
    quality.report("a", 400.0, 0.1)
    assert quality.index == 1, "the effect of one step is seen first"
    for second in range(1, 20):
        quality.report("a", 400.0, float(second))
    assert quality.index == len(LEVELS) - 1
    for second in range(20, 25):
        quality.report("a", 50.0, float(second))
    assert quality.index == len(LEVELS) - 1
    for second in range(25, 60):
        quality.report("a", 50.0, float(second))
        quality.report("b", 200.0 if second < 40 else 50.0, float(second))
    assert quality.index < len(LEVELS) - 1
    quality.report("a", float("nan"), 61.0)
    quality.report("c", 5000.0, 62.0)
    before = quality.index
    for second in range(70, 110):  # the slow viewer has gone
        quality.report("a", 50.0, float(second))
    assert quality.index < before
    for second in range(110, 170):
        quality.report("a", 50.0, float(second))
    assert quality.level == LEVELS[0], "nothing is finer"


def test_the_clock_sample_with_the_shortest_round_trip_counts() -> None:
    clock = ClockOffset()
    assert (clock.offset_ns, clock.error_ns) == (0, -1)
    clock.heard(0, 5000, 100)
    assert clock.error_ns == -1, "an answer to what was not asked"
    clock.heard(1000, 501_000, 101_000)  # a long way back
    clock.heard(200_000, 652_000, 204_000)
    clock.heard(300_000, 790_000, 390_000)
    assert clock.offset_ns == 450_000
    assert clock.error_ns == 2000


def test_a_clock_that_jumps_is_known_with_the_next_answer() -> None:
    ms, hour = 1_000_000, 3600 * 10**9
    clock, now = ClockOffset(), 100 * hour
    for wander in (0, 2, -2):  # round trips of 1 ms, and the drift of two ordinary clocks
        clock.heard(now, now + 5 * hour + ms // 2 + wander * ms, now + ms)
    clock.heard(now, now + 5 * hour + 300 * ms, now + 400 * ms)  # slow there, fast back: it does not contradict
    assert len(clock._samples) == 4
    assert abs(clock.offset_ns - 5 * hour) <= 2 * ms
    clock.heard(now, now + 9 * hour + 4 * ms, now + 8 * ms)  # this computer slept for 4 h
    assert (clock.offset_ns, clock.error_ns) == (9 * hour, 4 * ms)
    clock.heard(now, now - 20 * hour + 4 * ms, now + 8 * ms)  # the other one was started again
    assert (clock.offset_ns, clock.error_ns) == (-20 * hour, 4 * ms)
    clock.heard(now, now - 20 * hour + 24 * ms, now + 8 * ms)  # by little
    assert (clock.offset_ns, clock.error_ns) == (-20 * hour + 20 * ms, 4 * ms)
