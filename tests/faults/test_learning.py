"""Rows 22, 24, 25 and 27: losses, data, weights and candidates that are no good, against the real learner, actor and evaluator."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from takeover.data.schema import ActorStatus, Outcome
from takeover.data.seeding import heldout_start
from takeover.policies.decisions import decide, read_decisions
from takeover.policies.learner_run import LearnerRun
from takeover.policies.outcomes import Outcomes, conditions_of
from takeover.policies.publish import load_policy, published_versions, read_manifest, version_folder
from takeover.robot_bridge.robots.sim import SimRobot
from tests.policies.conftest import Script, make_spec
from tests.policies.test_actor_process import Peer
from tests.policies.test_learner_process import FAST, Station, demonstrations, episode

Bound = Callable[[float, float, str], None]
EPISODE_S = 5.0  # 100 steps at 20 Hz


@pytest.fixture
def station(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Station]]:
    made: list[Station] = []

    def make(**changes: Any) -> Station:
        made.append(Station(tmp_path / "w", tmp_path_factory.mktemp("s"), **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def peers(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Peer]]:
    """Processes of one workspace, each with sockets of its own."""
    made: list[Peer] = []

    def make(spec: Any) -> Peer:
        made.append(Peer(tmp_path, tmp_path_factory.mktemp("s"), spec, "realtime"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def unusable(station: Station) -> int:
    """Published versions that an actor would refuse."""
    count = 0
    for version in published_versions(station.config.workspace):
        try:
            load_policy(version_folder(station.config.workspace, version), make_spec())
        except ValueError:
            count += 1
    return count


def test_row_22_loss_not_finite(station: Callable[..., Station], bound: Bound) -> None:
    """A learning rate that no network survives, set as people set it: updates are skipped, the last good state comes back, nothing bad
    is published, and the learner lives."""
    settings = FAST | {"learning_rate": 1e30, "critic_warmup": 0}
    learner, script, rng = station(learner_parameters=settings, publish_every_updates=1), Script(make_spec()), np.random.default_rng(7)
    learner.start_learner()
    learner.commit(demonstrations(script))
    learner.status_when(lambda status: status.newest_version == 1)
    learner.commit(episode(script, rng) + episode(script, rng))
    status = learner.status_when(lambda status: status.finished_train_step == 59)
    assert status.phase == "training"
    assert status.metrics["skipped"] > 5, "also after the last good state came back"
    assert "updates were skipped: their loss or gradient was not finite" in status.text
    assert learner.stop_learner(signal.SIGTERM) == 0
    bound(float(unusable(learner)), 0.0, "bad versions published")


def test_row_22_data_not_finite(station: Callable[..., Station], bound: Bound) -> None:
    learner, script, rng = station(), Script(make_spec()), np.random.default_rng(7)
    learner.start_learner()
    learner.commit(demonstrations(script))
    bad = episode(script, rng)
    bad[3] = msgspec.structs.replace(bad[3], observation=[0.0, float("nan"), 0.0])
    learner.commit(bad + episode(script, rng))
    status = learner.status_when(lambda status: status.finished_train_step == 59)
    assert "e002: step 2: observation[o1] is nan" in status.text
    assert (status.phase, status.metrics["skipped"]) == ("training", 0.0)
    assert learner.stop_learner(signal.SIGTERM) == 0
    bound(float(unusable(learner)), 0.0, "bad versions published")


def test_row_24_worse_candidate(peers: Callable[..., Peer], bound: Bound) -> None:
    """The gate knows how both do on the held-out starts: it refuses the worse one, and the actor that acts with it goes back."""
    spec = SimRobot("peg-insert").spec
    actor, evaluator = peers(spec), peers(spec)
    evaluator.configure(gate=True)
    known = Outcomes(actor.workspace, conditions_of("sim", "peg-insert", 20.0, {}))
    for version, success in ((1, True), (2, False)):
        actor.publish(version, seed=version)
        for index in range(60):
            known.put(read_manifest(version_folder(actor.workspace, version)).sha256, heldout_start(index), success, 50)
    actor.start("actor")
    actor.shake_hands()
    actor.announce(2)
    assert actor.answer(1, episode_id="e1").policy_version == 2
    decide(actor.workspace, [("promoted", read_manifest(version_folder(actor.workspace, 1)))], author="op-01", reason="")
    evaluator.start("evaluator")
    deadline = time.monotonic() + 60.0
    while len(made := read_decisions(actor.workspace)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [(d.kind, d.version) for d in made[1:]] == [("refused", 2), ("rolled_back", 1)]
    decided, seq = time.monotonic(), 2
    while actor.answer(seq).policy_version != 1:
        seq += 1
        assert time.monotonic() < decided + 30.0
        time.sleep(0.05)
    bound(time.monotonic() - decided, EPISODE_S, "s")


@pytest.mark.parametrize("damage", ["cut off", "one bit", "no weights", "no manifest"])
def test_row_25_torn_weights(peers: Callable[..., Peer], bound: Bound, damage: str) -> None:
    actor = peers(make_spec())
    actor.publish(1)
    actor.start("actor")
    actor.shake_hands()
    actor.announce(1)
    assert actor.answer(1).policy_version == 1
    actor.publish(2, seed=2)
    folder = version_folder(actor.workspace, 2)
    weights = folder / "weights.safetensors"
    if damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "one bit":
        data = bytearray(weights.read_bytes())
        data[-50] ^= 1
        weights.write_bytes(data)
    elif damage == "no weights":
        weights.unlink()
    else:
        (folder / "manifest.json").write_bytes(b"{")
    actor.announce(2)
    status: ActorStatus = actor.until_status(lambda status: status.refused != "")
    assert status.version == 1
    loads = sum(actor.answer(seq).policy_version != 1 for seq in range(2, 8))
    bound(float(loads), 0.0, "loads")


def test_row_27_without_outcome_and_one_class(station: Callable[..., Station], bound: Bound) -> None:
    """Demonstrations that all failed, then good ones, then an episode without an outcome: each is said, nothing of it is trained on."""
    learner, script, rng = station(demonstrations=2), Script(make_spec()), np.random.default_rng(7)
    learner.start_learner()
    records = demonstrations(script)
    learner.commit([msgspec.structs.replace(r, outcome=Outcome.FAILURE) if hasattr(r, "outcome_source") else r for r in records])
    status = learner.status_when(lambda status: "0 of 2 (failed, not counted: 2)" in status.text)
    assert (status.phase, status.newest_version) == ("waiting", 0)
    learner.commit(demonstrations(script))
    learner.status_when(lambda status: status.newest_version == 1)
    records = episode(script, rng)
    learner.commit([*records[:-1], msgspec.structs.replace(records[-1], outcome=Outcome.UNKNOWN)])
    learner.status_when(lambda status: "e004: no outcome" in status.text)
    assert learner.stop_learner(signal.SIGTERM) == 0
    learner.recorder.close()
    again = LearnerRun(learner.config)
    again.resume()
    made: Any = again.training.learner
    key = made.replay._keys["e004"]
    bound(float(len(made.replay.online.of_episode(key)) + len(made.replay.demonstrations.of_episode(key))), 0.0, "steps silently trained")
    assert "e004: no outcome" in again.training.status().text
    again.close()
