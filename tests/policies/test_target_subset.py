"""REDQ: the target is the minimum of a few critics, drawn anew for each critic update. Twenty updates of it are in `test_sac_update`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from takeover.policies.registry import make_learner
from takeover.policies.sac_update import CriticBatch

from .test_sac_update import CLONING, CLOSE, DEMONSTRATIONS, MARGIN, B, after_updates, make, rows, taught


@pytest.mark.parametrize("gripper", [True, False])
@pytest.mark.parametrize("chosen", [[0, 4], [3, 1], [2]])
def test_the_target_is_the_minimum_of_the_subset_alone(gripper: bool, chosen: list[int]) -> None:
    case, row = make(gripper, ensemble=5), rows(B, 6)
    command, subset = row["command"] if gripper else None, torch.tensor(chosen)

    def critics(way: Any, subset: torch.Tensor | None) -> tuple[float, torch.Tensor]:
        arm = way.propose(row["following"], row["noise"]).arm
        future = (row["following"], arm, row["reward"], row["bootstrap"])
        batch = CriticBatch(row["observation"], row["arm"], *future, command, DEMONSTRATIONS, CLONING, MARGIN, subset)
        return float(way.critics(batch)[0]), way.critic_gradient.clone()

    (loss, ours), (same_loss, wanted) = critics(case.written, subset), critics(case.autograd, subset)
    assert torch.allclose(ours, wanted, **CLOSE)
    assert loss == pytest.approx(same_loss, rel=1e-9)
    all_of_them = critics(case.written, None)[1]
    assert not torch.allclose(ours, all_of_them, rtol=1e-3, atol=1e-4)
    assert torch.equal(critics(case.written, torch.arange(5))[1], all_of_them)
    others = [e for e in range(5) if e not in chosen]
    views = case.critic_layout.views(case.target)
    for view in views.values():
        view[others] -= 100.0  # who would be the minimum of all
    assert torch.equal(critics(case.written, subset)[1], ours)
    assert torch.equal(critics(case.autograd, subset)[1], wanted)
    views["critic.b2"][chosen[0]] -= 100.0
    assert not torch.allclose(critics(case.written, subset)[1], ours, rtol=1e-3, atol=1e-4)


def test_a_new_pair_for_every_critic_update_and_none_is_drawn_unless_asked_for(
    make_robot_spec: Callable[..., Any], make_script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_robot_spec(observation=4, arm=2)
    learner = taught(spec, make_script(spec), ensemble=10, target_subset=2)
    drawn: list[tuple[int, ...]] = []
    real = learner._gradients.critics

    def watch(batch: CriticBatch) -> Any:
        assert batch.subset is not None
        drawn.append(tuple(sorted(batch.subset.tolist())))
        return real(batch)

    monkeypatch.setattr(learner._gradients, "critics", watch)
    for _ in range(60):
        learner.update()
    assert len(drawn) == 120  # two critic updates each
    assert all(len(set(pair)) == 2 for pair in drawn)
    assert {critic for pair in drawn for critic in pair} == set(range(10))
    assert len(set(drawn)) > 30  # of 45
    usual, all_of_them, two = (after_updates(taught(spec, make_script(spec), ensemble=3, target_subset=subset))[0] for subset in (0, 3, 2))
    assert all(torch.equal(usual[name], all_of_them[name]) for name in usual)
    assert not torch.equal(usual["critic"], two["critic"])


def test_with_a_subset_a_restored_learner_draws_the_same_pairs(
    make_robot_spec: Callable[..., Any], make_script: Callable[..., Any]
) -> None:
    spec = make_robot_spec(observation=4, arm=2, gripper=True)
    first, second = (taught(spec, make_script(spec), ensemble=4, target_subset=2) for _ in range(2))
    after_updates(first, 7)
    second.restore(first.state())
    (ours, _), (wanted, _) = after_updates(second), after_updates(first)
    assert all(torch.equal(ours[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("subset", [-1, 3])
def test_a_subset_of_more_critics_than_there_are_is_refused(subset: int, make_robot_spec: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=rf"target_subset = {subset}; allowed 0 \(all critics\) to 2 \(ensemble\)"):
        make_learner("hil-serl", make_robot_spec(), 0, {"target_subset": subset})
