"""`benchmarks.gate_loop`: what the gate decides says what acts, from when it was found out; without it the newest version does."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gate_loop, no_dip_run
from benchmarks.gate_loop import GatedLoop
from takeover.data.schema import EpisodeKind, RunConfig, Step
from takeover.policies.training import Publication

EASY = {"clearance_m": 0.004}  # so that cloning alone is good
STILL = {  # learns next to nothing, so that a version is as good as the one before unless it is turned round
    "clone_updates": 400,
    "hidden": 64,
    "batch": 32,
    "learning_rate": 1e-6,
    "keep_warm_start": False,
    "critic_warmup": 1,
    "learning_starts": 20,
    "actor_delay": 0,
}
MOST_EPISODES = 40


class Turned(GatedLoop):
    """Publishes versions that drive the wrong way while ``turn`` is set; notes which version drove each training step."""

    turn = False

    def __init__(self, config: RunConfig, folder: Path | None) -> None:
        self.drove: list[int] = []
        super().__init__(config, folder, every_s=4.0, pair_s=0.1)

    def _publish(self, publication: Publication) -> int:
        if self.turn:
            tensors = publication.weights.tensors
            last = sorted(name for name in tensors if name.startswith("actor.w"))[-1]
            weights = dataclasses.replace(publication.weights, tensors=tensors | {last: -tensors[last]})
            publication = dataclasses.replace(publication, weights=weights)
        return super()._publish(publication)

    def _feed(self, record_type: type[Any], /, **fields: Any) -> None:
        if record_type is Step and fields["kind"] == EpisodeKind.POLICY:
            self.drove.append(fields["policy_version"])
        super()._feed(record_type, **fields)

    def until(self, found: Any) -> None:
        for number in range(MOST_EPISODES):
            if found():
                return
            self.episode(EpisodeKind.POLICY, 1000 * self.turn + number)
        raise AssertionError(f"not in {MOST_EPISODES} episodes: {self.looks}, {self.standing}")


def cloned(config: RunConfig, folder: Path | None) -> Turned:
    loop = Turned(config, folder)
    loop.demonstrate()
    while loop.training.phase == "cloning":
        loop.training.work()
    loop.look()
    return loop


@pytest.fixture
def config() -> RunConfig:
    return RunConfig(
        session_id="gate-loop",
        workspace="",
        sockets="",
        task="peg-insert",
        learner="hil-serl",
        operator="scripted",
        clock="lockstep",
        demonstrations=10,
        learner_parameters=STILL,
        task_parameters=EASY,
        publish_every_updates=40,
    )


def test_what_is_worse_is_held_back_and_what_is_not_acts_again(tmp_path: Path, config: RunConfig) -> None:
    loop = cloned(config, tmp_path)
    assert [look["verdict"] for look in loop.looks] == ["first"]
    assert (loop.standing.trusted, loop.held_back) == (1, 0)
    loop.turn = True
    loop.until(lambda: loop.standing.pinned)
    refused = next(look for look in loop.looks if look["verdict"] == "worse")
    assert (refused["decided"], refused["trusted"]) == (["refused", "rolled_back"], 1)
    took = refused["known"] - refused["looked"]
    assert took == 2 * refused["pairs"]  # 0.1 s at 20 Hz
    assert 1 not in loop.drove[refused["looked"] : refused["known"]]  # it drives until the verdict is there
    assert loop.newest > refused["version"] >= 2
    loop.episode(EpisodeKind.POLICY, 500)
    assert set(loop.drove[refused["known"] :]) == {1}
    assert loop.held_back == len(loop.drove) - refused["known"]
    loop.turn = False
    loop.until(lambda: not loop.standing.pinned)
    passed = next(look for look in loop.looks if look["version"] > refused["version"] and look["verdict"] != "worse")
    assert passed["decided"] in (["promoted"], ["passed"])
    assert set(loop.drove[refused["known"] : passed["known"]]) == {1}
    loop.episode(EpisodeKind.POLICY, 501)
    assert min(loop.drove[passed["known"] :]) >= passed["version"]


def test_without_it_the_newest_acts(config: RunConfig) -> None:
    loop = cloned(config, None)
    loop.turn = True
    loop.until(lambda: loop.newest > 2)
    assert (loop.looks, loop.held_back) == ([], 0)
    assert loop._version() == loop.newest


SMALL = ["--steps", "60", "--points", "1", "--starts", "2", "--seeds", "0", "--task-set", "clearance_m=0.004"]
SMALL += ["--set", *(f"{name}={json.dumps(value)}" for name, value in STILL.items())]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gate_loop", *arguments])
    gate_loop.main()


def test_a_run_is_made_once_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(no_dip_run, "DEMONSTRATIONS", 5)
    left = tmp_path / "hil-serl-on-0.workspace" / "policies" / "decisions.jsonl"
    left.parent.mkdir(parents=True)
    left.write_text("of a run that was stopped\n")  # no decisions: the gate would refuse to go on
    call(monkeypatch, "run", "--out", str(tmp_path), *SMALL)
    files = sorted(tmp_path.glob("*.json"))
    assert [file.name for file in files] == ["hil-serl-off-0.json", "hil-serl-on-0.json"]
    made = [json.loads(file.read_text()) for file in files]
    assert made[0]["points"][0]["acting_outcomes"] == made[1]["points"][0]["acting_outcomes"]
    assert [look["verdict"] for look in made[1]["looks"]][:1] == ["first"]
    times = [file.stat().st_mtime_ns for file in files]
    call(monkeypatch, "run", "--out", str(tmp_path), *SMALL)
    assert [file.stat().st_mtime_ns for file in files] == times
    capsys.readouterr()
    call(monkeypatch, "table", "--out", str(tmp_path))
    said = capsys.readouterr().out
    assert "| hil-serl | off | 0 |" in said
    assert "| hil-serl | on | 0 |" in said
    assert "| hil-serl | 0 | 1 (0) | none | first |" in said
    assert "- hil-serl, gate on, 1 seeds: at the end" in said


@pytest.mark.parametrize(("options", "said"), [(["--steps", "0"], "--steps 0"), (["--pair-s", "nan"], "--pair-s nan")])
def test_what_cannot_be_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], said: str) -> None:
    monkeypatch.setattr(sys, "argv", ["gate_loop", "run", "--out", str(tmp_path / "out"), *options])
    with pytest.raises(SystemExit, match=said):
        gate_loop.main()
    assert not (tmp_path / "out").exists()
