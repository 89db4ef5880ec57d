"""`takeover data forget` takes a person out of the decisions about policies and changes nothing else of them."""

import json
import threading
from pathlib import Path

import msgspec
import pytest

from takeover.app.cli import main
from takeover.data import decision_people
from takeover.data.catalog import Catalog
from takeover.data.decision_people import decision_authors, forget_in_decisions
from takeover.data.forget import forget
from takeover.data.people import PeopleError, list_people
from takeover.data.workspace import Workspace
from takeover.policies.decision_watch import DecisionWatch
from takeover.policies.decisions import GATE, current_standing, decisions_path, read_decisions

from .test_decisions import ROBOT, note


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Two people and the gate decided; nobody operated or labelled."""
    Workspace(tmp_path).prepare()
    note(tmp_path, "promoted", 1, GATE)
    note(tmp_path, "rolled_back", 1, "op-07", "op-07 and op-070 saw it scratch")
    note(tmp_path, "promoted", 2, "op-070", "as op-07 said")
    note(tmp_path, "released", 2, "console-op-07")
    return tmp_path


def test_who_only_decided_is_known_and_forgotten_and_every_decision_is_kept(workspace: Path) -> None:
    before = read_decisions(workspace)
    watch = DecisionWatch(workspace, *ROBOT)
    watch.poll()
    assert decision_authors(Workspace(workspace)) == {"op-07": 2, "op-070": 1}
    report = forget(Workspace(workspace), "op-07", "data")
    assert (report.name, report.decisions, report.finished) == ("forgotten-1", 3, True)
    after = read_decisions(workspace)
    assert [d.author for d in after] == [GATE, "forgotten-1", "op-070", "console-forgotten-1"]
    assert [d.reason for d in after] == ["", "forgotten-1 and op-070 saw it scratch", "as forgotten-1 said", ""]
    kept = [msgspec.structs.replace(d, author="", reason="") for d in after]
    assert kept == [msgspec.structs.replace(d, author="", reason="") for d in before]
    watch.poll()
    assert watch.standing == current_standing(workspace, *ROBOT)
    assert not watch.error
    assert "policies/decisions.jsonl" not in report.remains
    assert report.remains == ["audit.log"]  # its older lines stay, and are named
    assert forget(Workspace(workspace), "op-070", "data").name == "forgotten-2", "a name that a decision has is not given twice"


def test_a_decision_made_while_the_file_is_rewritten_is_kept(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one waits for the lock of a file that is then replaced."""
    opened, real = threading.Event(), decision_people.write_durably
    other = threading.Thread(target=lambda: (opened.set(), note(workspace, "promoted", 3, "op-070")))

    def slow(path: Path, data: bytes) -> None:
        other.start()
        assert opened.wait(5.0)
        other.join(0.3)
        assert other.is_alive(), "it must wait for the lock"
        real(path, data)

    monkeypatch.setattr(decision_people, "write_durably", slow)
    assert forget_in_decisions(Workspace(workspace), "op-07", "forgotten-1") == (3, [])
    other.join(10.0)
    assert [(d.number, d.author) for d in read_decisions(workspace)][-2:] == [(4, "console-forgotten-1"), (5, "op-070")]
    assert current_standing(workspace, *ROBOT).trusted == 3


def test_a_line_that_cannot_be_read_is_named_and_stays(workspace: Path) -> None:
    path = decisions_path(workspace)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"author":"op-07",\n', *lines[2:], b'{"number":5,"author":"op-07"']))
    report = forget(Workspace(workspace), "op-07", "data")
    assert not report.finished
    assert "decisions.jsonl, line 3 cannot be read" in report.left[0]
    left = path.read_bytes()
    assert left.count(b"op-07") == 1 + left.count(b"op-070"), "only the broken line still has it; the torn end was never a decision"
    path.write_bytes(b"".join(line for line in left.splitlines(keepends=True) if b'"op-07",\n' not in line))
    assert forget(Workspace(workspace), "op-07", "data").finished
    assert len(read_decisions(workspace)) == 4


def test_people_who_decided_on_the_command_line(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--workspace", str(workspace)]
    Catalog.open(Workspace(workspace)).close()
    assert main(["data", "people", "--json", *where]) == 0
    assert {row["id"]: row["decisions"] for row in json.loads(capsys.readouterr().out)} == {"op-07": 2, "op-070": 1}
    assert main(["data", "forget", "op-07", *where]) == 2
    assert "0 episodes, 0 label events and 2 decisions name 'op-07'" in capsys.readouterr().err
    assert main(["data", "forget", "op-07", "--yes", *where]) == 0
    assert "3 decisions" in capsys.readouterr().out
    with Catalog.open(Workspace(workspace)) as catalog:
        assert "op-07" not in {person.id for person in list_people(catalog, decision_authors(Workspace(workspace)))}
    with pytest.raises(PeopleError, match="nobody is called 'gate'"):
        forget(Workspace(workspace), GATE, "data")


def test_nobody_signs_as_the_gate(tmp_path: Path) -> None:
    from takeover.app.commands.policy_options import author_of
    from takeover.app.processes.common import StartupError

    assert author_of("", "op-01") == "op-01"
    with pytest.raises(StartupError, match="that is what the gate signs with"):
        author_of(GATE, "op-01")
