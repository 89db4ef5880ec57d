"""A learned reward that is kept up while the station works: real recorder and files, learner on disk, and the evaluator process."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.app.processes.evaluator_reward import RewardKeeper
from takeover.data.catalog import Catalog
from takeover.data.labels import Labels
from takeover.data.schema import EpisodeKind, EvaluatorStatus, OutcomeSource, RunConfig
from takeover.policies.hil_serl import HilSerlLearner
from takeover.policies.learner_run import LearnerRun
from takeover.policies.reward_compare import Comparison, sign_test
from takeover.policies.reward_rescore import rescore, veto
from takeover.policies.reward_settings import RewardError, version_of
from takeover.policies.reward_store import load_reward, reward_versions, rewards_folder
from takeover.policies.reward_training import RewardRequest, request_like, train_reward
from takeover.policies.reward_upkeep import NEWS_S, RETRY_S, RewardUpkeep
from takeover.robot_bridge.protocol import Endpoints, Subscriber
from takeover.robot_bridge.robots.sim import SimRobot

from .reward_episodes import SETTINGS, WRONG, Writer, build

FAST = {"updates_per_step": 1, "clone_updates": 10, "critic_warmup": 5, "learning_starts": 5, "hidden": 16, "batch": 32}


def _go_on(*_: object) -> bool:
    return True


_made: list[Path] = []


@pytest.fixture
def workspace(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, make_script: Callable[..., Any]) -> Path:
    """Eight demonstrations and eight failures that people's keys judged, a classifier of them, and four successes it gave wrongly.

    Made once, and copied for every test.
    """
    if not _made:
        folder = tmp_path_factory.mktemp("reward")
        build(folder, make_script(SimRobot("peg-insert").spec))
        _made.append(folder)
    return Path(shutil.copytree(_made[0], tmp_path / "ws"))


@pytest.fixture
def upkeep_of() -> Iterator[Callable[..., RewardUpkeep]]:
    made: list[RewardUpkeep] = []

    def make(workspace: Path, after: int = 3) -> RewardUpkeep:
        made.append(RewardUpkeep(workspace, "sim", "peg-insert", after))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _veto(workspace: Path, names: list[str]) -> None:
    for name in names:
        veto(workspace, name, "op-01")


def _outcome(workspace: Path, name: str) -> tuple[str, str]:
    with Catalog.open(workspace) as catalog:
        row = catalog.episode(name)
        return row.outcome, row.outcome_source


def test_vetoes_make_the_next_version_which_takes_the_other_false_success_back(
    workspace: Path, upkeep_of: Callable[..., RewardUpkeep], monkeypatch: pytest.MonkeyPatch
) -> None:
    upkeep = upkeep_of(workspace)
    assert not upkeep.look(_go_on)
    assert (upkeep.notice, upkeep.figures["vetoes"], upkeep.figures["wanted"]) == ("", 0.0, 3.0)
    _veto(workspace, WRONG[:2])
    assert not upkeep.look(_go_on)
    assert upkeep.figures["vetoes"] == 2.0
    _veto(workspace, WRONG[2:3])
    monkeypatch.setattr("takeover.policies.reward_upkeep.NEWS_S", 0.0)
    assert upkeep.look(_go_on)
    assert reward_versions(workspace) == [1, 2]
    made = load_reward(workspace, 2)[1]
    assert (made.parent, made.data["vetoes"], made.data["vetoed_episodes"]) == (1, 3, 3)
    assert made.settings["updates"] == SETTINGS.updates
    assert upkeep.notice.startswith("learned reward: version 2 counts now, after vetoes; of 4 held-out episodes it judges ")
    assert made.against is not None
    assert (made.against.version, made.against.episodes) == (1, len(made.held_out)) == (1, 4)
    assert upkeep.notice.endswith("; 1 recorded outcomes changed")
    assert upkeep.figures["version"] == 2.0
    assert "training" not in upkeep.figures
    assert _outcome(workspace, WRONG[3]) == ("unknown", "label")  # nobody had vetoed it
    assert not (rewards_folder(workspace) / "pending.json").exists()
    assert not upkeep.look(_go_on)
    assert upkeep.figures["vetoes"] == 0.0
    assert reward_versions(workspace) == [1, 2]
    assert upkeep.notice == ""  # it is no news any more


def test_a_running_learner_follows_before_its_next_batch_and_resumes_as_before(
    workspace: Path, upkeep_of: Callable[..., RewardUpkeep]
) -> None:
    config = RunConfig(
        session_id="run-a",
        workspace=str(workspace),
        sockets="",
        clock="realtime",
        demonstrations=8,
        learner_parameters=FAST,
        reward="classifier",
    )
    run = LearnerRun(config)
    run.resume()
    while run.training.phase == "cloning":
        run.work()
    learner = run.training.learner
    assert isinstance(learner, HilSerlLearner)
    rewards = learner.replay.online.rows[: learner.replay.online.size, learner.replay.columns.reward]
    assert float(rewards.sum()) == 4.0  # the false ones
    _veto(workspace, WRONG[:3])
    upkeep_of(workspace).look(_go_on)
    run.work()
    rewards = learner.replay.online.rows[: learner.replay.online.size, learner.replay.columns.reward]
    assert float(rewards.sum()) == 0.0
    assert run.training.status().metrics["reward_version"] == 2.0
    run.checkpoint(wait=True)
    rows = learner.replay.online.rows[: learner.replay.online.size].clone()
    run.close()
    again = LearnerRun(config)
    again.resume()
    replay = again.training.learner.replay  # type: ignore[union-attr]
    assert replay.online.rows[: replay.online.size].equal(rows)
    again.close()


def test_what_was_cut_short_after_the_training_is_scored_by_the_next_look(workspace: Path, upkeep_of: Callable[..., RewardUpkeep]) -> None:
    _veto(workspace, WRONG[:3])
    upkeep = upkeep_of(workspace)
    assert upkeep.look(lambda: len(reward_versions(workspace)) < 2)  # asked to stop as soon as the version is there
    assert _outcome(workspace, WRONG[3]) == ("success", "classifier")
    again = upkeep_of(workspace)
    again.look(_go_on)
    assert _outcome(workspace, WRONG[3]) == ("unknown", "label")
    assert again.notice.startswith("learned reward: version 2 counts now")


def test_stopped_while_training_nothing_is_written_and_it_begins_again(workspace: Path, upkeep_of: Callable[..., RewardUpkeep]) -> None:
    _veto(workspace, WRONG[:3])
    upkeep = upkeep_of(workspace)
    assert not upkeep.look(lambda: "training" not in upkeep.figures)
    assert reward_versions(workspace) == [1]
    assert not (rewards_folder(workspace) / "pending.json").exists()
    assert upkeep.look(_go_on)
    assert reward_versions(workspace) == [1, 2]


def test_one_class_leaves_the_version_and_says_so_and_more_vetoes_are_tried(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, upkeep_of: Callable[..., RewardUpkeep]
) -> None:
    with Catalog.open(workspace) as catalog:
        for number in range(8):
            Labels(workspace, catalog).add_label(f"good-{number}", "outcome", "failure", "op-01")
    _veto(workspace, WRONG[:3])
    upkeep = upkeep_of(workspace)
    assert not upkeep.look(_go_on)
    assert upkeep.notice.startswith(
        "learned reward: version 1 stays after 3 vetoes, the next cannot be trained: one class only: 0 positive"
    )
    assert reward_versions(workspace) == [1]
    assert (_outcome(workspace, WRONG[3])) == ("success", "classifier")
    tries: list[int] = []
    monkeypatch.setattr("takeover.policies.reward_upkeep.train_reward", lambda *_, **__: tries.append(1) or _raise())
    with Catalog.open(workspace) as catalog:
        Labels(workspace, catalog).add_label("bad-0", "note", "looked at", "op-01")
    upkeep.look(_go_on)
    assert not tries  # nothing that matters is new
    _veto(workspace, WRONG[3:])
    upkeep.look(_go_on)
    assert len(tries) == 1
    assert min(RETRY_S, NEWS_S) > 60.0


def _raise() -> None:
    raise RewardError("too few positives")


def test_a_next_version_that_is_worse_on_held_out_episodes_is_not_published(
    tmp_path: Path, make_script: Callable[..., Any], upkeep_of: Callable[..., RewardUpkeep]
) -> None:
    build(tmp_path, make_script(SimRobot("peg-insert").spec), replace(SETTINGS, held_out=0.5, key_delay_max_s=0.4), count=12)
    before = load_reward(tmp_path, 1)[1]
    assert len(before.held_out) == 12
    _veto(tmp_path, WRONG[:3])
    with Catalog.open(tmp_path) as catalog:  # somebody mixes up success and failure in all that is trained on
        for name in before.trained_on:
            Labels(tmp_path, catalog).add_label(name, "outcome", "failure" if name.startswith("good") else "success@2", "op-02")
    upkeep = upkeep_of(tmp_path)
    assert not upkeep.look(_go_on), upkeep.notice
    assert upkeep.notice.startswith("learned reward: version 1 stays after 3 vetoes, the next is worse: of 12 held-out episodes it judges ")
    assert ", version 1 12: 0 mended, " in upkeep.notice
    assert reward_versions(tmp_path) == [1]
    assert not (rewards_folder(tmp_path) / "pending.json").exists()
    assert _outcome(tmp_path, WRONG[3]) == ("success", "classifier")
    made, _ = train_reward(tmp_path, request_like(tmp_path, "sim", "peg-insert"), _go_on)  # a person may, and is told
    assert made.against is not None
    assert made.against.worse
    assert made.against.broken >= 5


def test_the_sign_test_is_the_binomial_tail() -> None:
    assert [sign_test(0, 0), sign_test(1, 0), sign_test(0, 3)] == [1.0, 0.5, 1.0]
    assert sign_test(5, 0) == 1 / 32
    assert sign_test(7, 1) == 9 / 256
    worse = {"version": 1, "episodes": 20, "right_before": 15, "right": 10}
    assert msgspec.convert(worse | {"mended": 0, "broken": 5}, Comparison).worse
    assert not msgspec.convert(worse | {"mended": 1, "broken": 6}, Comparison).worse


def test_marks_are_vetoes_too_and_an_episode_that_is_excluded_has_none(
    workspace: Path, make_script: Callable[..., Any], upkeep_of: Callable[..., RewardUpkeep]
) -> None:
    writer = Writer(workspace, make_script(SimRobot("peg-insert").spec, "session-b"))
    for number in range(2):
        writer.episode(f"marked-{number}", EpisodeKind.POLICY, False, False, OutcomeSource.OPERATOR, mark="not success")
    writer.episode("noted", EpisodeKind.POLICY, False, False, OutcomeSource.OPERATOR, mark="the light went off")
    writer.recorder.close()
    upkeep = upkeep_of(workspace)
    upkeep.look(_go_on)
    assert upkeep.figures["vetoes"] == 2.0
    with Catalog.open(workspace) as catalog:
        Labels(workspace, catalog).add_label("marked-0", "exclude", True, "op-01")
    upkeep.look(_go_on)
    assert upkeep.figures["vetoes"] == 1.0
    made, _ = train_reward(workspace, RewardRequest(robot_id="sim", task_id="peg-insert", settings=SETTINGS), _go_on)
    assert made.data["vetoes"] == 1  # counted alike by both


def test_without_a_classifier_it_says_what_to_do_until_there_is_one(
    tmp_path: Path, workspace: Path, upkeep_of: Callable[..., RewardUpkeep]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    upkeep = upkeep_of(empty)
    assert not upkeep.look(_go_on)
    assert "`takeover reward train` makes one" in upkeep.notice
    rewards_folder(workspace).rename(empty / "rewards")
    upkeep.look(_go_on)
    assert upkeep.notice == ""
    with pytest.raises(ValueError, match="retrain_after = -1"):
        upkeep_of(empty, -1)


@pytest.mark.parametrize("change", [{"clock": "lockstep"}, {"reward": "keys"}, {"retrain_reward_after": 0}])
def test_where_it_is_not_wanted_nothing_is_trained(workspace: Path, change: dict[str, Any]) -> None:
    _veto(workspace, WRONG)
    config = RunConfig(session_id="r", workspace=str(workspace), sockets="", reward="classifier", clock="realtime")
    keeper = RewardKeeper(msgspec.structs.replace(config, **change), SimRobot("peg-insert").spec)
    keeper.look(_go_on)
    keeper.close()
    assert (reward_versions(workspace), keeper.notices) == ([1], [])


def test_a_broken_manifest_is_a_notice_and_no_end(workspace: Path) -> None:
    (rewards_folder(workspace) / "1" / "manifest.json").write_bytes(b"{")
    config = RunConfig(session_id="r", workspace=str(workspace), sockets="", reward="classifier")
    keeper = RewardKeeper(config, SimRobot("peg-insert").spec)
    keeper.look(_go_on)
    (notice,) = keeper.notices
    assert "manifest.json" in notice
    assert notice.endswith("the present one stays, and it is tried again")


def test_only_a_classifiers_name_has_a_version() -> None:
    assert [version_of(name) for name in ("reward-v12", "reward-v", "op-01", "reward-vx")] == [12, 0, 0, 0]


def test_the_evaluator_process_does_it_and_tells(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    _veto(workspace, WRONG[:3])
    endpoints = Endpoints(tmp_path_factory.mktemp("s"))
    endpoints.prepare()
    config = RunConfig(session_id="r", workspace=str(workspace), sockets=str(endpoints.folder), reward="classifier", evaluate_every_s=0.5)
    (endpoints.folder / "run.json").write_bytes(msgspec.json.encode(config))
    command = [sys.executable, "-m", "takeover.app.processes.evaluator", "--config", str(endpoints.folder / "run.json")]
    seen: list[EvaluatorStatus] = []
    with Subscriber[EvaluatorStatus](endpoints, "evaluator_status", EvaluatorStatus) as status:
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            deadline = time.monotonic() + 60.0
            while not (seen and seen[-1].notices):
                assert time.monotonic() < deadline
                if (message := status.receive(0.2)) is not None:
                    seen.append(message)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20.0) == 0
        finally:
            process.kill()
            process.wait(10.0)
    assert seen[-1].notices[0].startswith("learned reward: version 2 counts now")
    assert seen[-1].reward["version"] == 2.0
    assert reward_versions(workspace) == [1, 2]


def test_a_limit_that_the_task_judged_is_no_success_of_a_classifier(workspace: Path, make_script: Callable[..., Any]) -> None:
    """The task was asked at every step and never said success, so what looks like one to a classifier is none."""
    script = make_script(SimRobot("peg-insert").spec, "session-b")
    writer = Writer(workspace, script)
    writer.episode("asked", EpisodeKind.POLICY, True, True, OutcomeSource.LIMIT)
    step = script.step
    script.step = lambda *modes, **fields: step(*modes, **fields, reward_source="keys")
    writer.episode("not-asked", EpisodeKind.POLICY, True, True, OutcomeSource.LIMIT)
    writer.settle()
    writer.recorder.close()
    found = {row.episode_id: row for row in rescore(workspace, 1, _go_on)[0]}
    assert "asked" not in found
    assert found["not-asked"].after.startswith("success")
    over = {row.episode_id for row in rescore(workspace, 1, _go_on, over_task=True, write=False)[0]}
    assert "asked" in over
    with Catalog.open(workspace) as catalog:
        rows = [catalog.episode(name) for name in ("asked", "not-asked")]
    assert [str(row.outcome) for row in rows if row] == ["failure", "success"]
