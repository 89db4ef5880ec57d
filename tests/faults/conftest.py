"""The bounds of the fault matrix: measured by the tests, written as JSON lines into the file that TAKEOVER_FAULTS_OUT names."""

import json
import os
from collections.abc import Callable

import pytest


def slack(limit: float, unit: str) -> float:
    """`make test` runs on busy machines: a time is asserted with this margin (three times the bound and 300 ms, at most a second more);
    `make faults` shows and judges the figure itself."""
    one_ms = {"ms": 1.0, "s": 1e-3}.get(unit, 0.0)
    return min(2.0 * limit + 300.0 * one_ms, 1000.0 * one_ms)


@pytest.fixture
def bound(request: pytest.FixtureRequest) -> Callable[[float, float, str], None]:
    """``bound(measured, limit, unit)``: note a figure of this row and fail when it is over. Times (ms, s) have a margin here."""
    row = int(request.node.name.split("_")[2])

    def note(measured: float, limit: float, unit: str) -> None:
        if path := os.environ.get("TAKEOVER_FAULTS_OUT"):
            line = {"row": row, "test": request.node.nodeid, "measured": measured, "limit": limit, "unit": unit}
            with open(path, "a") as out:
                out.write(json.dumps(line) + "\n")
        assert measured <= limit + slack(limit, unit), f"row {row}: {measured:.6g} {unit}, the bound is {limit:.6g} {unit}"

    return note
