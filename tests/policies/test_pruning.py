"""Weights of old versions go by the rule, and nothing that is referred to or in use does: on real files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from takeover.app.commands.options import StationOptions, make_config
from takeover.app.launcher import Launcher
from takeover.app.processes.common import StartupError
from takeover.data import store
from takeover.data.catalog import Catalog
from takeover.data.recorder import Recorder
from takeover.data.schema import EpisodeKind
from takeover.data.workspace import Workspace
from takeover.policies import absorption_file, pruning
from takeover.policies.acting import Acting
from takeover.policies.base import PolicyRefused, PolicyWeights
from takeover.policies.decisions import decide, decisions_path
from takeover.policies.hil_serl_parameters import HilSerlParameters
from takeover.policies.imitation_parameters import ImitationParameters
from takeover.policies.learner_run import LearnerRun
from takeover.policies.manifest import (
    MANIFEST_NAME,
    WEIGHTS_NAME,
    Manifest,
    has_weights,
    is_pruned,
    published_versions,
    read_manifest,
    version_folder,
)
from takeover.policies.outcomes import Outcomes
from takeover.policies.pruning import Pruner
from takeover.policies.publish import load_policy, make_manifest, publish, weights_bytes
from takeover.policies.registry import make_learner
from takeover.policies.retest import Case, KeptRuns

from .conftest import FAST
from .test_absorption import H, P, record
from .test_learner_run import commit, demonstration, take

COUNT = 60
ABOUT = ("toy", "reach")


@pytest.fixture
def spec(make_robot_spec: Callable[..., Any]) -> Any:
    return make_robot_spec()


@pytest.fixture
def place(tmp_path: Path, spec: Any, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Versions 1 to 60 with weights of their own; a pruner that looks at one after the other."""
    monkeypatch.setattr(pruning, "AT_ONCE", 1)
    made = Workspace(tmp_path / "w").prepare()
    base = make_learner("hil-serl", spec, 0, {"hidden": 16}).weights()
    for version in range(1, COUNT + 1):
        put(made.path, spec, version, base)
    return made


def put(workspace: Path, spec: Any, version: int, base: PolicyWeights) -> Path:
    tensors = base.tensors | {"actor.b0": base.tensors["actor.b0"] + version}
    weights = PolicyWeights(base.architecture, base.config, tensors)
    data = weights_bytes(weights)
    manifest = make_manifest(weights, data, spec, version=version, parent=version - 1, learner="hil-serl", swap="step")
    return publish(workspace, manifest, data, sync=False)


def manifest_of(place: Workspace, version: int) -> Manifest:
    return read_manifest(version_folder(place.path, version))


def prune(place: Workspace, newest: int = 10, every: int = 10, pruner: Pruner | None = None, about: tuple[str, str] = ABOUT) -> list[int]:
    """What is left with weights."""
    with Catalog.open(place) as catalog:
        pruner = pruner or Pruner(place.path, catalog)
        while pruner.work(newest, every, about):
            pass
        assert pruner.problem == ""
    return left(place)


def left(place: Workspace) -> list[int]:
    return [version for version in published_versions(place.path) if has_weights(place.path, version)]


NEWEST = list(range(COUNT - 9, COUNT + 1))
TENTHS = [10, 20, 30, 40, 50]


def test_the_newest_and_every_tenth_keep_their_weights_and_all_their_manifests(place: Workspace, spec: Any) -> None:
    before = {version: manifest_of(place, version) for version in published_versions(place.path)}
    assert prune(place) == TENTHS + NEWEST
    assert {version: manifest_of(place, version) for version in published_versions(place.path)} == before
    assert [version for version in before if is_pruned(version_folder(place.path, version))] == sorted(set(before) - {*TENTHS, *NEWEST})
    with pytest.raises(PolicyRefused, match=r"weights of version 3 were pruned, .*policies/3 keeps its manifest.*takeover policy ls"):
        load_policy(version_folder(place.path, 3), spec)
    assert load_policy(version_folder(place.path, 10), spec).manifest == before[10]
    assert prune(place, every=0) == NEWEST


def test_another_task_prunes_nothing_of_this_one_and_its_versions_count_for_themselves(
    place: Workspace, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "LOOKED_AT", 7)
    other = msgspec.structs.replace(spec, task_id="push")
    base = make_learner("hil-serl", spec, 0, {"hidden": 16}).weights()
    for version in range(COUNT + 1, COUNT + 31):
        put(place.path, other, version, base)
    others = list(range(COUNT + 1, COUNT + 31))
    assert prune(place, every=0, about=("toy", "push")) == [*range(1, COUNT + 1), *others[-10:]]
    with Catalog.open(place) as catalog:
        pruner = Pruner(place.path, catalog)
        pruner.work(10, 0, ABOUT)
        put(place.path, spec, 91, base)
        pruner.published(91)  # while it is looking
        assert prune(place, every=0, pruner=pruner) == [*NEWEST[1:], *others[-10:], 91]
    assert prune(place, every=0, about=("arm", "reach")) == [*NEWEST[1:], *others[-10:], 91], "nor another robot"


def test_nothing_is_pruned_where_all_are_to_be_kept(place: Workspace) -> None:
    assert prune(place, newest=0, every=0) == list(range(1, COUNT + 1))
    assert prune(place, newest=COUNT, every=0) == list(range(1, COUNT + 1))


def test_a_measured_absorption_keeps_no_weights_and_stays_itself(place: Workspace) -> None:
    results = {version: version_folder(place.path, version) / absorption_file.FILE for version in (8, 10, 60)}
    for path in results.values():
        path.write_text("{}")
    assert prune(place) == TENTHS + NEWEST
    assert is_pruned(results[8].parent)
    assert all(path.read_text() == "{}" for path in results.values())


def test_what_is_referred_to_keeps_its_weights(place: Workspace, make_script: Any, spec: Any) -> None:
    for version, kind in ((1, "promoted"), (2, "promoted"), (3, "rolled_back"), (4, "refused")):
        decide(place.path, [(kind, manifest_of(place, version))], author="op-01", reason="")
    with Catalog.open(place) as catalog:
        name = {"session_id": "s", "policy_version": 5, "policy_sha256": manifest_of(place, 5).sha256, "task_id": "reach"}
        catalog.add_evaluation(**name, protocol="heldout", successes=1, n=2)
    Outcomes(place.path, "toy:reach@20").put(manifest_of(place, 6).sha256, 0, True, 9)
    KeptRuns(place.path).put(Case("e000", 3, "takeover", 1, b""), manifest_of(place, 7).sha256, 30, [True])
    script = make_script(spec)
    record(place, script, [P] * 3 + [H] * 3, version=9)
    record(place, script, [P] * 6, version=11)  # nobody took over
    record(place, script, [P] * 6, version=16, kind=EpisodeKind.EVALUATION)  # nor might anybody: a probe
    (version_folder(place.path, 12) / MANIFEST_NAME).write_text("{")
    with Catalog.open(place) as catalog:
        pruner = Pruner(place.path, catalog, lent=[13])
        for one in (script.start(), script.step(policy_version=14), script.step(policy_version=15)):
            pruner.saw(one)
        assert prune(place, every=0, pruner=pruner) == [1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 14, 15, 16, *NEWEST]


def test_what_a_process_has_loaded_stays_until_it_has_not(place: Workspace, spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    acting = Acting(place.path, spec, 0)
    assert acting.offer(7)
    loaded = load_policy(version_folder(place.path, 8), spec)
    with Catalog.open(place) as catalog:
        pruner = Pruner(place.path, catalog)
        assert prune(place, every=0, pruner=pruner) == [7, 8, *NEWEST]
        acting.offer(COUNT)
        acting._cache.clear()
        assert acting.version == COUNT
        put(place.path, spec, COUNT + 1, make_learner("hil-serl", spec, 0, {"hidden": 16}).weights())
        pruner.published(COUNT + 1)
        assert prune(place, every=0, pruner=pruner) == [8, *NEWEST[1:], COUNT + 1], "the actor left 7; 8 is loaded, 51 has become old"
    del loaded


def test_an_episode_that_is_over_holds_no_version(place: Workspace, make_script: Any, spec: Any) -> None:
    script = make_script(spec)
    with Catalog.open(place) as catalog:
        pruner = Pruner(place.path, catalog)
        for version in (3, 4, *[COUNT] * (pruning.EPISODES - 1)):
            pruner.saw(script.start())
            pruner.saw(script.step(policy_version=version))
        assert prune(place, every=0, pruner=pruner) == [4, *NEWEST]


def test_while_decisions_cannot_be_read_nothing_goes(place: Workspace, spec: Any) -> None:
    decisions_path(place.path).write_text("nonsense\n")
    with Catalog.open(place) as catalog:
        pruner = Pruner(place.path, catalog)
        while pruner.work(10, 0, ABOUT):
            pass
        assert "weights of old versions stay" in pruner.problem
        assert "line 1" in pruner.problem
        assert left(place) == list(range(1, COUNT + 1))
        decisions_path(place.path).unlink()
        put(place.path, spec, COUNT + 1, make_learner("hil-serl", spec, 0, {"hidden": 16}).weights())
        pruner.published(COUNT + 1)
        assert prune(place, every=0, pruner=pruner) == [*NEWEST[1:], COUNT + 1]


def test_results_that_are_written_while_it_works_count(place: Workspace) -> None:
    with Catalog.open(place) as catalog:
        pruner, kept = Pruner(place.path, catalog), Outcomes(place.path, "toy:reach@20")
        pruner.work(10, 0, ABOUT)  # looks for the newest
        pruner.work(10, 0, ABOUT)  # version 1
        kept.put(manifest_of(place, 5).sha256, 0, True, 9)
        pruner.work(10, 0, ABOUT)
        with kept.path.open("ab") as file:
            file.write(b'{"sha256":"' + manifest_of(place, 6).sha256.encode()[:9])  # torn
        pruner.work(10, 0, ABOUT)
        with kept.path.open("ab") as file:
            file.write(manifest_of(place, 6).sha256.encode()[9:] + b'"}\n')
        assert prune(place, every=0, pruner=pruner) == [5, 6, *NEWEST]


def test_results_in_a_file_that_was_put_in_the_place_of_another_count(place: Workspace) -> None:
    with Catalog.open(place) as catalog:
        pruner, kept = Pruner(place.path, catalog), Outcomes(place.path, "toy:reach@20")
        kept.put(manifest_of(place, 5).sha256, 0, True, 9)
        pruner.work(10, 0, ABOUT)
        pruner.work(10, 0, ABOUT)
        kept.path.unlink()  # it may be deleted
        for version in (6, 7):
            Outcomes(place.path, "toy:reach@20").put(manifest_of(place, version).sha256, 0, True, 9)
        assert prune(place, every=0, pruner=pruner) == [6, 7, *NEWEST]


def test_a_version_that_is_published_again_gets_its_weights_back(place: Workspace, spec: Any) -> None:
    whole = (version_folder(place.path, 3) / WEIGHTS_NAME).read_bytes()
    prune(place)
    put(place.path, spec, 3, make_learner("hil-serl", spec, 0, {"hidden": 16}).weights())
    folder = version_folder(place.path, 3)
    assert (folder / WEIGHTS_NAME).read_bytes() == whole
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST_NAME, WEIGHTS_NAME]
    assert load_policy(folder, spec).manifest.version == 3


def test_the_actor_goes_back_past_what_was_pruned(place: Workspace, spec: Any) -> None:
    acting = Acting(place.path, spec, 0)
    acting.offer(COUNT)
    prune(place, newest=1, every=20)
    for path in (version_folder(place.path, version) / WEIGHTS_NAME for version in range(41, COUNT)):
        assert not path.exists()
    decide(place.path, [("refused", manifest_of(place, COUNT))], author="gate", reason="worse")
    assert acting.follow_decisions()
    assert acting.version == 40


def test_a_probe_of_a_pruned_version_is_refused_before_anything_starts(place: Workspace) -> None:
    prune(place)
    options = StationOptions(workspace=str(place.path), probe_share=0.5, probe_versions=(60, 3))
    with pytest.raises(StartupError, match="--probe-versions 3: the weights of version 3 were pruned"):
        make_config(options, operator="none")


def test_a_version_that_went_before_the_workspace_was_free_is_refused(place: Workspace) -> None:
    options = StationOptions(workspace=str(place.path), probe_share=0.5, probe_versions=(60, 3))
    config = make_config(options, operator="none")
    prune(place)  # by the run that is about to end
    with pytest.raises(StartupError, match="--probe-versions 3: the weights of version 3 were pruned"), Launcher(config, ["recorder"]):
        pass
    assert not Path(config.sockets).exists()
    assert list(place.path.glob("*.lock")) == []


# --- the learner ---


@pytest.mark.parametrize("clock", ["realtime", "lockstep"])
def test_a_learner_prunes_in_real_time_alone(
    recorder: Recorder, make_run: Any, make_script: Any, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    monkeypatch.setattr(pruning, "AT_ONCE", 5)
    settings = FAST | {"keep_versions": 10, "keep_every": 7, "actor_delay": 0}
    run: LearnerRun = make_run(clock=clock, learner_parameters=settings, publish_every_s=0.0, publish_every_updates=1)
    script = make_script()
    take(run, commit(recorder, demonstration(script)))
    drove = []
    for _ in range(8):
        drove.append(run.training.versions[-1][0])
        episode = [script.start(), *(script.step(policy_version=drove[-1]) for _ in range(10)), script.end()]
        take(run, commit(recorder, episode))
        while run.work():
            pass
    everything = published_versions(run.workspace)
    assert len(everything) > 60
    with_weights = [version for version in everything if has_weights(run.workspace, version)]
    if clock == "lockstep":
        assert with_weights == everything
        return
    kept = {*everything[-10:], *drove[-pruning.EPISODES :], *(version for version in everything if version % 7 == 0)}
    assert kept <= set(with_weights)
    assert len(with_weights) <= len(kept) + 2 * pruning.AT_ONCE
    assert drove[0] not in with_weights, "its episode is long over"
    assert not run.training.notices["prune"]
    assert all(read_manifest(version_folder(run.workspace, version)).version == version for version in everything)


def test_a_learner_that_starts_prunes_what_is_there(place: Workspace, spec: Any, make_run: Any, make_script: Any) -> None:
    recorder = Recorder(place)
    run: LearnerRun = make_run(clock="realtime", learner_parameters=FAST | {"keep_versions": 10, "keep_every": 0}, publish_every_s=1e9)
    script = make_script(spec)
    take(run, commit(recorder, demonstration(script)))
    while run.work():
        pass
    recorder.close()
    assert script.kind == EpisodeKind.DEMONSTRATION
    newest = published_versions(place.path)[-10:]
    assert newest[-1] == COUNT + 1, "the cloned one"
    assert left(place) == [1, *newest], "version 1 is in the script's steps"


def test_a_learner_that_starts_again_knows_what_drove_in_episodes_of_any_age(
    place: Workspace, spec: Any, make_run: Any, make_script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 6 drove when a person took over, long ago; 7 and 8 drove in one of the newest episodes."""
    settings = FAST | {"replay_capacity": 1000, "keep_every": 0}
    fields = {"clock": "realtime", "publish_every_s": 1e9}
    recorder, script = Recorder(place), make_script(spec)
    run: LearnerRun = make_run(**fields, learner_parameters=settings | {"keep_versions": 0})

    def episode(first: int, modes: list[Any], *then: tuple[int, list[Any]]) -> str:
        start = msgspec.structs.replace(script.start(), policy_version=first)
        steps = [script.step(mode, policy_version=version) for version, each in ((first, modes), *then) for mode in each]
        end = script.end(takeovers=int(any(step.intervention_id >= 0 for step in steps)))
        take(run, commit(recorder, [start, *steps, end]))
        return str(start.episode_id)

    take(run, commit(recorder, demonstration(script)))
    helped = episode(5, [P] * 5, (6, [P] * 3 + [H] * 5))
    take(run, commit(recorder, [script.start(EpisodeKind.DEMONSTRATION), *(script.step(H) for _ in range(1050)), script.end()]))
    for _ in range(pruning.EPISODES - 1):
        episode(COUNT, [P] * 260)
    newest = episode(7, [P] * 10, (8, [P] * 10))
    run.checkpoint(wait=True)
    recorder.close()
    read: list[str] = []

    def counting(name: str) -> Callable[..., Any]:
        inner = getattr(store, name)

        def reading(path: Path, *arguments: Any, **options: Any) -> Any:
            read.append(f"{name} {path.stem}")
            return inner(path, *arguments, **options)

        return reading

    for name in ("read_records", "read_block"):
        monkeypatch.setattr(store, name, counting(name))
    again: LearnerRun = make_run(**fields, learner_parameters=settings | {"keep_versions": 10})
    again.resume()
    assert f"read_block {newest}" in read
    assert not any(helped in one for one in read), "its steps were forgotten"
    while again._prune():
        pass
    assert not again.training.notices["prune"]
    assert left(place) == [6, 7, 8, *published_versions(place.path)[-10:]]


@pytest.mark.parametrize("kind", [HilSerlParameters, ImitationParameters])
@pytest.mark.parametrize(("name", "value"), [("keep_versions", 9), ("keep_versions", -1), ("keep_every", -1), ("keep_every", 1_000_001)])
def test_settings_that_cannot_be_are_refused(kind: Any, name: str, value: int) -> None:
    assert (kind().keep_versions, kind().keep_every) == (100, 10)
    assert kind(keep_versions=10, keep_every=0).keep_versions == 10
    with pytest.raises(ValueError, match=rf"{name} = {value}; allowed 0"):
        kind(**{name: value})
