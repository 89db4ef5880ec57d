"""An export takes no priority over the control loop, whatever its encoder would like."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from takeover.data.exchange.scheduling import ordinary_priority
from takeover.data.exchange.video import VideoTrack, read_video


def real_time_threads() -> list[str]:
    found = []
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # it has just ended
            if os.sched_getscheduler(int(thread)) != os.SCHED_OTHER:
                found.append(thread)
    return found


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_no_thread_of_an_encoder_is_real_time(tmp_path: Path, codec: str) -> None:
    """Only as root does SVT-AV1 try; other accounts may not, so there is nothing to see then."""
    seen: list[str] = []

    class Part(list[np.ndarray]):
        def __iter__(self) -> Iterator[np.ndarray]:
            for picture in super().__iter__():
                seen.extend(real_time_threads())
                yield picture

    pictures = Part(np.full((64, 96, 3), 10 * i, np.uint8) for i in range(12))
    path = tmp_path / "a.mp4"
    VideoTrack(path, 96, 64, 20, codec).write([pictures])  # type: ignore[arg-type, list-item]
    assert seen == []
    assert real_time_threads() == []
    assert len(list(read_video(path))) == 12


def test_what_was_real_time_before_stays_so() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("this account may not set priorities")
    try:
        with ordinary_priority():
            pass
        assert os.sched_getscheduler(0) == os.SCHED_FIFO
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with ordinary_priority():
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
