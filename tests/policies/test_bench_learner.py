"""`takeover bench learner` measures what it says, and its products are those that an update needs."""

import json
from pathlib import Path

import pytest

from benchmarks.learner_products import Product, mlp_products, update_products
from takeover.app.cli import main


def test_products_of_a_network_count_every_pass_once() -> None:
    assert mlp_products(2, 5, [3, 8, 8, 1], weights=False, inputs=0) == [
        Product(2, 5, 3, 8, "nn"),
        Product(2, 5, 8, 8, "nn"),
        Product(2, 5, 8, 1, "nn"),
    ]
    trained = mlp_products(1, 5, [3, 8, 8, 1], weights=True, inputs=0)[3:]
    assert trained[:3] == [Product(1, 3, 5, 8, "tn"), Product(1, 8, 5, 8, "tn"), Product(1, 8, 5, 1, "tn")]
    assert trained[3:] == [Product(1, 5, 8, 8, "nt"), Product(1, 5, 1, 8, "nt")]  # none to the observations
    climbed = mlp_products(1, 5, [3, 8, 8, 1], weights=False, inputs=2)[3:]
    assert sorted(climbed) == sorted([Product(1, 5, 8, 8, "nt"), Product(1, 5, 1, 8, "nt"), Product(1, 5, 8, 2, "nt")])


def test_an_update_has_the_products_of_its_critics_and_of_one_actor() -> None:
    def count(critic_updates: int, gripper: bool) -> int:
        return len(update_products(16, 5, 3, 8, gripper=gripper, ensemble=2, critic_updates=critic_updates))

    assert count(2, True) - count(1, True) == 3 + 3 + 3 + 8  # next action, targets, choice of the gripper, trained critics
    assert count(1, True) - count(1, False) == 3


def test_the_command_prints_and_writes_every_figure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "learner.json"
    options = ["--hidden", "16", "--rounds", "8", "--pictures", "4", "--picture-episodes", "4", "--set", "device=cpu", "--out", str(out)]
    assert main(["bench", "learner", *options]) == 0
    result = json.loads(out.read_text())
    assert json.loads(capfd.readouterr().out) == result
    assert [row["critic_updates"] for row in result["state"]] == [1, 2]
    for row in result["state"]:
        assert (row["device"], row["gradients"]) == ("cpu", "SacUpdate")
        assert row["update_ms"] > row["products_ms"] > 0.0
        assert row["ratio"] > 1.0
        assert row["actor_share"] > 0.05, "an update of the critics alone is no full one"
        assert 0.0 < row["outside_forward_backward_optimiser"] < 1.0
        assert 0.0 < row["sampling_ms"] < row["update_ms"]
        assert row["publication"]["bytes"] > 1000
        assert row["bytes_per_transition"] == 4 * (2 * 23 + 5 + 2)
    for kind in ("raw", "jpeg"):
        assert result["pictures"][kind]["bytes_per_transition"] > 1000
    assert result["pictures"]["raw"]["sample_ms"] > result["pictures"]["raw"]["gather_alone_ms"] * 0.5 > 0.0
    assert result["pictures"]["jpeg"]["gb_per_100000"] < result["pictures"]["raw"]["gb_per_100000"]
