"""`takeover bench sample-efficiency`: cells go on where they were stopped, say what is wrong, and add up."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import sample_efficiency, sample_efficiency_cells
from benchmarks.sample_efficiency_cells import Cancelled, CellError, cell_path, load, recipe, run_cell, save
from benchmarks.sample_efficiency_compare import comparisons, pooled, success_at
from benchmarks.sample_efficiency_plan import ABLATIONS, LEARNERS, NEVER_TAKES_OVER, VARIANTS, Cell, Grid, PlanError
from benchmarks.sample_efficiency_report import dip, markdown, summarise
from takeover.app.cli import main

TINY = [
    "--steps",
    "60",
    "--points",
    "1",
    "--starts",
    "2",
    "--demonstrations",
    "2",
    "--tasks",
    "pick-lift",
    "--set",
    "learner.clone_updates=30",
]


def cell(variant: str = "bc", seed: int = 0, **changes: Any) -> Cell:
    grid = {"steps": 60, "points": 2, "starts": 2, "demonstrations": 2, "learner": {"clone_updates": 30}} | changes
    return Grid([variant], ["expert"], ["pick-lift"], [seed], **grid).cells()[0]


def go_on(done: float, total: float, text: str) -> bool:
    return True


def result(variant: str, seed: int, curve: list[tuple[int, int, int]], operator: str = "expert") -> dict[str, Any]:
    """A cell's result; ``curve`` holds (train steps, human steps, successes of 100)."""
    points = [
        {
            "train_steps": steps,
            "episodes": steps // 50,
            "human_steps": human,
            "takeovers": human // 10,
            "wall_s": steps / 10,
            "learning_s": steps / 20,
            "version": i + 1,
            "successes": good,
            "n": 100,
            "steps_per_success": 40.0 if good else None,
        }
        for i, (steps, human, good) in enumerate(curve)
    ]
    grid = Grid([variant], [operator], ["peg-insert"], [seed])
    episodes = {"steps": [50] * 60, "human_steps": [30] * 20 + [5] * 40, "takeovers": [1] * 60, "success": [1] * 60}
    demonstrations = {"tries": 20, "kept": 20, "human_steps": 800}
    found = {"settings": grid.cells()[0].settings, "points": points, "episodes": episodes, "demonstrations": demonstrations}
    return found | {"updates": 2 * curve[-1][0], "seconds": {"learning": curve[-1][0] / 20}}


def test_the_command_runs_a_grid_and_goes_on_where_it_was_stopped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "sample-efficiency", "--learners", "bc", "hg-dagger", *TINY, "--out", str(tmp_path)]
    assert main([*command, "--cells", "1"]) == 0
    first = json.loads(capfd.readouterr().out)
    assert first["missing"] == 1
    assert "unfinished" in (tmp_path / "report.md").read_text()
    written = (tmp_path / "cells/pick-lift.expert.bc.seed0.json").stat().st_mtime_ns
    assert sample_efficiency.main(command[2:]) == 0
    second = json.loads(capfd.readouterr().out)
    assert second["missing"] == 0
    assert set(second["final"]) == {"pick-lift.expert.bc", "pick-lift.expert.hg-dagger"}
    assert (tmp_path / "cells/pick-lift.expert.bc.seed0.json").stat().st_mtime_ns == written  # not run again
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["note"] == "The operators are scripted. No people were tested."
    assert "No people were tested" in (tmp_path / "report.md").read_text()
    assert report["groups"][0]["operator_parameters"]["stall_steps"] == 16
    assert (tmp_path / "curves-pick-lift-expert.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_cell_is_a_function_of_its_settings_and_can_be_cancelled(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []

    def watch(done: float, total: float, text: str) -> bool:
        seen.append((done, total))
        return True

    first, second = run_cell(cell("hg-dagger"), watch), run_cell(cell("hg-dagger"), go_on)
    for found in (first, second):
        del found["seconds"]
        for point in found["points"]:
            del point["wall_s"], point["learning_s"]
    assert first == second
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] == 60 + 3 * 2
    assert [point["n"] for point in first["points"]] == [2, 2, 2]
    assert first["points"][0]["train_steps"] == 0
    assert first["points"][-1]["train_steps"] == sum(first["episodes"]["steps"]) >= 60
    assert first["points"][-1]["human_steps"] == sum(first["episodes"]["human_steps"])
    with pytest.raises(Cancelled, match="stopped while learning"):
        run_cell(cell(), lambda done, total, text: text != "learning")


@pytest.mark.parametrize("variant", [*ABLATIONS, "hil-serl-256"])
def test_every_ablation_runs_and_says_what_it_changes(variant: str) -> None:
    warmup = {"critic_warmup": 10} if VARIANTS[variant].learner == "hil-serl" else {}
    mine = cell(variant, steps=30, points=1, starts=1, demonstrations=1, learner={"clone_updates": 30, "learning_starts": 5} | warmup)
    found = run_cell(mine, go_on)
    assert found["updates"] > 0
    changes = dict(VARIANTS[variant].learner_parameters)
    assert changes.items() <= found["settings"]["learner_parameters"].items()
    assert changes or found["settings"]["operator_changes"]


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped_in_the_second(one: Cell, on_progress: Any) -> dict[str, Any]:
        if one.variant == "hg-dagger":
            raise KeyboardInterrupt
        return run_cell(one, on_progress)

    monkeypatch.setattr(sample_efficiency_cells, "run_cell", stopped_in_the_second)
    command = ["--learners", "bc", "hg-dagger", *TINY, "--out", str(tmp_path)]
    assert sample_efficiency.main(command) == 130
    assert "goes on with the next unfinished cell" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["pick-lift.expert.bc.seed0.json"]
    assert sample_efficiency.main([*command, "--cells", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == 1


def test_who_never_takes_over_spends_no_human_step(tmp_path: Path) -> None:
    assert not VARIANTS["bc"].takes_help
    assert not VARIANTS["hil-serl-alone"].takes_help
    found = run_cell(cell("bc", steps=200, points=1), go_on)
    assert found["points"][-1]["human_steps"] == 0
    assert found["demonstrations"]["kept"] == 2
    assert found["settings"]["operator_parameters"]["stall_steps"] == 16
    assert found["settings"]["operator_changes"] == NEVER_TAKES_OVER


def test_failed_demonstrations_are_made_again_and_not_for_ever() -> None:
    hopeless = cell(demonstrations=1, operator={"noise": 0.0, "tremor": 0.0, "speed": 0.1})
    with pytest.raises(CellError, match=r"operator expert demonstrated pick-lift 0 times in 20 tries; 1 are needed"):
        run_cell(hopeless, go_on)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    mine = cell()
    path = cell_path(tmp_path, mine)
    assert load(path, mine) is None
    save(path, {"schema": 1, "settings": mine.settings})
    assert load(path, mine) is not None
    with pytest.raises(CellError, match=r"other settings \(steps: there 60, now 70\); choose another --out"):
        load(path, cell(steps=70))
    save(path, {"schema": 1, "settings": mine.settings, "recipe": recipe(mine)})
    assert load(path, mine) is not None
    save(path, {"schema": 1, "settings": mine.settings, "recipe": recipe(mine) | {"clone_updates": 7}})
    with pytest.raises(CellError, match=r"other settings \(clone_updates was 7 and is \d+\); choose another --out"):
        load(path, mine)
    path.write_text(path.read_text()[:-5])
    with pytest.raises(CellError, match=r"bc\.seed0\.json: cannot be read .* delete it to run it anew"):
        load(path, mine)
    path.write_text("[]")
    with pytest.raises(CellError, match="no cell of schema 1"):
        load(path, mine)
    path.unlink()
    path.mkdir()
    with pytest.raises(CellError, match="cannot be written"):
        save(path, {})
    assert [name.name for name in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--learners", "magic"], "unknown learner 'magic'; known: hil-serl"),
        (["--operators", "angry"], "unknown operator 'angry'; known: expert, slow, sloppy, other-style, lenient, limited"),
        (["--tasks", "juggle"], "unknown task 'juggle'"),
        (["--learners", "bc", "bc"], "named twice"),
        (["--seeds", "1", "1"], "each once"),
        (["--starts", "201"], "starts = 201; allowed 1..200"),
        (["--set", "learner.magic=1"], "hil-serl: .*no setting 'magic'"),
        (["--set", "operator.noise=9"], "noise = 9"),
        (["--set", "task.mood=1"], "mood"),
        (["--set", "speed"], "expected GROUP.NAME=VALUE"),
        (["--cells", "0"], "nothing to report"),
        (["--jobs", "0"], "jobs = 0; allowed 1"),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert sample_efficiency.main([*arguments, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error), error
    assert list(tmp_path.iterdir()) == []


def test_the_full_grid_has_every_learner_and_every_operator() -> None:
    cells = Grid(LEARNERS + ABLATIONS, ["expert", "limited"], ["peg-insert", "pick-lift"], [0, 1]).cells()
    assert len({c.name for c in cells}) == len(cells) == (len(LEARNERS) + len(ABLATIONS)) * 2 * 2 * 2
    assert set(LEARNERS) == {"hil-serl", "hil-serl-alone", "sirius", "iwr", "hg-dagger", "bc"}
    with pytest.raises(PlanError, match="at most one per step"):
        Grid(["bc"], ["expert"], ["peg-insert"], [0], steps=3, points=4).cells()


def test_success_at_equal_human_steps_lies_between_the_points() -> None:
    points = result("hil-serl", 0, [(0, 0, 20), (100, 50, 40), (200, 50, 60), (300, 150, 80)])["points"]
    assert success_at(points, "human_steps", 0) == pytest.approx(0.2)
    assert success_at(points, "human_steps", 50) == pytest.approx(0.6)  # learned without a further human step
    assert success_at(points, "human_steps", 100) == pytest.approx(0.7)
    assert success_at(points, "human_steps", 9000) == pytest.approx(0.8)
    assert dip(points) == 0.0
    assert dip(result("hil-serl", 0, [(0, 0, 50), (100, 5, 30), (200, 9, 90)])["points"]) == pytest.approx(-0.2)


def test_groups_pool_seeds_and_rank_learners_at_equal_effort() -> None:
    results = [
        result("hil-serl", 0, [(0, 0, 40), (1000, 200, 90)]),
        result("hil-serl", 1, [(0, 0, 40), (1000, 200, 70)]),
        result("hg-dagger", 0, [(0, 0, 40), (1000, 100, 75)]),
        result("bc", 0, [(0, 0, 40), (1000, 0, 60)]),
        result("bc", 0, [(0, 0, 30), (1000, 0, 50)], operator="slow"),
    ]
    expert, slow = summarise(results)
    assert (expert["operator"], slow["operator"]) == ("expert", "slow")
    learners = {row["variant"]: row for row in expert["learners"]}
    assert (learners["hil-serl"]["final"]["successes"], learners["hil-serl"]["final"]["n"]) == (160, 200)
    assert learners["hil-serl"]["worst_seed"] == {"successes": 70, "n": 100, "rate": 0.7}
    assert learners["hil-serl"]["final"]["low"] < 0.8 < learners["hil-serl"]["final"]["high"]
    assert learners["hil-serl"]["intervention_rate_first_20"]["rate"] == pytest.approx(0.6)
    assert learners["hil-serl"]["intervention_rate_last_40"]["rate"] == pytest.approx(0.1)
    assert expert["ranking_at_equal_environment_steps"] == ["hil-serl", "hg-dagger", "bc"]
    assert expert["equal_human_steps"] == 100
    assert expert["ranking_at_equal_human_steps"] == ["hg-dagger", "hil-serl"]  # 75 % against (40 + 80) / 2
    assert slow["ranking_at_equal_human_steps"] == []
    assert slow["equal_human_steps"] == 0
    settings = {"starts": 100, "demonstrations": 20, "steps": 1000, "points": 1}
    page = {
        "command": "c",
        "commits": ["abc"],
        "machines": ["m"],
        "settings": settings,
        "hz": {"peg-insert": 20.0},
        "missing": ["x.y"],
        "without_recipe": ["iwr"],
    }
    text = markdown(page | {"goals": [], "groups": [expert, slow]})
    assert "**No people were tested.**" in text
    assert "| hil-serl | 2 | 40 % (33-47, n = 200) | 80 % (74-85, n = 200) | 70 % (60-78, n = 100) | 0 | 200 (10) |" in text
    assert "cells of iwr were made before cells noted their learner's defaults" in text
    assert "1 of the grid's cells are missing: x.y" in text
    assert "hg-dagger 75 % (66-82, n = 100) > hil-serl 60 % (53-67, n = 200)" in text
    assert "| hil-serl | hg-dagger | 1 | +15 (smallest +15) | +15 (smallest +15) | -10 (smallest -10) | +15 (smallest +15) |" in text
    assert "- bc: 55 % (48-62, n = 200)" in text  # of the learners, the only one that both groups have


def test_learners_are_compared_seed_by_seed_at_the_end_of_who_spent_less() -> None:
    results = [
        result("hil-serl", 0, [(0, 0, 40), (1000, 200, 80)]),
        result("hil-serl", 1, [(0, 0, 40), (2000, 100, 90)]),
        result("hil-serl", 2, [(0, 0, 40), (1000, 100, 90)]),  # nobody to compare it with
        result("hg-dagger", 0, [(0, 0, 40), (1000, 400, 60)]),
        result("hg-dagger", 1, [(0, 0, 20), (1000, 100, 70)]),
        result("hil-serl-alone", 0, [(0, 0, 40), (1000, 0, 50)]),
    ]
    first, alone, itself = comparisons(results)
    assert (first["learner"], first["against"], first["seeds"]) == ("hil-serl", "hg-dagger", [0, 1])
    assert first["at_equal_train_steps"] == pytest.approx([0.2, -0.05])  # seed 1 at 1,000 steps: 65 against 70 %
    assert first["at_equal_episodes"] == pytest.approx([0.2, -0.05])
    assert first["at_equal_human_steps"] == pytest.approx([0.3, 0.2])  # seed 0 at 200 steps: 80 against 50 %
    assert (alone["learner"], alone["at_equal_human_steps"]) == ("hil-serl-alone", [])
    assert (itself["learner"], itself["against"]) == ("hil-serl", "hil-serl-alone")
    assert comparisons(results[:3]) == []
    assert pooled([]) == []
