"""A gap in the stream of records: asked for again, and given up only when the bridge shows that it has them no more."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from takeover.app.processes.recorder import GAP_PATIENCE_S
from takeover.data.store import read_gap
from tests.app.test_recorder_process import BridgeSide, Station


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    made = Station(tmp_path, "realtime")
    made.launch()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def for_a_while(seconds: float, work: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        work()


def test_what_the_bridge_may_still_have_is_waited_for(station: Station) -> None:
    """A slow machine: what was on its way before the question keeps coming for longer than the recorder's patience."""
    bridge = BridgeSide(station.endpoints, "s1")
    bridge.wait(lambda: bridge.peer is not None)
    name = bridge.start(0)
    bridge.step(name, 0)
    bridge.wait(lambda: bridge.acked == len(bridge.records) - 1)
    kept, index = bridge.acked, 1

    def later_ones_only() -> None:
        nonlocal index
        bridge.step(name, index)
        index += 1
        if index > 3:
            assert bridge.peer is not None
            bridge.router.send(bridge.peer, bridge.records[-1])
        while (answer := bridge.router.receive(0.02)) is not None:  # hellos among them, not answered
            bridge.acked = max(bridge.acked, answer[1].acked_rec_seq)

    for_a_while(GAP_PATIENCE_S + 2.0, later_ones_only)
    assert bridge.acked == kept
    bridge.end(name, index)
    bridge.sent = kept + 1
    bridge.wait(lambda: bridge.acked == len(bridge.records) - 1)
    assert station.stop() == 0
    found = read_gap(station.workspace, "s1", 0, bridge.acked, timeout_s=0.0)
    assert sum(hasattr(record, "episode_step") for record in found) == index
    bridge.router.close()


def test_what_the_bridge_has_no_more_is_given_up(station: Station) -> None:
    """It was used with another workspace before: what that one acknowledged is gone from its memory."""
    bridge = BridgeSide(station.endpoints, "s1")
    lost = bridge.start(0)
    for index in range(4):
        bridge.step(lost, index)
    bridge.end(lost, 4)
    bridge.acked = len(bridge.records) - 1
    first = len(bridge.records)
    bridge.episode(1, 6)
    bridge.wait(lambda: bridge.acked == len(bridge.records) - 1)
    assert station.stop() == 0
    assert [record.rec_seq for record in read_gap(station.workspace, "s1", first, first, timeout_s=0.0)] == [first]
    assert f"records 0..{first - 1} of session s1 never came" in (station.workspace.logs / "recorder.log").read_text()
    bridge.router.close()
