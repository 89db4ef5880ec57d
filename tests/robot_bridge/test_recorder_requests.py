"""A recorder may ask for everything again, but not all the time."""

import time
from pathlib import Path
from typing import Any

from takeover.data.schema import RecorderHello
from takeover.robot_bridge.protocol import Dealer

from .by_hand import SECOND, by_hand


def test_everything_again_at_most_ten_times_a_second(tmp_path: Path) -> None:
    with by_hand(tmp_path) as hand, Dealer[Any, Any](hand.bridge._endpoints, "record", Any, Any) as recorder:

        def asked_again() -> bool:
            recorder.send(RecorderHello(session="", acked_rec_seq=-1))
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                hand.io.pump(0.01)
                if recorder.receive() is not None:
                    while recorder.receive(0.2) is not None:
                        pass
                    return True
            return False

        hand.io.event("x")
        assert any(asked_again() for _ in range(10)), "the first connection takes its time"
        hand.io._rewound_ns = time.monotonic_ns() + 60 * SECOND
        assert not asked_again()
        hand.io._rewound_ns = 0
        assert asked_again()
