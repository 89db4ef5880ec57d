"""Our own episodes from another workspace."""

import msgspec
import pytest

from takeover.data.catalog import Catalog
from takeover.data.episode_file import write_episode
from takeover.data.episode_schema import gather
from takeover.data.exchange.errors import ExchangeError
from takeover.data.exchange.own_import import import_own
from takeover.data.hdf5_image import DamagedFile
from takeover.data.labels import Labels
from takeover.data.workspace import Workspace


@pytest.fixture
def other(tmp_path) -> Workspace:
    return Workspace(tmp_path / "other").prepare()


def test_a_workspace_comes_over_byte_for_byte_with_its_labels(recorded, workspace, other):
    labels = Labels(workspace)
    labels.add_label("s1-ep0003", "quality", "good", "op-03")
    labels.add_label("s1-ep0001:t0", "cause", "force", "op-02")
    labels.close()
    assert import_own(other, workspace.path).made == 5
    assert import_own(other, workspace.path).present == 5
    with Catalog.open(other) as catalog:
        for row in recorded:
            came = catalog.episode(row.id)
            assert (came.sha256, came.path, came.excluded) == (row.sha256, row.path, row.excluded)
            assert (other.path / came.path).read_bytes() == (workspace.path / row.path).read_bytes()
        assert catalog.labels(["s1-ep0003", "s1-ep0001:t0"]) == {"s1-ep0003": {"quality": "good"}, "s1-ep0001:t0": {"cause": "force"}}
        with Catalog.open(workspace) as source:
            assert catalog.segments() == source.segments()


def test_a_copy_that_was_cut_short_is_done_again(recorded, workspace, other):
    import_own(other, workspace.path)
    with Catalog.open(other) as catalog:
        catalog.remove_episodes(["s1-ep0002"])
    result = import_own(other, workspace.path)
    assert (result.made, result.present, result.steps) == (1, 4, 30)


def test_a_damaged_file_is_refused_and_named(recorded, workspace, other):
    path = workspace.path / recorded[2].path
    data = bytearray(path.read_bytes())
    data[5000] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match=r"s1-ep0002\.hdf5.*changed or cut off"):
        import_own(other, path)
    assert list(other.episodes.rglob("*")) == []


def test_another_episode_of_the_same_id_is_refused(recorded, workspace, other, new_stream):
    import_own(other, workspace.path / recorded[0].path)
    third = Workspace(other.path.with_name("third")).prepare()
    path, _, _ = write_episode(third, gather(new_stream(seed=5).episode()))
    with pytest.raises(ExchangeError, match="another episode s1-ep0000 already"):
        import_own(other, path)


def other_spec(records, **changes):
    start = records[0]
    return [msgspec.structs.replace(start, spec=msgspec.structs.replace(start.spec, **changes)), *records[1:]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda start: {"control_hz": 10.0}, r"control_hz 10; episode s1-ep000\d of task 'pick-lift' in the workspace has 20"),
        (
            lambda start: {"observation": msgspec.structs.replace(start.spec.observation, names=["q", *start.spec.observation.names[1:]])},
            "observation names",
        ),
        (lambda start: {"action": msgspec.structs.replace(start.spec.action, scale=[1.0] * 5)}, r"action scale \(1, 1"),
        (lambda start: {"action": msgspec.structs.replace(start.spec.action, frame="tool")}, r"action frame tool; .* has base"),
        (lambda start: {"action": msgspec.structs.replace(start.spec.action, units=["rad"] * 5)}, r"action units \(rad, "),
        (lambda start: {}, r"pictures none; .* has \{'wrist': \(16, 16, 3\)\}"),
    ],
)
def test_an_episode_that_does_not_fit_its_task_is_refused_naming_both(recorded, workspace, other, new_stream, change, said):
    import_own(other, workspace.path)
    third = Workspace(other.path.with_name("third")).prepare()
    records = new_stream("s7", seed=5).episode()
    path, _, _ = write_episode(third, gather(other_spec(records, **change(records[0]))))
    with pytest.raises(ExchangeError, match=rf"s7-ep0000\.hdf5, episode s7-ep0000: {said}.*import into another workspace"):
        import_own(other, path)
    with Catalog.open(other) as catalog:
        assert len(catalog.episodes()) == 5
    assert not list(other.episodes.rglob("s7*"))
    elsewhere = other_spec(records, **change(records[0]), task_id="pour")
    path, _, _ = write_episode(third, gather(elsewhere))
    assert import_own(other, path).made == 1  # another task may be otherwise
