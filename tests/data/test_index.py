"""index.hdf5 opens in robomimic 0.3.0's own SequenceDataset and means what it says."""

import h5py
import numpy as np
import pytest
from robomimic.utils.dataset import SequenceDataset

from takeover.data.catalog import Catalog
from takeover.data.index import rebuild_index
from takeover.data.index_parts import parts_of
from takeover.data.labels import Labels
from takeover.data.recorder import Recorder
from takeover.data.schema import EpisodeKind, Outcome, Step


@pytest.fixture
def recorded(workspace, stream):
    """Five episodes: demonstration, success with a hold, failure, autonomous success, a discarded demonstration."""
    episodes = [
        stream.episode(kind=EpisodeKind.DEMONSTRATION, takeovers=((0, 40),)),
        stream.episode(holds=(12, 25), frames=True),
        stream.episode(outcome=Outcome.FAILURE, steps=30),
        stream.episode(takeovers=()),
        stream.episode(kind=EpisodeKind.DEMONSTRATION, takeovers=((0, 40),), discarded=True),
    ]
    recorder = Recorder(workspace)
    for records in episodes:
        for record in records:
            recorder.accept(record)
    recorder.sync()
    recorder.close()
    return workspace, [[record for record in records if isinstance(record, Step)] for records in episodes]


def dataset(workspace, mask=None, seq_length=1):
    keys = ("actions", "rewards", "dones", "action_modes", "intv_labels")
    return SequenceDataset(
        hdf5_path=str(workspace.index_path),
        obs_keys=("state",),
        dataset_keys=keys,
        seq_length=seq_length,
        filter_by_attribute=mask,
        hdf5_use_swmr=True,
        hdf5_cache_mode=None,
        load_next_obs=True,
    )


def test_robomimic_reads_every_step_as_it_was_recorded(recorded):
    workspace, episodes = recorded
    everything = dataset(workspace)
    driven = [[step for step in steps if step.hold_reason == ""] for steps in episodes]
    assert everything.n_demos == 5
    assert len(everything) == sum(len(steps) for steps in driven)
    with h5py.File(workspace.index_path) as file:
        assert file["data"].attrs["total"] == len(everything)
    position = 0
    for steps in driven:
        for step in steps:
            item = everything[position]
            np.testing.assert_array_equal(item["obs"]["state"][0], np.array(step.observation))
            np.testing.assert_array_equal(item["next_obs"]["state"][0], np.array(step.next_observation))
            np.testing.assert_array_equal(item["actions"][0], np.array(step.action, np.float32))
            assert item["rewards"][0] == step.reward
            assert item["dones"][0] == (step.terminated or step.truncated)
            position += 1
    everything.close_and_delete_hdf5_handle()


def test_masks_name_the_right_episodes(recorded):
    workspace, _ = recorded
    labels = Labels(workspace)
    segment = next(row for row in labels.catalog.segments() if row.kind == "failure")
    labels.add_label(segment.id, "cause", "timing", "op-02")
    labels.add_label(labels.catalog.episodes()[3].id, "exclude", True, "op-02")
    rebuild_index(workspace, labels.catalog)
    with h5py.File(workspace.index_path) as file:
        masks = {name: {value.decode() for value in file["mask"][name][:]} for name in file["mask"]}
        assert file["mask/success"].dtype.kind == "S"
    assert masks["success"] == {"demo_0", "demo_1"}
    assert masks["failure"] == masks["reviewed"] == {"demo_2"}
    assert masks["excluded"] == {"demo_3", "demo_4"}
    assert masks["has_intervention"] == {"demo_1", "demo_2"}
    assert masks["round_3"] == masks["train"] | masks["valid"] == {"demo_0", "demo_1", "demo_2"}
    assert masks["train"] & masks["valid"] == set()
    assert dataset(workspace, "success").n_demos == 2
    labels.close()


def test_sirius_labels_and_views_are_right(recorded):
    workspace, episodes = recorded
    with h5py.File(workspace.index_path) as file:
        demo = file["data/demo_1"]
        modes, labels = demo["action_modes"][:], demo["intv_labels"][:]
        assert modes.tolist() == [1 if 10 <= i < 20 else 0 for i in range(40)]
        assert labels.tolist() == [-10] * 10 + [1] * 10 + [0] * 20  # 0.75 s at 20 Hz is 15 steps; only 10 are there
        assert set(file["data/demo_0/action_modes"][:]) == {-1}
        assert demo["obs/state"].is_virtual
        assert demo["next_obs/state"].is_virtual
        frames, held = demo["hil/frames/state"].shape[0], demo["hil/held/seq"].shape[0]
        assert held == 4
        # three runs and two holds: each has one observation more than it has steps
        assert frames == 40 + 4 + 5
    assert sum(step.hold_reason != "" for step in episodes[1]) == 4


def test_an_empty_workspace_has_an_index_too(workspace):
    with Catalog.open(workspace) as catalog:
        assert rebuild_index(workspace, catalog) == 0
    with h5py.File(workspace.index_path) as file:
        assert list(file["data"]) == []


def test_what_labels_trim_off_is_not_in_the_index(recorded):
    workspace, episodes = recorded
    labels = Labels(workspace)
    labels.add_label("s1-ep0001", "trim", "2-37", "op-02")  # the success, with holds and a takeover in 10 to 19
    labels.add_label("s1-ep0001:t0", "trim", "12-15", "op-02")
    labels.add_label("s1-ep0002:t0", "exclude", True, "op-02")  # the failure: its end stays
    labels.add_label("s1-ep0003", "trim", "10-19", "op-02")
    assert rebuild_index(workspace, labels.catalog) == 5
    parts = {1: [(2, 9), (12, 15), (20, 37)], 2: [(0, 9), (20, 29)], 3: [(10, 19)]}
    kept = [(0, (0, 39)), *[(index, part) for index, some in parts.items() for part in some], (4, (0, 39))]
    everything = dataset(workspace)
    assert (everything.n_demos, len(everything)) == (8, 40 + 30 + 20 + 10 + 40)
    driven = [[step for step in steps if step.hold_reason == ""] for steps in episodes]
    wanted = [driven[index][step] for index, (first, last) in kept for step in range(first, last + 1)]
    for position, step in enumerate(wanted):
        item = everything[position]
        np.testing.assert_array_equal(item["obs"]["state"][0], np.array(step.observation))
        np.testing.assert_array_equal(item["next_obs"]["state"][0], np.array(step.next_observation))
        np.testing.assert_array_equal(item["actions"][0], np.array(step.action, np.float32))
        assert item["dones"][0] == (step.terminated or step.truncated)
    everything.close_and_delete_hdf5_handle()
    with h5py.File(workspace.index_path) as file:
        masks = {name: {value.decode() for value in file["mask"][name][:]} for name in file["mask"]}
        assert [int(file[f"data/demo_{n}"].attrs["first_step"]) for n in range(1, 7)] == [2, 12, 20, 0, 20, 10]
        assert file["data/demo_2/hil/seq"][:].tolist() == [step.seq for step in driven[1][12:16]]
        assert file["data"].attrs["total"] == 140
    assert masks["success"] == {"demo_0"}
    assert masks["failure"] == {"demo_5"}
    assert masks["excluded"] == {"demo_7"}
    labels.undo("op-02")  # the whole episode is back
    rebuild_index(workspace, labels.catalog)
    labels.close()
    with h5py.File(workspace.index_path) as file:
        assert isinstance(file["data"].get("demo_6", getlink=True), h5py.ExternalLink)


def test_an_episode_of_which_nothing_is_left_or_that_is_damaged_is_excluded(recorded):
    workspace, _ = recorded
    labels = Labels(workspace)
    labels.add_label("s1-ep0001:t0", "exclude", True, "op-02")
    labels.add_label("s1-ep0001", "trim", "10-19", "op-02")
    labels.add_label("s1-ep0003", "trim", "0-9", "op-02")
    path = next(workspace.episodes.glob("*/s1-ep0003.hdf5"))
    path.write_bytes(path.read_bytes()[:-5])
    assert rebuild_index(workspace, labels.catalog) == 5
    labels.close()
    with h5py.File(workspace.index_path) as file:
        assert {value.decode() for value in file["mask/excluded"][:]} == {"demo_1", "demo_3", "demo_4"}
        assert {value.decode() for name in ("train", "valid") for value in file["mask"][name][:]} == {"demo_0", "demo_2"}


@pytest.mark.parametrize(
    ("left_out", "parts"),
    [
        ([], [(0, 9)]),
        ([(0, 3)], [(4, 9)]),
        ([(8, 9), (2, 4), (3, 6)], [(0, 1), (7, 7)]),
        ([(0, 9)], []),
        ([(5, 9), (0, 4)], []),
    ],
)
def test_parts_that_are_left(left_out, parts):
    assert parts_of(left_out, 10) == parts
