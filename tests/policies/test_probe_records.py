"""`takeover policy probes` on recorded episodes: what counts, what is named and left out, and that a simulator is called one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.app.cli import main
from takeover.app.commands.policy_probes import SIMULATED, recorded
from takeover.data.labels import Labels
from takeover.data.recorder import Recorder
from takeover.data.schema import ControlMode, EpisodeKind, Outcome, OutcomeSource, RobotSpec
from takeover.data.workspace import Workspace
from takeover.policies.decisions import decide
from takeover.policies.publish import make_manifest, publish, read_manifest, version_folder, weights_bytes
from takeover.policies.registry import make_learner

STEPS = 4


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    """What the station's robot calls itself in its records."""
    return msgspec.structs.replace(make_robot_spec(), robot_id="sim", task_id="peg-insert")


class Book:
    """Records probes one after another with the real recorder. A context manager."""

    def __init__(self, folder: Path, script: Any) -> None:
        self.workspace = Workspace(folder)
        self.recorder = Recorder(self.workspace)
        self.script = script
        self.probes = 0
        self.made = 0

    def __enter__(self) -> "Book":
        return self

    def __exit__(self, *_: object) -> None:
        self.recorder.close()

    def episode(
        self,
        *versions: int,
        probe_version: int = 0,
        takes_over: bool = False,
        outcome: Outcome = Outcome.SUCCESS,
        probe: bool = True,
        kind: EpisodeKind = EpisodeKind.EVALUATION,
    ) -> str:
        """One episode in which ``versions`` drove, a step or more each; a probe unless it is said otherwise. Returns its id."""
        script = self.script
        self.made += 1
        start = script.start(kind, f"p{self.made:03d}")
        start = msgspec.structs.replace(start, wall_ns=self.made * 10**9, policy_version=versions[0])
        if probe:
            start = msgspec.structs.replace(start, probe=self.probes, probe_version=probe_version)
            self.probes += 1
        records = [start]
        for step in range(STEPS):
            mode = ControlMode.HUMAN if takes_over and step > 1 else ControlMode.POLICY
            records.append(script.step(mode, policy_version=versions[min(step, len(versions) - 1)]))
        human = 2 * takes_over
        source = OutcomeSource.TASK if outcome in (Outcome.SUCCESS, Outcome.FAILURE) else OutcomeSource.STOP
        records.append(script.end(outcome, source, human_steps=human, takeovers=int(takes_over), autonomous=not takes_over))
        for record in records:
            self.recorder.accept(record)
        self.recorder.sync()
        return str(start.episode_id)


def said(capsys: pytest.CaptureFixture[str], workspace: Path, *argv: str) -> Any:
    assert main(["policy", "probes", *argv, "--json", "--workspace", str(workspace)]) == 0
    return json.loads(capsys.readouterr().out)


def test_only_probes_that_succeeded_alone_are_successes(
    tmp_path: Path, spec: RobotSpec, make_script: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with Book(tmp_path, make_script(spec)) as book:
        book.episode(2)
        book.episode(2, takes_over=True)  # an assisted success
        book.episode(2, outcome=Outcome.FAILURE)
        book.episode(2, outcome=Outcome.ABORTED)
        book.episode(2, probe=False)  # a block of evaluations that somebody started
        book.episode(2, probe=False, kind=EpisodeKind.POLICY)
        book.episode(3)
        mixed = book.episode(2, 3)
        other = book.episode(2, probe_version=3)
        corrected, unwanted = book.episode(2), book.episode(2, outcome=Outcome.FAILURE)
    labels = Labels(Workspace(tmp_path))
    labels.add_label(corrected, "outcome", "failure", "op-01")
    labels.add_label(unwanted, "exclude", "true", "op-01")
    labels.close()
    found = said(capsys, tmp_path, "2")
    (row,) = found["versions"]
    assert (row["successes"], row["n"]) == (1, 6)
    assert row["ends"] == {"succeeded alone": 1, "taken over": 1, "failed": 3, "aborted": 1}
    assert (found["not_probes"], found["mixed"]) == (1, [mixed, other])
    assert (found["excluded_but_counted"], found["relabelled"]) == (1, 1)
    assert found["simulated"] is True
    assert 0.0 < row["interval"][0] < 1 / 6 < row["interval"][1] < 1.0
    assert main(["policy", "probes", "2", "--target", "0.9", "--workspace", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert SIMULATED in printed
    assert "1 of 6 alone" in printed
    assert "misses the target" in printed
    assert "a probe is not taken back" in printed


def test_a_candidate_against_the_trusted_version_over_finished_blocks(
    tmp_path: Path, spec: RobotSpec, make_script: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    weights = make_learner("bc", spec, 1, {"hidden": 16}).weights()
    data = weights_bytes(weights)
    publish(tmp_path, make_manifest(weights, data, spec, version=1, parent=0, learner="bc", swap="episode"), data)
    decide(tmp_path, [("promoted", read_manifest(version_folder(tmp_path, 1)))], author="op-01", reason="")
    with Book(tmp_path, make_script(spec)) as book:
        for block in range(12):
            for version in (2, 1) if block % 3 else (1, 2):
                book.episode(version, probe_version=version, takes_over=version == 2)
        book.episode(2, probe_version=2)
    found = said(capsys, tmp_path, "2", "--against", "trusted")
    assert found["comparison"]["verdict"] == "worse"
    assert found["comparison"]["only_trusted"] == found["comparison"]["pairs"] <= 12
    few = said(capsys, tmp_path, "2", "--against", "1", "--budget", "5")
    assert (few["comparison"]["verdict"], few["budget_spent"], few["unpaired"]) == ("insufficient evidence", True, 1)
    assert said(capsys, tmp_path, "7")["versions"][0]["interval"] == [0.0, 1.0]


def test_a_real_robots_probes_stand_for_themselves(tmp_path: Path, spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    """Robots are never pooled, and a simulator's evaluations are no probes."""
    real = msgspec.structs.replace(spec, robot_id="arm-7", simulated=False)
    with Book(tmp_path, make_script(spec)) as book:
        book.episode(1)
        book.script = make_script(real, "session-b")
        book.episode(1)
        book.episode(1, outcome=Outcome.FAILURE)
    workspace = Workspace(tmp_path)
    simulated, arm = recorded(workspace, "sim", "peg-insert"), recorded(workspace, "arm-7", "peg-insert")
    assert (len(simulated.probes), simulated.simulated) == (1, True)
    assert ([probe.end for probe in arm.probes], arm.simulated) == (["succeeded alone", "failed"], False)
    assert recorded(workspace, "arm-7", "pick-lift").probes == []


def test_a_damaged_file_is_named_and_left_out(
    tmp_path: Path, spec: RobotSpec, make_script: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with Book(tmp_path, make_script(spec)) as book:
        book.episode(2)
        damaged = book.episode(2)
    path = next(tmp_path.glob(f"episodes/*/*{damaged}*.hdf5"))
    path.write_bytes(path.read_bytes()[:3000])
    found = said(capsys, tmp_path, "2")
    assert found["versions"][0]["n"] == 1
    assert path.name in found["unreadable"][0]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["2", "--against", "2"], "against itself"),
        (["2", "--against", "yes"], "a version's number, or trusted"),
        (["2", "--against", "trusted"], "no version is trusted"),
        (["2", "--budget", "0"], "budget"),
        (["2", "--target", "2"], "target"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, spec: RobotSpec, make_script: Callable[..., Any], capsys: pytest.CaptureFixture[str], argv: list[str], text: str
) -> None:
    with Book(tmp_path, make_script(spec)) as book:
        book.episode(2)
    assert main(["policy", "probes", *argv, "--workspace", str(tmp_path)]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--probe-share", "2"], "probe share 2"),
        (["--probe-versions", "1"], "needs --probe-share"),
        (["--probe-share", "0.2", "--probe-versions", "9"], "has no such version"),
    ],
)
def test_a_run_with_probes_that_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], text: str
) -> None:
    assert main(["run", "--headless", "--workspace", str(tmp_path), *options]) == 2
    assert text in capsys.readouterr().err
