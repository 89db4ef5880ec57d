"""What the torture tests write down about themselves."""

from pathlib import Path

import pytest

from benchmarks.result_text import write_problems


def test_problems_are_counted_listed_and_make_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "found.txt"
    assert write_problems(path, "python -m benchmarks.x --kills 3", ["3 kills"], [], 12.4) == 0
    lines = path.read_text().splitlines()
    assert lines[0] == "command   python -m benchmarks.x --kills 3"
    assert [line.split()[0] for line in lines[1:4]] == ["commit", "machine", "took"]
    assert lines[3:] == ["took      12 s", "", "3 kills", "", "problems  0"]
    assert write_problems(path, "c", [], ["a file is torn"]) == 1
    assert path.read_text().endswith("problems  1\n  a file is torn\n")
    assert "took" not in path.read_text()
    assert capsys.readouterr().out == "no problems\na file is torn\n"
