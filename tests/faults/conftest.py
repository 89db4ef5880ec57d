"""The bounds of the fault matrix: measured by the tests, written as JSON lines into the file that TAKEOVER_FAULTS_OUT names."""

import json
import os
from collections.abc import Callable

import pytest

SLACK_MS = (
    1000.0  # `make test` runs on busy machines: a time is asserted with this margin, `make faults` shows and judges the figure itself
)


@pytest.fixture
def bound(request: pytest.FixtureRequest) -> Callable[[float, float, str], None]:
    """``bound(measured, limit, unit)``: note a figure of this row and fail when it is over. Times (ms, s) have a wide margin here."""
    row = int(request.node.name.split("_")[2])

    def note(measured: float, limit: float, unit: str) -> None:
        if path := os.environ.get("TAKEOVER_FAULTS_OUT"):
            line = {"row": row, "test": request.node.nodeid, "measured": measured, "limit": limit, "unit": unit}
            with open(path, "a") as out:
                out.write(json.dumps(line) + "\n")
        slack = {"ms": SLACK_MS, "s": SLACK_MS / 1000.0}.get(unit, 0.0)
        assert measured <= limit + slack, f"row {row}: {measured:.6g} {unit}, the bound is {limit:.6g} {unit}"

    return note
