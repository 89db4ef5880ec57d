"""The report of the fault matrix: every row has a test that measures something, and what it measured comes into the table."""

import ast
import re
from pathlib import Path
from typing import Any

from takeover.data.schema import RunConfig
from tests.faults.report import HOW, ROWS, table

FOLDER = Path(__file__).parent


def measuring() -> dict[int, list[str]]:
    """Row -> its tests that hold a figure against a bound."""
    found: dict[int, list[str]] = {}
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = re.match(r"test_row_(\d+)_", node.name) if isinstance(node, ast.FunctionDef) else None
            if name is None:
                continue
            calls = [inner for inner in ast.walk(node) if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name)]
            assert any(call.func.id == "bound" for call in calls if isinstance(call.func, ast.Name)), (
                f"{path.name}: {name[0]} measures nothing"
            )
            found.setdefault(int(name[1]), []).append(f"tests/faults/{path.name}::{name.string}")
    return found


def lines(value: float = 0.0) -> list[dict[str, Any]]:
    return [
        {"row": row, "test": test, "measured": value, "limit": 1.0, "unit": "s"} for row, tests in measuring().items() for test in tests
    ]


def test_every_row_is_measured_and_comes_into_the_table() -> None:
    assert set(measuring()) == set(ROWS)
    rows, fine = table(lines())
    assert fine
    assert not [row for row in rows if "not measured" in row]
    for row in (22, 24, 25, 27):
        assert any(line.startswith(f"| {row} |") and "0 (1) s" in line and "test_learning.py" in line for line in rows)


def test_a_row_that_was_not_measured_and_a_bound_that_was_not_kept_are_said() -> None:
    rows, fine = table([line for line in lines() if line["row"] != 24])
    assert not fine
    assert [row for row in rows if "not measured" in row] == [f"| 24 | {ROWS[24][0]} | {ROWS[24][1]} | **not measured** | |"]
    rows, fine = table([line | {"measured": 1.5} if line["row"] == 27 else line for line in lines()])
    assert not fine
    assert len([row for row in rows if "**over:** 1.5 (1) s" in row]) == 1


def test_where_the_matrix_counts_from_is_said() -> None:
    """The matrix gives a frozen camera 200 ms; of pixels that repeat themselves they count from the motion that makes them tell."""
    source = ast.parse((FOLDER / "test_cameras.py").read_text(encoding="utf-8"))
    rows = [node for node in source.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_row_05_")]
    calls = [inner for node in rows for inner in ast.walk(node) if isinstance(inner, ast.Call) and ast.unparse(inner.func) == "bound"]
    assert {float(ast.unparse(call.args[1])) for call in calls if ast.literal_eval(call.args[2]) == "ms"} == {200.0}
    assert "the 200 ms count from those 3 cm" in HOW


def test_who_may_drive_past_a_frozen_camera_is_said() -> None:
    assert "line_of_sight" in RunConfig.__struct_fields__
    assert "`line_of_sight = " in HOW
