"""A saved run goes on after an upgrade, as it did before, and on another device; with other settings it does not."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from takeover.data.recorder import Recorder
from takeover.data.schema import RunConfig
from takeover.data.workspace import Workspace
from takeover.policies.checkpoint import newest_checkpoint, save_checkpoint
from takeover.policies.hil_serl_parameters import HilSerlParameters
from takeover.policies.imitation_parameters import ImitationParameters
from takeover.policies.learner_run import LearnerRun
from takeover.policies.resume import OtherSettings
from takeover.policies.same_settings import BEFORE_HIL_SERL, BEFORE_IMITATION, HOW, SAME_AS, carried_on, differing

from .test_learner_run import commit, demonstration, policy_episode, take

QUICK = {"updates_per_step": 1, "clone_updates": 30, "learning_starts": 5, "hidden": 16, "batch": 32}
OLD: dict[str, dict[str, Any]] = {  # what a version without these settings did
    "hil-serl": {
        "bc_help": 0.0,
        "horizon": 100,
        "residual_scale": 0.0,
        "device": "cpu",
        "keep_warm_start": False,
        "clone_weight_decay": 0.0,
    },
    "sirius": {"memory_steps": 0, "memory": "lfi", "average_horizon": 0},
}
FIRST = {  # settings of the first version
    *("hidden", "ensemble", "batch", "discount", "target_rate", "learning_rate", "critic_updates", "updates_per_step", "learning_starts"),
    *("initial_temperature", "target_entropy_per_action", "bc_weight", "bc_decay", "gripper_penalty", "gripper_margin", "clone_updates"),
    *("clone_learning_rate", "clone_std", "critic_warmup", "replay_capacity"),
}


class Place:
    """A workspace with a learner that can be closed and started again."""

    def __init__(self, folder: Path, learner: str, script: Any) -> None:
        self.learner, self.script = learner, script
        self.recorder = Recorder(Workspace(folder))
        self.folder, self.runs = folder, list[LearnerRun]()

    def run(self, **parameters: Any) -> LearnerRun:
        quick = QUICK | ({"critic_warmup": 10} if self.learner == "hil-serl" else {})
        config = RunConfig(
            session_id="run-a",
            workspace=str(self.folder),
            sockets="",
            task="reach",
            clock="lockstep",
            demonstrations=1,
            learner=self.learner,
            learner_parameters=quick | parameters,
        )
        self.runs.append(LearnerRun(config))
        return self.runs[-1]

    def take(self, run: LearnerRun, records: list[Any]) -> None:
        take(run, commit(self.recorder, records))

    def close(self) -> None:
        self.recorder.close()
        for run in self.runs:
            run.close()


@pytest.fixture
def make_place(tmp_path: Path, make_script: Callable[..., Any]) -> Iterator[Callable[[str, str], Place]]:
    places: list[Place] = []

    def make(name: str, learner: str) -> Place:
        places.append(Place(tmp_path / name, learner, make_script()))
        return places[-1]

    yield make
    for place in places:
        place.close()


def as_an_older_version_saved_it(run: LearnerRun, without: Any, **changed: Any) -> None:
    state, _ = newest_checkpoint(run.folder)
    assert state is not None
    for name in without:
        del state["values"]["parameters"][name]
    state["values"]["parameters"] |= changed
    save_checkpoint(run.folder, state)


def tensors(run: LearnerRun) -> dict[str, torch.Tensor]:
    return run.training.need_learner().state()["tensors"]


@pytest.mark.parametrize("learner", ["hil-serl", "sirius"])
def test_a_state_without_newer_settings_goes_on_as_that_version_did(learner: str, make_place: Callable[[str, str], Place]) -> None:
    """Twice over, to the bits of a run that had them set to what that version did."""
    plain, older = make_place("plain", learner), make_place("older", learner)
    runs = [place.run(**OLD[learner]) for place in (plain, older)]
    for place, run in zip((plain, older), runs, strict=True):
        place.take(run, demonstration(place.script))
        place.take(run, policy_episode(place.script))
    runs[1].close()
    as_an_older_version_saved_it(runs[1], OLD[learner])
    for _ in range(2):
        again = older.run()  # nothing of it is given
        again.resume()
        older.take(again, policy_episode(older.script))
        plain.take(runs[0], policy_episode(plain.script))
        again.close()
    assert again.training.status().updates == runs[0].training.status().updates == 25
    expected, found = tensors(runs[0]), tensors(again)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert again.config.learner_parameters.items() >= {n: v for n, v in OLD[learner].items() if n != "device"}.items(), (
        "the manifests say it"
    )


def test_what_is_given_now_is_held_against_what_that_version_did(make_place: Callable[[str, str], Place]) -> None:
    place = make_place("w", "hil-serl")
    run = place.run(bc_help=0.0, horizon=100, keep_warm_start=False)
    place.take(run, demonstration(place.script))
    run.close()
    as_an_older_version_saved_it(run, ["bc_help", "horizon"])
    with pytest.raises(OtherSettings, match=r"bc_help was 0\.0 and is 0\.5\. Set them back"):
        place.run(bc_help=0.5).resume()


def test_a_state_of_another_device_goes_on(make_place: Callable[[str, str], Place]) -> None:
    place = make_place("w", "hil-serl")
    run = place.run(device="cpu")
    place.take(run, demonstration(place.script))
    place.take(run, policy_episode(place.script))
    run.close()
    as_an_older_version_saved_it(run, [], device="cuda", compile=True)
    again = place.run()
    again.resume()
    assert again.training.status().updates == run.training.status().updates == 5


def test_defaults_that_changed_are_those_of_the_saved_state() -> None:
    ours = dataclasses.asdict(HilSerlParameters())
    older = {name: value for name, value in ours.items() if name not in ("horizon", "bc_help")} | {
        "actor_delay": 1500,
        "anchor_decay": 0.9995,
    }
    wanted = {"actor_delay": 1500, "anchor_decay": 0.9995, "horizon": 100, "bc_help": 0.0}
    assert carried_on("hil-serl", older, {}) == wanted
    assert carried_on("hil-serl", older, {"actor_delay": 7}) == {name: wanted[name] for name in wanted if name != "actor_delay"}
    assert differing(older, ours | {"bc_help": 0.0}) == ["actor_delay was 1500 and is 2500", "anchor_decay was 0.9995 and is 0.999"]
    assert carried_on("hil-serl", ours | {"actor_delay": 1500}, {}) == {}, "this version's default was another: somebody gave it"


def test_it_is_written_down_what_versions_before_every_setting_did() -> None:
    """A new setting needs a line in `policies.same_settings`."""
    hil_serl = {field.name for field in dataclasses.fields(HilSerlParameters)}
    assert hil_serl - FIRST - HOW - SAME_AS.keys() == BEFORE_HIL_SERL.keys()
    first = {"hidden", "modes", "min_std", "history", "batch", "learning_rate", "weight_decay", "clone_updates", "updates_per_step"}
    first |= {"learning_starts", "pre_intervention_s"}
    assert {field.name for field in dataclasses.fields(ImitationParameters)} - first - HOW == BEFORE_IMITATION.keys()
    nothing = {name: getattr(HilSerlParameters(), name) for name in FIRST}
    carried = nothing | carried_on("hil-serl", nothing, {})
    assert differing(nothing, dataclasses.asdict(HilSerlParameters(**carried))) == []
