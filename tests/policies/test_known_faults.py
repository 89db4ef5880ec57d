"""Faults found in other people's learners, and the test that would notice each of them here.

Tests without a file are in this one; `test_every_fault_names_tests_that_exist` keeps the table true.
"""

import ast
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from takeover.data.recorder import Recorder
from takeover.data.schema import Committed, ControlMode, EpisodeKind, Outcome, RobotSpec, RunConfig
from takeover.policies import nets
from takeover.policies.checkpoint import newest_checkpoint, save_checkpoint
from takeover.policies.hil_serl import HilSerlLearner
from takeover.policies.inference import build_policy
from takeover.policies.learner_run import LearnerRun
from takeover.policies.registry import make_learner
from takeover.policies.replay import CorrectionReplay
from takeover.policies.sac_batches import Batches

POLICIES = Path(__file__).parent
COVERED: dict[str, list[str]] = {
    "next state taken as row+1 across segment and episode ends": [
        "test_replay.py test_held_steps_are_skipped_and_nothing_is_read_across_them",
        "test_the_next_state_is_the_steps_own_across_episodes_too",
    ],
    "the previous segment's picture on the first step of the next": [
        "test_learners.py test_history_does_not_cross_a_run",
        "test_a_policy_forgets_what_it_saw_in_the_episode_before",
        "test_picture_faults.py test_no_row_holds_a_picture_of_another_run_or_episode",
        "test_picture_faults.py test_pairs_end_at_gaps_episodes_and_runs",
    ],
    "timeouts treated as terminal": ["test_replay.py test_timeouts_bootstrap_and_success_does_not"],
    "gripper penalty dropped on the last update": [
        "test_replay.py test_gripper_cost_on_the_last_step_is_kept",
        "test_every_critic_update_of_an_update_sees_the_gripper_penalty",
    ],
    "classifier layers under no_grad so they stay random": [
        "test_reward_pictures.py test_every_layer_of_encoder_and_head_learns",
        "test_picture_faults.py test_every_layer_of_the_encoder_learns",
        "test_every_layer_of_every_network_learns",
    ],
    "demo images 0-255 beside online 0-1": [
        "test_picture_faults.py test_demonstrations_and_online_pictures_have_one_scale_up_to_the_policy",
        "test_a_step_is_the_same_numbers_in_both_buffers",
    ],
    "buffer actions raw while policy actions are normalised": [
        "test_replay.py test_applied_action_is_stored_not_the_asked_or_human_one",
        "test_actions_in_the_buffer_are_in_the_units_of_the_policy",
    ],
    "critics sharing the last layer": ["test_no_layer_is_shared_between_critics"],
    "the intervention flag never sent to the learner": ["test_interventions_reach_the_learner_through_the_record"],
    "resume that silently starts a random actor": [
        "test_learner_run.py test_a_checkpoint_of_other_settings_ends_the_learner_with_their_names",
        "test_same_settings.py test_a_state_without_newer_settings_goes_on_as_that_version_did",
        "test_learners.py test_a_state_of_other_settings_is_refused",
        "test_learners.py test_a_restored_learner_continues_bit_for_bit",
    ],
    "learning blocked while a checkpoint is written": ["test_checkpoint.py test_updates_are_made_while_a_checkpoint_is_being_written"],
    "the only saved buffer deleted before rewriting": [
        "test_a_checkpoint_that_cannot_be_written_leaves_the_one_before",
        "test_learner_run.py test_a_broken_checkpoint_is_passed_over_for_the_one_before",
    ],
    "a replacement actor that hangs forever": [
        "../app/test_kills_in_real_time.py test_every_process_killed_once_in_real_time",
        "../faults/test_policy.py test_row_21_policy_late",
    ],
    "re-recorded episodes still trained on": [
        "test_replay.py test_a_demonstration_counts_when_it_is_complete_and_not_discarded",
        "test_thrown_away.py test_a_policy_episode_that_is_thrown_away_while_it_runs",
        "test_thrown_away.py test_the_last_episode_is_thrown_away_and_taken_back",
        "test_thrown_away.py test_a_learner_that_resumes_has_thrown_away_the_same",
        "test_replay.py test_an_excluded_episode_leaves_both_buffers_at_once",
        "test_labels_reach_batches.py test_an_excluded_episode_leaves_and_comes_back_in_the_next_batch",
    ],
}

P, H = ControlMode.POLICY, ControlMode.HUMAN
SMALL = {"hidden": 16, "batch": 32, "clone_updates": 20, "learning_starts": 5}
SMALL_HIL = SMALL | {"critic_warmup": 5, "keep_warm_start": False}


def test_every_fault_names_tests_that_exist() -> None:
    for fault, tests in COVERED.items():
        assert tests, fault
        for name in tests:
            file, _, test = name.rpartition(" ")
            source = (POLICIES / file if file else Path(__file__)).read_text()
            assert test in {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}, f"{fault}: {name}"


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> RobotSpec:
    return make_robot_spec(observation=4, arm=2, gripper=True)


def episode(learner: Any, script: Any, kind: EpisodeKind, modes: list[ControlMode], **changes: Any) -> None:
    learner.begin_episode(script.start(kind))
    for i, mode in enumerate(modes):
        varied = {"action": [0.1 * (i % 7) - 0.3, 0.2, float(i % 3 - 1)]}
        learner.ingest([script.step(mode, **(varied | changes))])
    learner.end_episode(script.end(Outcome.FAILURE if kind == EpisodeKind.POLICY else Outcome.SUCCESS))


def taught(name: str, spec: RobotSpec, script: Any, **parameters: Any) -> Any:
    learner = make_learner(name, spec, 0, (SMALL_HIL if name == "hil-serl" else SMALL) | parameters)
    episode(learner, script, EpisodeKind.DEMONSTRATION, [H] * 12)
    for _ in learner.clone_demonstrations():
        pass
    episode(learner, script, EpisodeKind.POLICY, [P] * 8 + [H] * 4)
    return learner


def test_the_next_state_is_the_steps_own_across_episodes_too(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    replay, script = CorrectionReplay(spec), make_script(spec)
    for _ in range(3):
        replay.begin_episode(script.start())
        for mode in (P, H, P):
            replay.add(script.step(mode))
        replay.end_episode(script.end(Outcome.FAILURE))
    for buffer in (replay.online, replay.demonstrations):
        now, following = (buffer.rows[: buffer.size, part] for part in (replay.columns.observation, replay.columns.next_observation))
        assert torch.equal(following, now + 0.5)  # as recorded; the next row would be 1 further


def test_a_policy_forgets_what_it_saw_in_the_episode_before(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    policy = build_policy(taught("sirius", spec, make_script(spec), history=2).weights(), spec)
    first, other = torch.zeros(4).numpy(), torch.full((4,), 3.0).numpy()
    fresh = policy.act(first, sample=False).actions
    policy.reset()
    policy.act(other, sample=False)
    remembering = policy.act(first, sample=False).actions
    policy.reset()
    assert (policy.act(first, sample=False).actions == fresh).all()
    assert (remembering != fresh).any()  # the history does matter


def test_every_critic_update_of_an_update_sees_the_gripper_penalty(
    spec: RobotSpec, make_script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner("hil-serl", spec, 0, SMALL_HIL | {"gripper_penalty": 0.25, "critic_updates": 3})
    script = make_script(spec)
    for kind, mode in ((EpisodeKind.DEMONSTRATION, H), (EpisodeKind.POLICY, P)):
        learner.begin_episode(script.start(kind))
        learner.ingest([script.step(mode, action=[0.0, 0.0, (-1.0, 1.0)[i % 2]]) for i in range(12)])  # toggles at every step
        learner.end_episode(script.end())
    seen: list[torch.Tensor] = []
    real = learner._critic_update

    def watch(batch: Batches, i: int, proposal: Any) -> tuple[float, float]:
        seen.append(batch.reward[batch.at(i)])
        return real(batch, i, proposal)

    monkeypatch.setattr(learner, "_critic_update", watch)
    learner.update()
    assert len(seen) == 3
    assert all(torch.equal(rewards, torch.full_like(rewards, -0.25)) for rewards in seen)


@pytest.mark.parametrize("name", ["hil-serl", "sirius"])
def test_every_layer_of_every_network_learns(name: str, spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = taught(name, spec, make_script(spec), **({} if name == "hil-serl" else {"weight_decay": 0.0}))  # no gradient, no change
    if isinstance(learner, HilSerlLearner):
        parts = [(learner._actor_layout, learner._actor), (learner._critic_layout, learner._critic)]
    else:
        parts = [(learner._layout, learner._flat)]
    before = [{key: view.clone() for key, view in layout.views(flat.detach()).items()} for layout, flat in parts]
    for _ in range(3):
        learner.update()
    for (layout, flat), old in zip(parts, before, strict=True):
        assert [key for key, view in layout.views(flat.detach()).items() if torch.equal(view, old[key])] == []


def test_a_step_is_the_same_numbers_in_both_buffers(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    """A demonstration and the same movement in the loop cannot be told apart by scale."""
    learner, script = make_learner("hil-serl", spec, 0, SMALL_HIL), make_script(spec)
    fields = {"observation": [200.0, 0.1, -3.0, 7.0], "next_observation": [201.0, 0.2, -3.0, 7.0], "action": [0.5, -0.5, 0.0]}
    episode(learner, script, EpisodeKind.DEMONSTRATION, [H], **fields)
    episode(learner, script, EpisodeKind.POLICY, [P], **fields)
    replay = learner.replay
    assert torch.equal(replay.demonstrations.rows[0], replay.online.rows[0])
    rows, n = replay.sample(8, torch.Generator().manual_seed(0))
    assert n == 4
    assert torch.equal(rows[:n], rows[n:])


def test_actions_in_the_buffer_are_in_the_units_of_the_policy(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    """What was driven at 0.9 of full deflection is stored as 0.9, and a policy cloned from it acts with 0.9, whatever that is in metres."""
    assert max(spec.action.scale) < 0.1
    learner, script = (
        make_learner("hil-serl", spec, 0, SMALL_HIL | {"clone_updates": 400, "clone_weight_decay": 0.0, "clone_learning_rate": 0.01}),
        make_script(spec),
    )
    episode(learner, script, EpisodeKind.DEMONSTRATION, [H] * 8, action=[0.9, -0.9, 0.0])
    for _ in learner.clone_demonstrations():
        pass
    assert learner.replay.demonstrations.rows[0, learner.replay.columns.action].tolist() == pytest.approx([0.9, -0.9, 0.0])
    acted = build_policy(learner.weights(), spec).act(torch.full((4,), 3.0).numpy(), sample=False).actions[0]
    assert acted[:2].tolist() == pytest.approx([0.9, -0.9], abs=0.1)


def test_no_layer_is_shared_between_critics(spec: RobotSpec, make_script: Callable[..., Any]) -> None:
    learner = taught("hil-serl", spec, make_script(spec))
    flat = learner._critic.detach().clone().requires_grad_()
    values = nets.critics(learner._critic_layout.views(flat), torch.randn(16, 6, generator=torch.Generator().manual_seed(0)))
    (gradient,) = torch.autograd.grad(values[0].square().sum(), [flat])
    for name, view in learner._critic_layout.views(gradient).items():
        assert view[0].abs().sum() > 0, name
        assert view[1].abs().sum() == 0, name


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"tensors": {"w": torch.arange(4.0)}, "values": {"updates": 1}}
    for _ in range(3):
        save_checkpoint(tmp_path, good)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("takeover.policies.checkpoint.os.fsync", full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                save_checkpoint(tmp_path, good | {"values": {"updates": 2}})
    state, problems = newest_checkpoint(tmp_path)
    assert state is not None
    assert (state["values"], problems) == ({"updates": 1}, [])
    assert torch.equal(state["tensors"]["w"], torch.arange(4.0))


@pytest.mark.parametrize("name", ["hil-serl", "hg-dagger"])
def test_interventions_reach_the_learner_through_the_record(
    name: str, recorder: Recorder, tmp_path: Path, make_script: Callable[..., Any]
) -> None:
    """Journal, announcement and store between the step and the learner."""
    fields = {"session_id": "run-a", "workspace": str(tmp_path / "w"), "sockets": "", "task": "reach", "clock": "lockstep"}
    run = LearnerRun(RunConfig(**fields, demonstrations=9, learner=name, learner_parameters=SMALL))
    script = make_script()
    script_records = [
        script.start(),
        *(script.step(mode) for mode in [P] * 3 + [ControlMode.TRANSITION, H, H, P]),
        script.end(Outcome.FAILURE),
    ]
    for record in script_records:
        recorder.accept(record)
    synced = recorder.sync()
    for message in (synced.committed, *synced.closed):
        if isinstance(message, Committed):
            for _ in run.committed(message):
                pass
    learner: Any = run.training.learner
    assert (learner.train_steps, learner.human_steps) == (7, 2)
    if name == "hil-serl":
        assert (learner.replay.demonstrations.size, learner.replay.online.size) == (2, 7)
    else:
        assert [int(c) for c in learner._episodes["e000"].classes] == [1, 1, 1, 4, 2, 2, 1]
    run.close()
