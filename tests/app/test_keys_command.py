"""`takeover keys`: no name changes its key without a word, and the audit log says which key it was."""

import json
from pathlib import Path

import pytest

from takeover.app.cli import main
from takeover.data import audit


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "w"


def card(folder: Path, capsys: pytest.CaptureFixture[str], name: str, maker: str) -> tuple[str, str]:
    """(file, public key) of the card of a new key of ``maker``'s."""
    assert main(["keys", "new", name, "--workspace", str(folder / maker)]) == 0
    text = capsys.readouterr().out
    path = folder / f"{maker}-{name}.json"
    path.write_text(text)
    return str(path), json.loads(text)["public_key"]


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    return printed.err


def noted(workspace: Path) -> list[dict[str, object]]:
    return [{name: value for name, value in entry.items() if name not in ("wall_ns", "who")} for entry in audit.entries(workspace)]


def test_a_client_with_another_key_is_refused_until_it_is_revoked_or_replaced(
    tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (one, first), (two, second) = card(tmp_path, capsys, "desk", "alice"), card(tmp_path, capsys, "desk", "eve")

    def allow(file: str, *options: str) -> list[str]:
        return ["keys", "allow", file, "--workspace", str(workspace), "--role", "operator", "learner", *options]

    assert main(allow(one)) == 0
    assert capsys.readouterr().out == "desk is admitted as learner, operator\n"
    line = refused(capsys, *allow(two))
    for words in ("desk is admitted already, with another key", "--replace", "--name", "takeover keys revoke desk"):
        assert words in line
    assert main(["keys", "allow", one, "--workspace", str(workspace), "--role", "observer"]) == 0
    assert main(allow(two, "--replace")) == 0
    assert main(["keys", "revoke", "desk", "--workspace", str(workspace)]) == 0
    assert main(allow(one)) == 0
    both = ["learner", "operator"]
    assert noted(workspace) == [
        {"what": "key_allowed", "name": "desk", "roles": both, "public_key": first},
        {"what": "key_allowed", "name": "desk", "roles": ["observer"], "public_key": first},
        {"what": "key_allowed", "name": "desk", "roles": both, "public_key": second},
        {"what": "key_revoked", "name": "desk", "public_key": second},
        {"what": "key_allowed", "name": "desk", "roles": both, "public_key": first},
    ]


def test_a_bridge_with_another_key_is_refused_until_it_is_replaced(
    tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (one, first), (two, second) = card(tmp_path, capsys, "robot", "lab"), card(tmp_path, capsys, "robot", "eve")
    trust = ["keys", "trust", "--workspace", str(workspace)]
    assert main([*trust, one]) == main([*trust, one]) == 0
    capsys.readouterr()
    line = refused(capsys, *trust, two)
    assert "the bridge robot is known already, with another key" in line
    assert "--replace" in line
    assert main([*trust, two, "--replace"]) == 0
    assert noted(workspace) == [{"what": "bridge_trusted", "name": "robot", "public_key": key} for key in (first, first, second)]
    capsys.readouterr()
    assert main(["audit", "--workspace", str(workspace)]) == 0
    assert f"bridge_trusted     name robot, public_key {second}" in capsys.readouterr().out


def test_a_key_of_ones_own_is_noted_without_its_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, public = card(tmp_path, capsys, "desk", "alice")
    assert noted(tmp_path / "alice") == [{"what": "key_made", "name": "desk", "public_key": public}]


@pytest.fixture
def admitted(tmp_path: Path, workspace: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """A workspace in which ``desk`` is admitted, and whose audit log cannot be written any more; (card of desk, of a bridge)."""
    desk, robot = card(tmp_path, capsys, "desk", "alice")[0], card(tmp_path, capsys, "robot", "lab")[0]
    assert main(["keys", "allow", desk, "--workspace", str(workspace), "--role", "observer"]) == 0
    capsys.readouterr()
    (workspace / audit.FILE).unlink()
    (workspace / audit.FILE).mkdir()
    return desk, robot


@pytest.mark.parametrize("change", ["new", "allow", "revoke", "trust"])
def test_no_key_changes_without_its_line_in_the_audit_log(
    admitted: tuple[str, str], workspace: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    desk, robot = admitted
    more = {"new": ["mine"], "allow": [desk, "--role", "operator"], "revoke": ["desk"], "trust": [robot]}[change]

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (workspace / "keys").rglob("*.json")}

    before = files()
    line = refused(capsys, "keys", change, *more, "--workspace", str(workspace))
    assert str(workspace / audit.FILE) in line
    assert files() == before
    (workspace / audit.FILE).rmdir()
    assert main(["keys", change, *more, "--workspace", str(workspace)]) == 0
    assert files() != before
    assert len(noted(workspace)) == 1
