"""The whole loop without a window, every process real: reproducible in lockstep, stopped cleanly, surviving kills."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from takeover.app.cli import main
from takeover.app.summary import without_times
from takeover.data.catalog import Catalog
from takeover.data.episode_file import verify_file

QUICK = ("learner.clone_updates=200", "learner.critic_warmup=50", "learner.actor_delay=0")  # good enough to be corrected
EPISODES, DEMONSTRATIONS, STARTS = 4, 3, 4


@pytest.fixture
def runtime(monkeypatch):
    """A runtime folder with a short name: socket paths are limited."""
    with tempfile.TemporaryDirectory(prefix="tk") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def arguments(workspace: Path, *more: str) -> list[str]:
    counts = ["--episodes", str(EPISODES), "--demonstrations", str(DEMONSTRATIONS), "--evaluation-starts", str(STARTS)]
    options = [
        "--headless",
        "--clock",
        "lockstep",
        "--robot",
        "sim:peg-insert",
        "--learner",
        "hil-serl",
        "--operator",
        "scripted",
        "--seed",
        "7",
    ]
    return ["run", *options, *counts, "--workspace", str(workspace), "--summary", str(workspace) + ".json", "--set", *QUICK, *more]


def station_processes(workspace: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if process.info["status"] == psutil.STATUS_ZOMBIE or "--config" not in command:
            continue
        path = Path(command[command.index("--config") + 1])
        if path.is_file() and json.loads(path.read_text())["workspace"] == str(workspace):
            found.append(process)
    return found


def test_lockstep_is_reproducible_to_the_weights(tmp_path, runtime, capsys):
    summaries = []
    for name in ("first", "second"):
        assert main(arguments(tmp_path / name)) == 0, capsys.readouterr().err
        summaries.append(json.loads((tmp_path / f"{name}.json").read_text()))
        assert not list((runtime / "takeover").iterdir())
        assert not list((tmp_path / name).glob("*.lock"))
    first, second = summaries
    assert without_times(first) == without_times(second)
    assert len(first["weights_sha256"]) == 64

    assert len(first["episodes"]) == EPISODES
    for episode in first["episodes"]:
        assert set(episode) == {"success", "autonomous", "outcome", "steps", "human_steps", "takeovers", "policy_version"}
        assert episode["policy_version"] >= 1
        assert episode["autonomous"] == (episode["human_steps"] == 0)
    human, steps = (sum(episode[key] for episode in first["episodes"]) for key in ("human_steps", "steps"))
    assert first["intervention_rate"] == {"first_20": human / steps, "last_20": human / steps}
    assert human > 0, "a policy cloned from three demonstrations needs help"
    assert first["learner"]["updates"] > 0
    assert first["learner"]["versions_published"] > 1
    assert first["correction_to_batch_s"] is None
    assert first["correction_to_acting_s"] is None
    assert first["steps"]["dropped"] == first["steps"]["late"] == 0
    assert first["heldout_success"]["after"]["n"] == STARTS
    assert set(first["wall_s"]) == {"demonstrations", "loop", "evaluation"}
    assert first["operator"]["kind"] == "scripted"
    assert first["operator"]["stall_steps"] == 16

    with Catalog.open(tmp_path / "first") as catalog:
        rows = catalog.episodes()
    assert [row.kind for row in rows] == ["demonstration"] * DEMONSTRATIONS + ["policy"] * EPISODES
    recorded = [(row.steps, row.human_steps, row.takeovers, row.outcome) for row in rows if row.kind == "policy"]
    assert recorded == [tuple(episode[key] for key in ("steps", "human_steps", "takeovers", "outcome")) for episode in first["episodes"]]
    assert [problem for row in rows for problem in verify_file(tmp_path / "first" / row.path)] == []
    assert (tmp_path / "first" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert "held-out success after" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_a_run_cleanly(tmp_path, runtime, eventually, number):
    workspace = tmp_path / "ws"
    command = [sys.executable, "-m", "takeover.app.cli", *arguments(workspace, "--demonstrations", "1000")]
    process = subprocess.Popen(command, env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)}, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: len(station_processes(workspace)) == 6, 60)
        eventually(lambda: list((workspace / "episodes").glob("*/*.hdf5")), 60)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error.endswith("takeover: stopped\n")
    assert station_processes(workspace) == []
    assert not list((runtime / "takeover").iterdir())
    assert not list(workspace.glob("*.lock"))


def test_every_process_killed_once_during_a_run(tmp_path, runtime, eventually):
    """The run goes on to its end; nothing that was recorded is damaged."""
    workspace = tmp_path / "ws"
    command = [sys.executable, "-m", "takeover.app.cli", *arguments(workspace, "--episodes", "30")]
    process = subprocess.Popen(command, env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)}, stderr=subprocess.PIPE, text=True)
    killed: set[str] = set()
    try:
        eventually(lambda: list((workspace / "policies").glob("2/manifest.json")) or process.poll() is not None, 200)
        for name in ("recorder", "actor", "operator", "learner", "bridge", "evaluator"):
            victims = [victim for victim in station_processes(workspace) if f"takeover.app.processes.{name}" in victim.cmdline()]
            if not victims:
                continue  # it ended with the run: counted below
            victims[0].kill()
            killed.add(name)
            time.sleep(0.5)
        _, error = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, error
    assert killed == {"recorder", "actor", "operator", "learner", "bridge", "evaluator"}
    summary = json.loads(Path(str(workspace) + ".json").read_text())
    assert len(summary["episodes"]) == 30
    with Catalog.open(workspace) as catalog:
        paths = [workspace / row.path for row in catalog.episodes()]
    assert [problem for path in paths for problem in verify_file(path)] == []


def test_without_a_learner_the_policy_block_says_why_it_cannot_start(tmp_path, runtime, capsys, monkeypatch):
    monkeypatch.setattr("takeover.app.supervisor.REFUSED_TIMEOUT_S", 0.5)
    assert main(arguments(tmp_path / "ws", "--learner", "none")) == 1
    assert "policy" in capsys.readouterr().err
