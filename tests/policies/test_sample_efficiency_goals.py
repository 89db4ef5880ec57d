"""The goals' lines say reached or missed only where the whole protocol was run; values and seconds of learning add up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import sample_efficiency
from benchmarks.inprocess_loop import Loop
from benchmarks.sample_efficiency_cells import recipe, run_cell, save
from benchmarks.sample_efficiency_chart import COLOURS, colour, curves, draw
from benchmarks.sample_efficiency_goals import goal_lines, goals, value_ratio
from benchmarks.sample_efficiency_plan import VARIANTS, Grid
from benchmarks.sample_efficiency_report import summarise
from benchmarks.sample_efficiency_returns import WatchedRobot, valued
from benchmarks.sample_efficiency_seconds import learning_lines, seconds_to, with_learning_seconds
from takeover.app.console.models.insights_scene import Area, Polyline
from takeover.data.schema import EpisodeKind
from takeover.data.seeding import heldout_start
from takeover.policies.base import Decision
from takeover.policies.evaluation import evaluate
from takeover.policies.hil_serl import HilSerlLearner
from takeover.policies.inference import build_policy
from takeover.robot_bridge.robots.sim import SimRobot

SEEDS = range(5)


def cell_result(variant: str, seed: int, curve: list[tuple[int, int, int]], length: float = 30.0, **grid: Any) -> dict[str, Any]:
    """``curve``: (train steps, human steps, successes of 200)."""
    settings = Grid([variant], ["expert"], ["peg-insert"], [seed], **grid).cells()[0].settings
    points = [
        {"train_steps": steps, "episodes": steps // 50, "human_steps": human, "takeovers": 0, "wall_s": steps / 10, "version": 1}
        | {"learning_s": steps / 20, "successes": good, "n": 200, "steps_per_success": length if good else None}
        for steps, human, good in curve
    ]
    episodes = {"steps": [50] * 60, "human_steps": [20] * 20 + [1] * 40, "takeovers": [1] * 60, "success": [1] * 60}
    return {
        "settings": settings,
        "points": points,
        "episodes": episodes,
        "demonstrations": {"tries": 20},
        "updates": 2 * curve[-1][0],
        "seconds": {"learning": curve[-1][0] / 20},
    }


def grid_of_five(value: float | None = 1.1) -> list[dict[str, Any]]:
    """All that the goals on peg-insert need, and reached."""
    found = []
    for seed in SEEDS:
        own = cell_result("hil-serl", seed, [(0, 0, 80), (10_000, 900, 185), (15_000, 1000, 192)], length=30.0)
        if value is not None:
            own["points"][-1] |= {"start_value": 0.5 * value, "start_return": 0.5}
        found.append(own)
        found.append(cell_result("hil-serl-alone", seed, [(0, 0, 80), (10_000, 0, 120), (15_000, 0, 170)]))
        found.append(cell_result("hg-dagger", seed, [(0, 0, 80), (10_000, 900, 140), (15_000, 1500, 150)], length=45.0))
        found.append(cell_result("sirius", seed, [(0, 0, 80), (15_000, 1500, 155)]))
    return found


def verdicts(results: list[dict[str, Any]]) -> dict[str, str]:
    found = goals(results)
    return {f"{one['protocol']}: {one['text']}": one["verdict"] for one in found}


def test_every_goal_has_a_line_with_figure_goal_and_verdict() -> None:
    results = grid_of_five()
    found = goals(results)
    assert [one["verdict"] for one in found[:9]] == ["reached"] * 9
    assert [one["verdict"] for one in found[9:13]] == ["not run"] * 4  # the tight peg and pick-lift
    assert [one["verdict"] for one in found[13:]] == ["not run in full", "not run"]  # sirius on one task alone, iwr not at all
    figures = [one["figure"] for one in found]
    assert figures[0] == "96 % (95-97, n = 1000)"
    assert figures[1] == "96 % (92-98, n = 200)"
    assert figures[2] == "+21 +21 +21 +21 +21; 96 % (95-97, n = 1000) against 75 % (72-78, n = 1000)"
    assert figures[4].startswith("+33 at 10,000 steps: ")
    assert figures[5] == "0.400 (0.400-0.400, n = 100 episodes)"
    assert figures[7] == "0.67: 30.0 against 45.0 steps (n = 960 and 750 successes)"
    assert figures[8] == "1.10 1.10 1.10 1.10 1.10 (n = 1000 starts)"
    text = "\n".join(goal_lines(found))
    assert "| peg-insert | hil-serl, mean success >= 95 % | 96 % (95-97, n = 1000) | **reached** |" in text
    assert "- all: one task (peg-insert), one operator (expert)" in text


@pytest.mark.parametrize(
    ("change", "goal"),
    [
        (lambda r: r["points"][-1].update(successes=170), "hil-serl, worst seed >= 90 %"),
        (lambda r: r["points"][-1].update(successes=178), "at least 15 points above hg-dagger in every seed, at equal episodes"),
        (lambda r: r["points"][-1].update(start_value=0.9), "start-state Q over realised return 0.5 to 1.6 at the end, in every seed"),
        (lambda r: r["points"][-1].pop("start_value"), "start-state Q over realised return 0.5 to 1.6 at the end, in every seed"),
        (lambda r: r["episodes"].update(human_steps=[20] * 60), "intervention rate of the last 40 episodes <= 0.05"),
    ],
    ids=["worst", "above", "hopeless", "unmeasured", "helped"],
)
def test_one_seed_can_miss_a_goal(change: Any, goal: str) -> None:
    results = grid_of_five()
    change(results[0])
    assert verdicts(results)[f"peg-insert: {goal}"] == "missed"


def test_less_than_the_protocol_is_neither_reached_nor_missed() -> None:
    shorter = [cell_result("hil-serl", seed, [(0, 0, 80), (600, 50, 199)], steps=600, points=1) for seed in (0, 1)]
    found = goals(shorter)
    assert (found[0]["verdict"], found[0]["figure"]) == ("not run in full", "100 % (98-100, n = 400)")
    assert found[0]["lacking"] == ["2 of 5 seeds", "600 steps in the place of 15,000"]
    assert found[2]["verdict"] == "not run"
    assert "- peg-insert: 2 of 5 seeds, 600 steps in the place of 15,000" in goal_lines(found)
    tight = [r | {"settings": r["settings"] | {"task_parameters": {"clearance_m": 0.0012}}} for r in grid_of_five()]
    judged = verdicts(tight)
    assert judged["peg-insert, 1.2 mm: hil-serl, mean success >= 90 %"] == "reached"
    assert judged["peg-insert: hil-serl, mean success >= 95 %"] == "not run"


def test_other_settings_are_neither_reached_nor_missed_and_give_way() -> None:
    usual = [r for r in grid_of_five() if r["settings"]["variant"] == "hil-serl"]
    changed = [cell_result("hil-serl", seed, [(0, 0, 80), (15_000, 50, 100)], learner={"hidden": 64}) for seed in SEEDS]
    changed += [cell_result("hil-serl", seed, [(0, 0, 80), (15_000, 50, 100)], operator={"noise": 0.3}) for seed in SEEDS]
    found = goals(changed)[0]
    assert (found["figure"], found["verdict"]) == ("50 % (48-52, n = 2000)", "not run in full")
    assert found["lacking"] == ["learner.hidden = 64", "operator.noise = 0.3"]
    assert goals([*changed, *usual])[0]["verdict"] == "reached"


def test_cells_of_other_grids_count_for_the_goals_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    settings = {"steps": 40, "points": 1, "starts": 2, "demonstrations": 1}
    own = cell_result("bc", 0, [(0, 0, 1), (40, 0, 1)], **settings)
    elsewhere = [r for r in grid_of_five() if r["settings"]["variant"] == "hil-serl"]
    for folder, results in ((mine, [own]), (other, elsewhere)):
        for result in results:
            seed, variant = result["settings"]["seed"], result["settings"]["variant"]
            save(folder / "cells" / f"peg-insert.expert.{variant}.seed{seed}.json", result | {"schema": 1, "machine": "m"})
    arguments = ["--steps", "40", "--points", "1", "--starts", "2", "--demonstrations", "1", "--cells", "0", "--out", str(mine)]
    command = ["--learners", "bc", *arguments]
    assert sample_efficiency.main([*command, "--also", str(other), str(other)]) == 0
    text = (mine / "report.md").read_text()
    assert "| peg-insert | hil-serl, mean success >= 95 % | 96 % (95-97, n = 1000) | **reached** |" in text
    assert "| hil-serl |" not in text
    capsys.readouterr()
    assert sample_efficiency.main([*command, "--also", str(tmp_path)]) == 1
    assert "holds no finished cells; name a folder that was an --out" in capsys.readouterr().err


def test_cells_of_a_learner_that_is_another_one_by_now_are_named_and_do_not_count(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    settings = {"steps": 40, "points": 1, "starts": 2, "demonstrations": 1}
    own = cell_result("bc", 0, [(0, 0, 1), (40, 0, 1)], **settings)
    save(mine / "cells" / "peg-insert.expert.bc.seed0.json", own | {"schema": 1, "machine": "m"})
    for result in grid_of_five():
        seed, variant = result["settings"]["seed"], result["settings"]["variant"]
        if variant == "hil-serl":
            now = recipe(Grid([variant], ["expert"], ["peg-insert"], [seed]).cells()[0])
            whole = result | {"schema": 1, "machine": "m", "recipe": now | ({"bc_weight": 0.123} if seed == 3 else {})}
            save(other / "cells" / f"peg-insert.expert.{variant}.seed{seed}.json", whole)
    gone = cell_result("hil-serl", 7, [(0, 0, 80)])
    gone["settings"]["variant"] = "hil-serl-of-old"
    save(other / "cells" / "gone.json", gone | {"schema": 1, "machine": "m"})
    arguments = ["--steps", "40", "--points", "1", "--starts", "2", "--demonstrations", "1", "--cells", "0", "--out", str(mine)]
    assert sample_efficiency.main(["--learners", "bc", *arguments, "--also", str(other)]) == 0
    text = (mine / "report.md").read_text()
    assert "- not counted, of another grid: peg-insert.expert.hil-serl.seed3: bc_weight was 0.123 and is " in text
    assert "- not counted, of another grid: peg-insert.expert.hil-serl-of-old.seed7: no learner of this version" in text
    assert "n = 800)" in text
    assert "n = 1000)" not in text


def test_old_cells_have_no_values_and_share_their_seconds_out() -> None:
    old = grid_of_five(value=None)
    for result in old:
        for point in result["points"]:
            del point["learning_s"]
    assert verdicts(old)["peg-insert: start-state Q over realised return 0.5 to 1.6 at the end, in every seed"] == "not run"
    assert "| not measured | not run |" in "\n".join(goal_lines(goals(old)))
    group = summarise(old)[0]
    row = next(row for row in group["learners"] if row["variant"] == "hil-serl")
    assert row["value_ratio"] == [None] * 5
    assert row["learning"]["estimated"]
    assert row["curve"][1]["learning_s"] == pytest.approx(500.0)
    assert "about" in learning_lines(group["learners"])[2]
    assert not with_learning_seconds(grid_of_five())[0]["learning_estimated"]


def test_seconds_of_learning_until_a_level() -> None:
    curve = [{"rate": 0.4, "learning_s": 0.0}, {"rate": 0.6, "learning_s": 100.0}, {"rate": 0.5, "learning_s": 200.0}]
    assert seconds_to(curve, 0.3) == 0.0
    assert seconds_to(curve, 0.5) == pytest.approx(50.0)
    assert seconds_to(curve, 0.9) is None
    results = [cell_result("hil-serl", 0, [(0, 0, 80), (15_000, 9, 160)]), cell_result("hil-serl-256", 0, [(0, 0, 80), (15_000, 9, 180)])]
    results[1]["points"][-1]["learning_s"] = 1500.0  # twice as long
    found = summarise(results)[0]["comparisons"]
    assert [(one["learner"], one["against"]) for one in found] == [("hil-serl-256", "hil-serl")]
    assert found[0]["at_equal_train_steps"] == pytest.approx([0.1])
    assert found[0]["at_equal_learning_s"] == pytest.approx([(80 + 180) / 400 - 0.8])


def test_seconds_of_several_machines_are_not_held_against_each_other() -> None:
    results = [cell_result(name, 0, [(0, 0, 80), (15_000, 9, 160)]) | {"machine": name} for name in ("hil-serl", "hil-serl-256")]
    group = summarise(results)[0]
    assert group["comparisons"][0]["at_equal_train_steps"] == pytest.approx([0.0])
    assert group["comparisons"][0]["at_equal_learning_s"] == []
    assert "Cells of several machines (hil-serl; hil-serl-256)" in "\n".join(learning_lines(group["learners"]))


# --- start-state values ---


@pytest.fixture(scope="module")
def cloned() -> HilSerlLearner:
    """After one demonstration of pick-lift; its gripper is discrete."""
    grid = Grid(["hil-serl"], ["expert"], ["pick-lift"], [0], demonstrations=1, learner={"clone_updates": 30, "critic_warmup": 40})
    loop = Loop(grid.cells()[0].config(), redo_failed=True)
    number = 0
    while loop.training.phase == "waiting":
        loop.episode(EpisodeKind.DEMONSTRATION, number)
        number += 1
    while loop.training.phase == "cloning":
        loop.training.work()
    assert isinstance(loop.training.learner, HilSerlLearner)
    return loop.training.learner


def test_watching_changes_nothing_and_counts_rewards_as_the_learner_does(cloned: HilSerlLearner) -> None:
    policy, starts = build_policy(cloned.weights(), cloned.spec), [heldout_start(i) for i in range(3)]
    plain = evaluate(policy, SimRobot("pick-lift"), starts)
    watched = WatchedRobot(SimRobot("pick-lift"), 0.97, 0.02)
    assert evaluate(policy, watched, starts) == plain
    assert np.array(watched.first).shape == (3, cloned.spec.observation.size)

    class Expert:
        """Opens and closes only when it must, and succeeds."""

        def reset(self) -> None:
            pass

        def act(self, observation: Any, **_: Any) -> Decision:
            return Decision(np.array([robot.advice().expert_action], np.float32))

    robot = SimRobot("pick-lift")
    watched = WatchedRobot(robot, 0.97, 0.02)
    found = evaluate(Expert(), watched, starts)
    assert all(outcome.success for outcome in found)
    for outcome, earned in zip(found, watched.returns, strict=True):
        best = 0.97 ** (outcome.steps - 1)
        assert best - 0.03 < earned < best  # one toggle of the gripper, discounted too


def test_start_values_are_of_what_acts(cloned: HilSerlLearner) -> None:
    robot = SimRobot("pick-lift")
    first = []
    for i in range(4):
        robot.reset(heldout_start(i))
        first.append(np.array(robot.read().observation, np.float32))
    values = cloned.start_values(np.array(first))
    assert values.shape == (4,)
    assert np.isfinite(values).all()
    assert cloned.start_values(np.array(first[1:2]))[0] == pytest.approx(values[1], rel=1e-5)
    with pytest.raises(ValueError, match=r"first observations of shape \(23,\); start values need \(N, 23\) numbers"):
        cloned.start_values(first[0])


def test_values_of_another_reward_are_not_compared(cloned: HilSerlLearner) -> None:
    assert valued(cloned) is cloned
    assert valued(None) is None
    spec = cloned.spec
    assert valued(HilSerlLearner.make(spec, 0, {"takeover_reward": -1.0})) is None
    assert value_ratio({"start_value": 0.4, "start_return": 0.0}) is None
    assert value_ratio({"start_value": 0.4, "start_return": 0.5}) == pytest.approx(0.8)


def test_cells_note_values_and_seconds_of_learning() -> None:
    warm = {"clone_updates": 30, "critic_warmup": 10, "learning_starts": 5}
    grid = Grid(["hil-serl"], ["expert"], ["peg-insert"], [0], steps=30, points=1, starts=2, demonstrations=1, learner=warm)
    found = run_cell(grid.cells()[0], lambda done, total, text: True)
    first, last = found["points"]
    assert {"start_value", "start_return"} <= first.keys() & last.keys()
    assert first["learning_s"] == 0.0
    assert 0.0 < last["learning_s"] == found["seconds"]["learning_cpu"]
    assert found["seconds"]["learning"] < found["seconds"]["loop"]
    group = summarise([found])[0]
    assert group["learners"][0]["learning"]["ms_per_update"] > 0.0


# --- the picture ---


def test_a_learner_keeps_its_colour_and_bands_are_intervals(tmp_path: Path) -> None:
    assert len(set(COLOURS)) == len(COLOURS) >= len(VARIANTS)
    few = [r for r in grid_of_five() if r["settings"]["variant"] != "hil-serl"]
    for results in (grid_of_five(), few):
        rows = summarise(results)[0]["learners"]
        scene = curves(rows, "train_steps", "environment steps", 1.0)
        lines = {item.colour for item in scene.items if isinstance(item, Polyline)}
        assert lines == {colour(row["variant"]) for row in rows} == {i.colour for i in scene.items if isinstance(i, Area)}
    rows = summarise(grid_of_five())[0]["learners"]
    helped = curves(rows, "human_steps", "steps", 1.0)
    assert colour("hil-serl-alone") not in {item.colour for item in helped.items if isinstance(item, Polyline)}
    path = draw(summarise(grid_of_five())[0], tmp_path / "curves.png", "20 demonstrations before.")
    assert path.read_bytes().startswith(b"\x89PNG")
