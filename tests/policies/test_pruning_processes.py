"""One process prunes while another promotes, rolls back, evaluates and lends: what was granted keeps its weights, what is gone is named."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from takeover.app.commands.options import known_probes
from takeover.app.commands.policy_decide import Promote, Rollback, promote, rollback
from takeover.app.commands.policy_evaluate import Evaluate, evaluate
from takeover.app.processes.common import StartupError
from takeover.data.catalog import Catalog
from takeover.data.schema import Mode, Observation
from takeover.data.workspace import Workspace
from takeover.policies.acting import Acting
from takeover.policies.decisions import decide, read_decisions
from takeover.policies.gating import run_start
from takeover.policies.manifest import PRUNED_NAME, has_weights, is_pruned, newest_version, published_versions, version_folder
from takeover.policies.publish import load_policy
from takeover.robot_bridge.robots.sim import SimRobot
from tests.patience import patient

KEPT = 100  # of the newest: what a process has until a version is pruned, in publications
LENT = 3
ENOUGH = {"promote": 2, "rollback": 2, "evaluate": 2, "lend": 6}  # that were granted; lent: more than an actor holds
LATE = 4  # that were refused since they came too late

# A learner that learns nothing: it publishes and prunes as the real one does, in small pieces. Ends with how many it published.
PRUNES = """
import sys, time
from pathlib import Path
from takeover.data.catalog import Catalog
from takeover.data.workspace import Workspace
from takeover.policies import pruning
from takeover.policies.base import PolicyWeights
from takeover.policies.publish import make_manifest, publish, weights_bytes
from takeover.policies.registry import make_learner
from takeover.robot_bridge.robots.sim import SimRobot

place, kept, lent, stop = Workspace(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
pruning.AT_ONCE = 2
spec = SimRobot("peg-insert").spec
base = make_learner("hil-serl", spec, 0, {"hidden": 16}).weights()
with Catalog.open(place) as catalog:
    pruner, version = pruning.Pruner(place.path, catalog, lent=[lent]), 0
    while not stop.exists():
        version += 1
        weights = PolicyWeights(base.architecture, base.config, base.tensors | {"actor.b0": base.tensors["actor.b0"] + version})
        data = weights_bytes(weights)
        made = make_manifest(weights, data, spec, version=version, parent=version - 1, learner="hil-serl", swap="step")
        publish(place.path, made, data, sync=False)
        pruner.published(version)
        while pruner.work(kept, 0, (spec.robot_id, spec.task_id)):
            pass
        time.sleep(0.004)
"""


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    made = Workspace(tmp_path / "w").prepare()
    Catalog.open(made).close()
    return made


class Users:
    """What is done to one version after another, and how it went."""

    def __init__(self, place: Workspace) -> None:
        self.place, self.where = place, str(place.path)
        self.spec = SimRobot("peg-insert").spec
        self.acting = Acting(place.path, self.spec, 0)
        self.granted: dict[str, list[int]] = {name: [] for name in ENOUGH}
        self.late: dict[str, list[int]] = {name: [] for name in ENOUGH}
        self.does: dict[str, Callable[[int], Any]] = {
            "promote": lambda version: promote(Promote(version=version, workspace=self.where)),
            "rollback": lambda version: rollback(Rollback(version=version, workspace=self.where)),
            "evaluate": lambda version: evaluate(Evaluate(version=version, starts=1, workspace=self.where)),
            "lend": self._lend,
        }

    def _lend(self, version: int) -> None:
        """As for a probe: the bridge asks the actor for this version."""
        known_probes(self.place, 0.5, (version,))
        asked = Observation(
            session="s",
            seq=version,
            t_robot_ns=0,
            mode=Mode.POLICY,
            episode_id=f"e{version}",
            episode_step=0,
            run_id=0,
            observation=[0.0] * self.spec.observation.size,
            train_step=-1,
            required_version=version,
        )
        answer = self.acting.answer(asked)
        if answer is None:
            raise StartupError(self.acting.refused)
        assert answer.policy_version == version

    def use(self, what: str, version: int) -> None:
        refusal = ""
        try:
            self.does[what](version)
        except StartupError as error:
            refusal = str(error)
        if refusal:
            assert f"weights of version {version} were pruned" in refusal, "it is refused for that and nothing else, by its number"
            assert is_pruned(version_folder(self.place.path, version))
        (self.late if refusal else self.granted)[what].append(version)

    def whole(self, version: int) -> None:
        """Its weights are there and load."""
        folder = version_folder(self.place.path, version)
        assert (has_weights(self.place.path, version), is_pruned(folder)) == (True, False), version
        assert load_policy(folder, self.spec).manifest.version == version

    @property
    def held(self) -> set[int]:
        """By the actor."""
        return {self.acting.version, *self.acting._cache} - {0}

    def check_held(self) -> None:
        for version in self.held:
            assert has_weights(self.place.path, version), f"version {version} is loaded"

    @property
    def wanted(self) -> list[str]:
        return [name for name, least in ENOUGH.items() if len(self.granted[name]) < least]


def dawdle(monkeypatch: pytest.MonkeyPatch, place: Workspace) -> None:
    """Between loading weights and writing down what follows, every command takes until they would be pruned if nobody held them."""

    def wait(version: int) -> None:
        deadline = time.monotonic() + patient(30.0)
        while newest_version(place.path) < version + KEPT + 20:
            assert time.monotonic() < deadline, "did not happen in time"
            time.sleep(0.01)

    def late_decide(workspace: Any, entries: Any, **more: Any) -> Any:
        wait(entries[0][1].version)
        return decide(workspace, entries, **more)

    def late_start(loaded: Any, *more: Any) -> Any:
        wait(loaded.manifest.version)
        return run_start(loaded, *more)

    monkeypatch.setattr("takeover.policies.decisions.decide", late_decide)
    monkeypatch.setattr("takeover.policies.gating.run_start", late_start)


def test_what_was_granted_keeps_its_weights_while_another_process_prunes(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dawdle(monkeypatch, place)
    stop, rng = tmp_path / "stop", np.random.default_rng(0)
    command = [sys.executable, "-c", PRUNES, str(place.path), str(KEPT), str(LENT), str(stop)]
    learner = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + patient(60.0)
        while newest_version(place.path) < KEPT + 20:
            assert learner.poll() is None
            assert time.monotonic() < deadline, "did not happen in time"
            time.sleep(0.01)
        users = Users(place)
        for number in range(10_000):
            newest = newest_version(place.path)
            version = newest - int(rng.integers(KEPT // 3, KEPT + 10))  # it may be gone before it was looked at, meanwhile, or not at all
            if not any(version in versions for versions in users.granted.values()):
                wanted = users.wanted or list(ENOUGH)
                users.use(wanted[number % len(wanted)], version)
                users.check_held()
            if not users.wanted and sum(map(len, users.late.values())) >= LATE:
                break
            assert learner.poll() is None
            assert time.monotonic() < deadline, "did not happen in time"
        newest = newest_version(place.path)
        while newest_version(place.path) < newest + KEPT + 10:  # whatever could be pruned is
            assert time.monotonic() < deadline, "did not happen in time"
            time.sleep(0.01)
    finally:
        stop.touch()
        assert learner.wait(30.0) == 0
    for what in ("promote", "rollback", "evaluate"):
        for version in users.granted[what]:
            users.whole(version)
    users.check_held()
    users.whole(LENT)
    decided = {decision.version for decision in read_decisions(place.path)}
    assert decided == {*users.granted["promote"], *users.granted["rollback"]}
    for versions in users.late.values():
        assert all(is_pruned(version_folder(place.path, version)) for version in versions)
    everything = published_versions(place.path)
    marked = [version for version in everything if (version_folder(place.path, version) / PRUNED_NAME).exists()]
    gone = [version for version in everything if not has_weights(place.path, version)]
    assert marked == gone, "nothing is half there"
    assert len(gone) > KEPT
    assert (set(users.granted["lend"]) - users.held) & set(gone), "what the actor has left goes"
