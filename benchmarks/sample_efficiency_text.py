"""How the pages of `sample-efficiency` write shares: never without Wilson's interval and n."""

from collections.abc import Mapping
from typing import Any

from takeover.data.statistics import wilson


def interval_text(successes: float, n: int) -> str:
    low, high = wilson(successes, n)
    return f"{100 * successes / n:.0f} % ({100 * low:.0f}-{100 * high:.0f}, n = {n})"


def share_text(share: float, n: int) -> str:
    """Of a share read between two points, which is that of no whole number of starts."""
    return interval_text(share * n, n)


def point_text(point: Mapping[str, Any]) -> str:
    return interval_text(point["successes"], point["n"])
