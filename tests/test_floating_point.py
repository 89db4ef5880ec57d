"""A test leaves the processor's arithmetic as it found it: hypothesis, and other tests, need denormal numbers."""

import sys

import numpy as np
import pytest

from takeover.policies.torch_setup import configure


@pytest.mark.parametrize("turn", ["first", "second"])
def test_denormals_are_whole_again_after_a_test_that_flushed_them(turn: str) -> None:
    assert np.nextafter(0.0, 1.0) * np.float64(1.0) > 0.0, turn
    configure()
    assert "torch" in sys.modules
