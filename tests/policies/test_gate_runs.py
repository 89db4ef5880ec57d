"""`benchmarks.gate_runs`: versions that were really learned meet the gate; stopped at any time, it goes on with the same numbers."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gate_runs, no_dip_run
from takeover.policies.decisions import read_decisions
from takeover.policies.publish import published_versions

EASY = [
    "--task-set",
    "hole_range_m=0.01",
    "--set",
    "clone_updates=60",
    "hidden=32",
    "batch=64",
    "critic_warmup=10",
    "learning_starts=20",
    "actor_delay=0",
]
STEPS = ["--steps", "0", "120", "--starts", "3", "--seeds", "0"]


def call(monkeypatch: pytest.MonkeyPatch, out: Path, *more: str) -> int:
    """Exit status."""
    monkeypatch.setattr(sys, "argv", ["gate_runs", "run", "--out", str(out), *STEPS, *EASY, *more])
    try:
        gate_runs.main()
    except SystemExit as stopped:
        return int(stopped.code or 0) if not isinstance(stopped.code, str) else 2
    return 0


def told(out: Path) -> Any:
    found = json.loads((out / "seed-0" / "result.json").read_text())
    return {key: found[key] for key in ("versions", "chain", "pairs", "truth")}


def test_a_run_meets_the_gate_and_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(no_dip_run, "DEMONSTRATIONS", 2)
    assert call(monkeypatch, tmp_path / "whole") == 0
    whole = told(tmp_path / "whole")
    calls = 1
    while call(monkeypatch, tmp_path / "parts", "--budget-s", "0") == 3:
        calls += 1
        assert calls < 40
    assert calls >= 3
    assert told(tmp_path / "parts") == whole
    first, last = whole["versions"].values()
    assert published_versions(tmp_path / "whole" / "seed-0") == sorted({first, last})
    assert [row["verdict"] for row in whole["chain"]] == ["first", "insufficient evidence"][: len({first, last})]
    assert len(read_decisions(tmp_path / "whole" / "seed-0")) == len(whole["chain"])
    assert all(row["n"] == 3 for row in whole["truth"].values())
    capsys.readouterr()
    table = gate_runs.table(tmp_path / "whole")
    assert "| 0 | 1 (0) | none | first |" in table
    assert f"| 0 | {last} (120) | {first} (0) |" in table


def test_pairs_go_both_ways_and_are_named_once() -> None:
    assert gate_runs.pairs_of([1, 5, 9]) == [(9, 1), (1, 9), (9, 5), (5, 9), (5, 1)]
    assert gate_runs.pairs_of([1]) == []


@pytest.mark.parametrize(("options", "said"), [(["--steps", "-1"], "--steps"), (["--starts", "201"], "held-out starts")])
def test_what_cannot_be_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gate_runs", "run", "--out", str(tmp_path), *options])
    with pytest.raises(SystemExit, match=said):
        gate_runs.main()
    assert not list(tmp_path.iterdir())
