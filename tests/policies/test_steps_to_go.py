"""Steps to go: what each kind of run teaches, bins instead of raw steps, the fit, the file, the actor's scores, the command."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from takeover.app.cli import main
from takeover.data.catalog import Catalog
from takeover.data.entry import entry_of
from takeover.data.episode_file import write_episode
from takeover.data.episode_labels import EpisodeLabels
from takeover.data.episode_schema import EpisodeRecords
from takeover.data.labels import Labels
from takeover.data.schema import ControlMode, EpisodeKind, Mode, Observation, Outcome, OutcomeSource, RobotSpec
from takeover.data.workspace import Workspace
from takeover.policies.acting import Acting
from takeover.policies.base import PolicyRefused
from takeover.policies.publish import make_manifest as make_policy_manifest
from takeover.policies.publish import publish, weights_bytes
from takeover.policies.registry import make_learner
from takeover.policies.steps_to_go import Bins, Head, Targets, interval_loss, targets_of
from takeover.policies.steps_to_go_file import HeadWatch, ProgressScores, head_path, load_head, make_manifest, save_head
from takeover.policies.steps_to_go_fit import FitCancelled, FitSettings, conformal, fit, report, split
from takeover.policies.steps_to_go_store import make_head, read_targets, recorded_episodes, usable
from takeover.robot_bridge.robots.sim import SimRobot

FAST = FitSettings(hidden=32, updates=500, batch=64, learning_rate=1e-2, weight_decay=0.0)


def walk(script: Any, length: int, limit: int, rng: np.random.Generator, outcome: Outcome = Outcome.SUCCESS) -> tuple[Any, list[Any], Any]:
    """An episode whose first observation is the distance to the goal in steps / 100; a failed one stays where it is."""
    start, steps = script.start(), []
    for index in range(length):
        distance = (length - index if outcome == Outcome.SUCCESS else -20.0) / 100.0
        observation = [distance, *rng.normal(size=2)]
        steps.append(script.step(observation=observation, next_observation=observation))
    source = OutcomeSource.TASK if outcome == Outcome.SUCCESS else OutcomeSource.LIMIT
    return start, steps, script.end(outcome, source)


def walks(make_script: Callable[..., Any], spec: RobotSpec, stuck: int = 0) -> list[Targets]:
    rng = np.random.default_rng(0)
    bins, script = Bins.of(spec.max_steps), make_script(spec)
    made = [walk(script, int(rng.integers(20, spec.max_steps)), spec.max_steps, rng) for _ in range(20)]
    made += [walk(script, spec.max_steps, spec.max_steps, rng, Outcome.FAILURE) for _ in range(stuck)]
    return [targets_of(*records, bins) for records in made]


def test_bins_cover_every_number_of_steps_up_to_the_limit() -> None:
    for limit in (1, 30, 49, 50, 100, 997):
        bins = Bins.of(limit)
        index, values = bins.index(np.arange(limit + 1)), bins.values()
        assert bins.count <= 50
        assert index.min() == 0
        assert index.max() == bins.count - 1
        assert np.abs(values[index].numpy() - np.arange(limit + 1)).max() <= bins.width / 2
        assert len(values) == bins.count + 1
        assert values[bins.never] == limit
    with pytest.raises(ValueError, match="step limit"):
        Bins.of(0)


def test_a_success_counts_down_to_one_and_the_target_is_the_bin(make_script: Callable[..., Any], make_robot_spec: Any) -> None:
    script = make_script(make_robot_spec(max_steps=300))  # bins of 7 steps
    bins = Bins.of(300)
    start, steps = script.start(), [script.step() for _ in range(20)]
    found = targets_of(start, steps, script.end(), bins)
    assert found.remaining.tolist() == list(range(20, 0, -1))
    assert found.low.tolist() == found.high.tolist() == [left // 7 for left in range(20, 0, -1)]


def test_nothing_is_counted_across_a_run(make_script: Callable[..., Any], make_robot_spec: Any) -> None:
    script, bins = make_script(make_robot_spec(max_steps=40)), Bins.of(40)
    start = script.start()
    steps = [script.step() for _ in range(4)]
    steps += [script.step(ControlMode.PAUSED) for _ in range(3)]
    steps += [script.step(run_id=1) for _ in range(5)]
    found = targets_of(start, steps, script.end(), bins)
    assert len(found) == 9  # held steps are no rows
    assert found.remaining.tolist() == [-1] * 4 + [5, 4, 3, 2, 1]
    assert found.low[:4].tolist() == [4, 3, 2, 1]  # at least as many as were still made before the hold
    assert (found.high[:4] == bins.never).all()


def test_failures_and_time_limits_are_not_taken_for_successes(make_script: Callable[..., Any], make_robot_spec: Any) -> None:
    spec = make_robot_spec(max_steps=30)
    bins = Bins.of(30)

    def of(outcome: Outcome, source: OutcomeSource, labels: dict[str, Any] | None = None, **end: Any) -> Targets:
        script = make_script(spec)
        start, steps = script.start(), [script.step() for _ in range(6)]
        given = EpisodeLabels(episode_id=start.episode_id, **labels) if labels else None
        return targets_of(start, steps, script.end(outcome, source, **end), bins, given)

    failed = of(Outcome.FAILURE, OutcomeSource.TASK)
    assert (failed.low == bins.never).all()
    assert (failed.remaining == -1).all()
    for outcome, source in (
        (Outcome.FAILURE, OutcomeSource.LIMIT),
        (Outcome.ABORTED, OutcomeSource.OPERATOR),
        (Outcome.UNKNOWN, OutcomeSource.TASK),
    ):
        late = of(outcome, source)
        assert late.low.tolist() == [6, 5, 4, 3, 2, 1]
        assert (late.high == bins.never).all()
        assert (late.remaining == -1).all()
    dated_back = of(Outcome.SUCCESS, OutcomeSource.OPERATOR, event_step=3)
    assert dated_back.remaining.tolist() == [4, 3, 2, 1]
    relabelled = of(Outcome.SUCCESS, OutcomeSource.TASK, {"relabelled": True, "outcome": Outcome.FAILURE, "event_step": 4})
    assert (relabelled.low == bins.never).all()
    assert len(relabelled) == 5
    trimmed = of(Outcome.SUCCESS, OutcomeSource.TASK, {"left_out": ((0, 2),)})
    assert trimmed.remaining.tolist() == [3, 2, 1]
    assert trimmed.episode_step.tolist() == [3, 4, 5]
    assert len(of(Outcome.SUCCESS, OutcomeSource.TASK, {"excluded": True})) == 0


def test_the_loss_is_cross_entropy_on_one_bin_and_survival_on_a_range() -> None:
    logits = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    one = torch.tensor([0, 3, 7, 2, 5])
    assert interval_loss(logits, one, one) == pytest.approx(float(torch.nn.functional.cross_entropy(logits, one)), rel=1e-5)
    low, high = torch.tensor([4]), torch.tensor([7])
    assert interval_loss(logits[:1], low, high) == pytest.approx(-math.log(float(logits[0].softmax(0)[4:].sum())), rel=1e-4)
    assert interval_loss(logits[:1], torch.tensor([0]), high) == pytest.approx(0.0, abs=1e-6)  # nothing was learned: no gradient


def test_it_learns_steps_not_bins_and_says_its_error_on_held_out_episodes(make_script: Callable[..., Any], make_robot_spec: Any) -> None:
    spec = make_robot_spec(max_steps=300)
    learned, held = split(walks(make_script, spec))
    assert len(held) == 4
    assert not {e.episode_id for e in learned} & {e.episode_id for e in held}
    head = fit(learned, Bins.of(300), spec.observation.units, FAST)
    found = report(head, learned, held, 8.0, 0.1)
    steps = sum(len(episode) for episode in held)
    assert found["held_out"]["steps"] == steps
    assert found["held_out"]["episodes"] == 4
    assert found["held_out"]["mean_absolute_error_steps"] < 12.0  # bins of 7 steps; the bin's index instead of steps would be off by 100
    assert found["constant"]["mean_absolute_error_steps"] > 40.0
    low, high = found["held_out"]["interval"]
    assert low <= found["held_out"]["mean_absolute_error_steps"] <= high
    assert sum(row["steps"] for row in found["by_range"]) == steps
    assert found["success_offer"]["offered_near_the_end"] == 4


def test_a_state_in_which_time_runs_out_is_far_from_success(make_script: Callable[..., Any], make_robot_spec: Any) -> None:
    spec = make_robot_spec(max_steps=60)
    episodes = walks(make_script, spec, stuck=10)
    head = fit(episodes, Bins.of(60), spec.observation.units, FAST)
    d, _ = head.of(np.array([[-0.2, 0.0, 0.0], [0.05, 0.0, 0.0], [0.4, 0.0, 0.0]], np.float32))
    assert d[0] > 45.0
    assert d[1] < 15.0
    assert 25.0 < d[2] < 55.0
    assert report(head, episodes, episodes, 3.0, 0.1)["success_offer"]["offered_without_success"] == 0


def test_the_fit_is_a_function_of_data_and_seed_and_can_be_stopped(make_script: Callable[..., Any], make_robot_spec: Any) -> None:
    spec = make_robot_spec(max_steps=60)
    episodes, bins, units = walks(make_script, spec), Bins.of(60), spec.observation.units
    short = FitSettings(hidden=16, updates=60, batch=32)
    assert torch.equal(fit(episodes, bins, units, short).flat, fit(episodes, bins, units, short).flat)
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> bool:
        seen.append((done, total))
        return False

    with pytest.raises(FitCancelled, match="50 of 60"):
        fit(episodes, bins, units, short, stop)
    assert seen == [(50, 60)]
    with pytest.raises(ValueError, match="4 successful episodes; steps to go needs 5"):
        fit(episodes[:4], bins, units, short)


def test_the_stall_threshold_is_a_calibration_score_of_the_right_rank(make_script: Callable[..., Any], make_robot_spec: Any) -> None:
    scores = [float(x) for x in np.random.default_rng(0).permutation(20)]
    assert conformal(scores, 0.1) == 18.0  # ceil(21 x 0.9) = 19th of 20
    assert conformal(scores[:8], 0.1) == math.inf  # the 9th of 8: no promise can be made
    assert conformal([], 0.1) == math.inf
    spec = make_robot_spec(max_steps=60)
    episodes = walks(make_script, spec, stuck=3)
    head = fit(episodes, Bins.of(60), spec.observation.units, FitSettings(hidden=16, updates=60, batch=32))
    largest = [float(head.of(episode.observations)[1].max()) for episode in episodes[:20]]
    found = report(head, [], episodes, 3.0, 0.1)["stall"]
    assert found["threshold_spread_steps"] == conformal(largest, 0.1)
    assert (found["unassisted_successes"], found["helped_or_failed"]) == (20, 3)
    # each judged by the others' threshold, the 18th of 19: the two largest pass it
    assert found["false_alarms"] == 2


# --- files and actors ---


def some_head(spec: RobotSpec, seed: int = 0) -> Head:
    bins = Bins.of(spec.max_steps)
    episodes = [
        Targets(
            f"e{i}", True, False, np.random.default_rng(i).normal(size=(8, spec.observation.size)).astype(np.float32), *[np.arange(8)] * 4
        )
        for i in range(5)
    ]
    return fit(episodes, bins, spec.observation.units, FitSettings(hidden=16, updates=5, batch=16, seed=seed))


def kept(workspace: Path, spec: RobotSpec, seed: int = 0, stall: float | None = 4.0) -> Path:
    head = some_head(spec, seed)
    return save_head(workspace, head, make_manifest(head, spec, success_steps=3.0, stall_spread_steps=stall, episodes=5))


def test_a_head_comes_back_from_its_file_and_anything_else_is_refused(tmp_path: Path, make_robot_spec: Any) -> None:
    spec = make_robot_spec(max_steps=60)
    head, path = some_head(spec), kept(tmp_path, spec)
    back = load_head(path, spec)
    rows = np.random.default_rng(3).normal(size=(7, 3)).astype(np.float32)
    assert all(np.array_equal(a, b) for a, b in zip(head.of(rows), back.head.of(rows), strict=True))
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file stays
    with pytest.raises(PolicyRefused, match="is for toy:reach, this robot is sim:peg-insert"):
        load_head(path, SimRobot("peg-insert").spec)
    with pytest.raises(PolicyRefused, match="other observations"):
        load_head(path, make_robot_spec(observation=4, max_steps=60))
    with pytest.raises(ValueError, match=r"this head needs \(N, 3\)"):
        head.of(np.zeros((2, 5), np.float32))
    data = bytearray(path.read_bytes())
    data[-5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(PolicyRefused, match="hash does not match"):
        load_head(path, spec)
    path.write_bytes(b"not a head")
    with pytest.raises(PolicyRefused, match="cannot read"):
        load_head(path, spec)


def test_names_of_robots_make_one_safe_file_name_each(tmp_path: Path) -> None:
    paths = [head_path(tmp_path, *names) for names in (("a", "b:c"), ("a:b", "c"), ("../../x", "y/z"), ("", ""))]
    assert len(set(paths)) == 4
    assert {path.parent for path in paths} == {tmp_path / "steps_to_go"}


def test_an_actor_scores_with_the_head_from_its_next_episode_on(tmp_path: Path, make_robot_spec: Any) -> None:
    spec = make_robot_spec(max_steps=60)
    weights = make_learner("hil-serl", spec, 0, {"hidden": 16}).weights()
    content = weights_bytes(weights)
    publish(tmp_path, make_policy_manifest(weights, content, spec, version=1, parent=0, learner="hil-serl", swap="step"), content)
    acting = Acting(tmp_path, spec, 0)
    assert acting.offer(1)

    def ask(episode: str, seq: int) -> Any:
        message = Observation(
            session="s", seq=seq, t_robot_ns=0, mode=Mode.POLICY, episode_id=episode, episode_step=0, run_id=0, observation=[0.1, 0.2, 0.3]
        )
        return acting.answer(message)

    assert ask("a", 0).scores == {}
    path = kept(tmp_path, spec)
    assert ask("a", 1).scores == {}  # within an episode nothing changes
    scores = ask("b", 2).scores
    expected, spread = some_head(spec).of(np.array([[0.1, 0.2, 0.3]], np.float32))
    assert scores == {
        "steps_to_go": float(expected[0]),
        "steps_to_go_spread": float(spread[0]),
        "success_offered": float(expected[0] <= 3.0),
        "stalled": float(spread[0] > 4.0),
    }
    path.write_bytes(path.read_bytes()[:-9])
    answer = ask("c", 3)
    assert answer.scores == {}
    assert len(answer.actions) == 1
    assert "cannot read" in acting.progress.problem
    kept(tmp_path, spec, seed=1, stall=None)
    assert set(ask("d", 4).scores) == {"steps_to_go", "steps_to_go_spread", "success_offered"}
    assert acting.progress.problem == ""
    path.unlink()
    assert ask("e", 5).scores == {}


def test_success_is_offered_at_few_steps_only(make_script: Callable[..., Any], make_robot_spec: Any) -> None:
    spec = make_robot_spec(max_steps=60)
    head = fit(walks(make_script, spec), Bins.of(60), spec.observation.units, FAST)
    scores = ProgressScores(head, make_manifest(head, spec, success_steps=6.0, stall_spread_steps=None, episodes=20))
    near, far = (scores.scores(np.array([x, 0.0, 0.0], np.float32)) for x in (0.01, 0.5))
    assert near["success_offered"] == 1.0
    assert far["success_offered"] == 0.0
    assert far["steps_to_go"] > 30.0


def test_a_watch_says_nothing_where_there_is_no_head(tmp_path: Path, make_robot_spec: Any) -> None:
    watch = HeadWatch(tmp_path, make_robot_spec())
    watch.look()
    assert watch.current is None
    assert watch.problem == ""


# --- the store and the command ---


def recorded(place: Workspace, make_script: Callable[..., Any], successes: int, failures: int, **changes: Any) -> SimRobot:
    """Real episode files of the simulated arm moving; how they ended is made up."""
    robot = SimRobot("peg-insert")
    script = make_script(robot.spec)
    for number in range(successes + failures):
        success = number < successes
        robot.reset(number)
        start, steps = script.start(EpisodeKind.DEMONSTRATION if number < 3 else EpisodeKind.POLICY), []
        for index in range(12):
            observation = robot.read().observation.tolist()
            robot.apply(np.array([0.2, -0.1, -0.6, 0.1]))
            robot.advance()
            steps.append(
                script.step(
                    observation=observation, next_observation=robot.read().observation.tolist(), **changes.get(str((number, index)), {})
                )
            )
        end = script.end(Outcome.SUCCESS if success else Outcome.FAILURE, OutcomeSource.TASK if success else OutcomeSource.LIMIT)
        episode = EpisodeRecords(start=start, steps=steps, end=end)
        path, digest, size = write_episode(place, episode)
        entry = entry_of(episode, path.relative_to(place.path).as_posix(), digest, size)
        with Catalog.open(place) as catalog:
            catalog.add_episode(entry.session, entry.episode, entry.segments)
    return robot


def test_the_command_fits_keeps_and_reports(tmp_path: Path, make_script: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    place = Workspace(tmp_path / "ws").prepare()
    robot = recorded(place, make_script, successes=10, failures=5)
    where = ("--robot", "sim:peg-insert", "--updates", "100", "--workspace", str(place.path))
    served = ("--robot", "sim-server:peg-insert", *where[2:])  # its records call it sim, too
    assert main(["policy", "steps-to-go", "--dry-run", "--json", *served]) == 0
    dry = json.loads(capsys.readouterr().out)
    path = head_path(place.path, "sim", "peg-insert")
    assert dry["path"] == ""
    assert not path.exists()
    assert main(["policy", "steps-to-go", "--json", *where]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["path"] == str(path)
    assert made["manifest"]["sha256"] == dry["manifest"]["sha256"]
    assert made["manifest"]["episodes"] == 12
    assert made["manifest"]["report"]["held_out"]["steps"] == 24
    assert load_head(path, robot.spec).manifest.report["success_offer"]["others"] == 1
    assert main(["policy", "steps-to-go", *where]) == 0
    said = capsys.readouterr().out
    assert "mean absolute error:" in said
    assert "n = 24 steps of 2 episodes" in said
    assert "stall: off; 2 held-out" in said


def test_the_newest_episodes_are_read_and_no_others(tmp_path: Path, make_script: Callable[..., Any]) -> None:
    place = Workspace(tmp_path / "ws").prepare()
    recorded(place, make_script, successes=7, failures=2)
    _, every = read_targets(place, "peg-insert", "sim")
    _, newest = read_targets(place, "peg-insert", "sim", newest=3)
    assert [episode.episode_id for episode in newest] == [episode.episode_id for episode in every][-3:]
    assert [row.id for row in usable(place, "peg-insert", "sim", 3)] == [row.id for row in usable(place, "peg-insert", "sim")][-3:]
    with Catalog.open(place) as catalog:
        paged = [row.id for row in catalog.newest_counted("peg-insert", "sim", ["demonstration", "policy"], page=2)]
        assert paged == [row.id for row in catalog.episodes(task_id="peg-insert", newest_first=True)]
        Labels(place, catalog).add_label("e000", "exclude", True, "op-01")
    assert recorded_episodes(place, "peg-insert", "sim") == 9 == len(usable(place, "peg-insert", "sim")) + 1
    assert recorded_episodes(place, "peg-insert", "other") == 0


def test_labels_count_and_too_little_is_refused(
    tmp_path: Path, make_script: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    place = Workspace(tmp_path / "ws").prepare()
    recorded(place, make_script, successes=6, failures=1)
    with Catalog.open(place) as catalog:
        Labels(place, catalog).add_label("e000", "exclude", True, "op-01")
        Labels(place, catalog).add_label("e001", "outcome", "failure", "op-01")
    _, episodes = read_targets(place, "peg-insert", "sim")
    assert [episode.episode_id for episode in episodes] == [f"e{i:03d}" for i in range(1, 7)]
    assert not episodes[0].success
    assert episodes[1].success
    assert main(["policy", "steps-to-go", "--robot", "sim:peg-insert", "--workspace", str(place.path)]) == 2
    assert "4 successful episodes; steps to go needs 5 or more" in capsys.readouterr().err
    assert not head_path(place.path, "sim", "peg-insert").exists()
    assert main(["policy", "steps-to-go", "--robot", "sim:pick-lift", "--workspace", str(place.path)]) == 2
    assert "no recorded episode of sim:pick-lift" in capsys.readouterr().err
    with pytest.raises(ValueError, match="alpha = 2"):
        make_head(place, "peg-insert", "sim", FAST, alpha=2.0)


def test_an_observation_that_is_no_number_is_named(make_script: Callable[..., Any], make_robot_spec: Any) -> None:
    script = make_script(make_robot_spec())
    start, steps = script.start(), [script.step(), script.step(observation=[0.0, math.nan, 0.0])]
    with pytest.raises(ValueError, match="episode e000, step 1: observation 'o1' is not finite"):
        targets_of(start, steps, script.end(), Bins.of(30))
