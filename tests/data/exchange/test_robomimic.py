"""robomimic files: read by robomimic itself, back to us bit for bit, and what is refused."""

import json

import h5py
import numpy as np
import pytest
from robomimic.utils.dataset import SequenceDataset

from takeover.data.catalog import Catalog
from takeover.data.episode_file import verify_file
from takeover.data.episode_read import read_records
from takeover.data.exchange.errors import Cancelled, ExchangeError
from takeover.data.exchange.foreign import ImportOptions
from takeover.data.exchange.robomimic_export import GuardedFile, RobomimicOptions, export_robomimic
from takeover.data.exchange.robomimic_import import import_robomimic
from takeover.data.exchange.selection import Selection
from takeover.data.labels import Labels
from takeover.data.schema import EpisodeKind
from takeover.data.workspace import Workspace


@pytest.fixture
def other(tmp_path) -> Workspace:
    return Workspace(tmp_path / "other").prepare()


def sequences(path, mask=None, keys=("state",)):
    return SequenceDataset(
        hdf5_path=str(path), obs_keys=keys, dataset_keys=("actions", "rewards", "dones", "intv_labels"), seq_length=1,
        filter_by_attribute=mask, hdf5_use_swmr=True, hdf5_cache_mode=None, load_next_obs=True,
    )  # fmt: skip


def test_robomimic_reads_every_step(recorded, workspace, tmp_path):
    result = export_robomimic(workspace, tmp_path / "all.hdf5")
    assert (result.episodes, result.frames) == (6, 110)
    (tmp_path / "all.hdf5").rename(tmp_path / "elsewhere.hdf5")  # self-contained: nothing of it is in the workspace
    (workspace.path / recorded[0].path).unlink()
    everything = sequences(tmp_path / "elsewhere.hdf5")
    assert len(everything) == 110
    position = 0
    for row in recorded[1:4]:
        _, steps, _ = read_records(workspace.path / row.path)
        for step in (step for step in steps if not step.hold_reason):
            item = everything[20 + position]
            np.testing.assert_array_equal(item["obs"]["state"][0], np.array(step.observation))
            np.testing.assert_array_equal(item["next_obs"]["state"][0], np.array(step.next_observation))
            np.testing.assert_array_equal(item["actions"][0], np.array(step.action, np.float32))
            assert item["rewards"][0] == step.reward
            assert item["dones"][0] == (step.terminated or step.truncated)
            position += 1
    everything.close_and_delete_hdf5_handle()
    assert sequences(tmp_path / "elsewhere.hdf5", "success").n_demos == 3
    assert sequences(tmp_path / "elsewhere.hdf5", "failure").n_demos == 1
    assert not list(tmp_path.glob("*.partial*"))


def test_it_comes_back_bit_for_bit_with_its_labels(recorded, workspace, other, tmp_path):
    labels = Labels(workspace)
    labels.add_label("s1-ep0003", "quality", "good", "op-03")
    labels.close()
    export_robomimic(workspace, tmp_path / "all.hdf5", options=RobomimicOptions(join_runs=True))
    assert import_robomimic(other, tmp_path / "all.hdf5").made == 4
    assert import_robomimic(other, tmp_path / "all.hdf5").present == 4
    with Catalog.open(other) as catalog:
        rows = catalog.episodes()
        assert catalog.labels(["s1-ep0003"]) == {"s1-ep0003": {"quality": "good"}}
    assert [row.id for row in rows] == [row.id for row in recorded[:4]]
    same = (
        "observation", "next_observation", "action", "asked_action", "policy_action", "human_action", "source", "reward", "terminated",
        "truncated", "control_mode", "intervention_id", "seq", "run_id", "t_observation_ns", "wall_ns", "images", "sim_state",
    )  # fmt: skip
    for row, old in zip(rows, recorded[:4], strict=True):
        assert verify_file(other.path / row.path) == []
        assert (row.outcome, row.human_steps, row.takeovers, row.steps) == (old.outcome, old.human_steps, old.takeovers, old.steps)
        _, came, end = read_records(other.path / row.path, images=True)
        _, went, was = read_records(workspace.path / old.path, images=True)
        for one, two in zip(came, (step for step in went if not step.hold_reason), strict=True):
            for name in same:
                assert getattr(one, name) == getattr(two, name), (row.id, one.seq, name)
        assert (end.outcome, end.event_step) == (was.outcome, was.event_step)


def test_an_interrupted_export_goes_on(recorded, workspace, tmp_path):
    def stop(done, total):
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        export_robomimic(workspace, tmp_path / "all.hdf5", progress=stop)
    assert not (tmp_path / "all.hdf5").exists()
    assert export_robomimic(workspace, tmp_path / "all.hdf5").resumed == 3
    assert len(sequences(tmp_path / "all.hdf5")) == 110


def test_a_full_disk_is_an_error_and_no_crash(recorded, workspace, tmp_path, monkeypatch):
    written = 0

    def full(self, data):
        nonlocal written
        written += len(memoryview(data).cast("B"))
        return real(self, data) if written < 20_000 else fails(self, data)

    class Broken:
        def __init__(self, raw):
            self.raw = raw

        def __getattr__(self, name):
            return getattr(self.raw, name)

        def write(self, data):
            raise OSError(28, "No space left on device")

    def fails(self, data):
        self._raw = Broken(self._raw)
        return real(self, data)

    real = GuardedFile.write
    monkeypatch.setattr(GuardedFile, "write", full)
    with pytest.raises(OSError, match="No space left"):
        export_robomimic(workspace, tmp_path / "all.hdf5")
    assert not (tmp_path / "all.hdf5").exists()
    monkeypatch.undo()
    assert export_robomimic(workspace, tmp_path / "all.hdf5").resumed == 4


# --- somebody else's file ---


@pytest.fixture
def foreign(tmp_path):
    """Two demos as robomimic's own converters write them."""
    path = tmp_path / "ph.hdf5"
    rng = np.random.default_rng(1)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = 50
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}})
        for number, n in enumerate((20, 30)):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = n
            demo["actions"] = rng.uniform(-1, 1, (n, 7))
            demo["rewards"] = np.eye(n)[-1]
            demo["dones"] = np.eye(n, dtype=np.int64)[-1]
            demo["states"] = rng.normal(size=(n, 32))
            for group in ("obs", "next_obs"):
                demo[f"{group}/robot0_eef_pos"] = rng.normal(size=(n, 3))
                demo[f"{group}/robot0_gripper_qpos"] = rng.normal(size=(n, 2))
                demo.create_dataset(f"{group}/agentview_image", data=rng.integers(0, 256, (n, 84, 84, 3), np.uint8), compression="gzip")
    return path


def test_a_foreign_file_becomes_demonstrations(foreign, other):
    assert import_robomimic(other, foreign).made == 2
    with Catalog.open(other) as catalog:
        rows = catalog.episodes()
    assert [(row.id, row.kind, row.steps, row.outcome, row.control_hz) for row in rows] == [
        ("ph-000000", "demonstration", 20, "success", 20.0),
        ("ph-000001", "demonstration", 30, "success", 20.0),
    ]
    start, steps, _ = read_records(other.path / rows[1].path, images=True)
    assert start.spec.observation.names == [*(f"robot0_eef_pos.{i}" for i in range(3)), *(f"robot0_gripper_qpos.{i}" for i in range(2))]
    with h5py.File(foreign) as file:
        demo = file["data/demo_1"]
        np.testing.assert_array_equal([step.action for step in steps], demo["actions"][:])
        np.testing.assert_array_equal([step.observation[:3] for step in steps], demo["obs/robot0_eef_pos"][:])
        assert steps[4].images[0].data == demo["obs/agentview_image"][4].tobytes()
    assert (steps[-1].terminated, steps[-1].truncated) == (True, False)
    assert verify_file(other.path / rows[1].path) == []


def change_link(file):
    del file["data/demo_1"]
    file["data/demo_1"] = h5py.ExternalLink("/etc/passwd", "/x")


def change_soft(file):
    file["data/demo_1/obs/extra"] = h5py.SoftLink("/data/demo_0/actions")


def change_filter(file):
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((5,))
    creation.set_filter(4242 + 30000, h5py.h5z.FLAG_OPTIONAL, (1,))
    h5py.h5d.create(file["data/demo_1/obs"].id, b"blosc", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((30,)), creation)


def change_virtual(file):
    layout = h5py.VirtualLayout(shape=(30,), dtype="f8")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", shape=(30,))
    file["data/demo_1/obs"].create_virtual_dataset("v", layout)


def change_storage(file):
    file["data/demo_1/obs"].create_dataset("raw", (30,), "f8", external=[("/etc/passwd", 0, 240)])


def replace(key, value):
    def change(file):
        del file[key]
        if value is not None:
            file[key] = value

    return change


def attribute(key, name, value):
    def change(file):
        file[key].attrs[name] = value

    return change


def change_action(file):
    file["data/demo_1/actions"][17, 2] = np.nan


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_link, r"ph\.hdf5, /data/demo_1: a link to another file \(/etc/passwd\)"),
        (change_soft, "/data/demo_1/obs/extra: a soft link"),
        (change_filter, "/data/demo_1/obs/blosc: stored with the unknown filter 34242"),
        (change_virtual, "/data/demo_1/obs/v: a virtual dataset"),
        (change_storage, "/data/demo_1/obs/raw: its data are in another file"),
        (replace("data/demo_1/actions", None), "/data/demo_1/actions: missing"),
        (replace("data/demo_1/actions", np.zeros(30)), r"/data/demo_1/actions: \(30,\)"),
        (replace("data/demo_1/actions", np.full((30, 7), 3.0)), "demo_1: action is 3 at step 0.*--scale"),
        (replace("data/demo_1/obs", None), "/data/demo_1/obs is missing"),
        (replace("data/demo_1/obs/robot0_eef_pos", np.zeros((29, 3))), r"obs/robot0_eef_pos: shape \(29, 3\)"),
        (replace("data/demo_1/next_obs/robot0_eef_pos", None), "next_obs/robot0_eef_pos is missing"),
        (replace("data/demo_1/rewards", np.zeros((30, 2))), "/data/demo_1/rewards: shape"),
        (change_action, "demo_1: action is not finite at step 17"),
        (attribute("data/demo_1", "num_samples", 31), "num_samples is 31, actions has 30"),
        (attribute("data/demo_1", "control_hz", 10.0), r"mixed control rates: 20 Hz \(env_args\), 10 Hz \(demo_1\)"),
        (attribute("data", "env_args", "{"), "env_args is no JSON"),
        (attribute("data", "env_args", "{}"), "does not say its control rate"),
        (lambda file: file.move("data/demo_1", "data/demo_01"), "/data/demo_01: demos are groups called demo_<number>"),
        (lambda file: file.move("data", "date"), "no group /data"),
    ],
)
def test_bad_files_are_refused_with_key_and_step(foreign, other, change, said):
    with h5py.File(foreign, "r+") as file:
        change(file)
    with pytest.raises(ExchangeError, match=said):
        import_robomimic(other, foreign)
    assert not list(other.episodes.rglob("*.tmp"))


def test_two_demos_of_one_id_are_refused(recorded, workspace, other, tmp_path):
    export_robomimic(workspace, tmp_path / "all.hdf5", Selection(ids=("ep0002", "ep0003")))
    with h5py.File(tmp_path / "all.hdf5", "r+") as file:
        file.copy("data/demo_0", file["data"], "demo_7")
    with pytest.raises(ExchangeError, match="demo_0 and demo_7 have the same id s1-ep0002"):
        import_robomimic(other, tmp_path / "all.hdf5")


def test_other_data_under_a_known_id_are_refused(foreign, other):
    import_robomimic(other, foreign)
    with h5py.File(foreign, "r+") as file:
        file["data/demo_0/actions"][3, 3] = 0.125
    with pytest.raises(ExchangeError, match="another episode ph-000000 already; import with another prefix"):
        import_robomimic(other, foreign)
    assert import_robomimic(other, foreign, ImportOptions(prefix="second")).made == 2


def test_large_actions_are_scaled_when_told(foreign, other):
    with h5py.File(foreign, "r+") as file:
        file["data/demo_1/actions"][:, 3] *= 50
    import_robomimic(other, foreign, ImportOptions(auto_scale=True, kind=EpisodeKind.POLICY))
    with Catalog.open(other) as catalog:
        rows = catalog.episodes()
    start, steps, _ = read_records(other.path / rows[1].path)
    with h5py.File(foreign) as file:
        np.testing.assert_allclose(
            np.array([s.action for s in steps]) * start.spec.action.scale, file["data/demo_1/actions"][:], rtol=1e-12
        )
    assert rows[1].autonomous


def test_a_file_that_is_cut_off_is_refused(foreign, other):
    data = foreign.read_bytes()
    foreign.write_bytes(data[: len(data) // 2])
    with pytest.raises(ExchangeError, match=r"ph\.hdf5: no HDF5 file that can be read"):
        import_robomimic(other, foreign)
