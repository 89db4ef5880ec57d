"""The short form of `make resume`: the learner process killed while it learns and writes a checkpoint; the same bits at the end."""

import random
from pathlib import Path

from benchmarks.resume import MOMENTS, compare


def test_killed_at_random_moments_it_ends_at_the_same_bits(tmp_path: Path) -> None:
    said: list[str] = []
    assert set(MOMENTS[:3]) == {"learning", "writing a checkpoint"}
    assert compare(tmp_path, "hil-serl", 3, random.Random(1), said.append) == []
    assert "3 kills" in said[0]
