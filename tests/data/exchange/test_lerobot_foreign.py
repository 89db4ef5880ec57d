"""Other people's LeRobot datasets, and damaged ones of ours: made demonstrations, or refused with file, key and step."""

import json
import shutil

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from takeover.data.catalog import Catalog
from takeover.data.episode_file import EpisodeReader, verify_file
from takeover.data.episode_read import read_records
from takeover.data.exchange.errors import Cancelled, ExchangeError
from takeover.data.exchange.foreign import ImportOptions
from takeover.data.exchange.lerobot_export import LeRobotOptions, export_lerobot
from takeover.data.exchange.lerobot_import import import_lerobot
from takeover.data.exchange.mcap_export import export_mcap
from takeover.data.exchange.pictures import encode_png
from takeover.data.exchange.robomimic_export import export_robomimic
from takeover.data.exchange.selection import Selection
from takeover.data.exchange.statistics import combine, numeric_statistics
from takeover.data.exchange.tables import export_tables
from takeover.data.hdf5_image import DamagedFile
from takeover.data.schema import EpisodeKind
from takeover.data.workspace import Workspace

DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture
def other(tmp_path) -> Workspace:
    return Workspace(tmp_path / "other").prepare()


@pytest.fixture
def foreign(tmp_path):
    """Two episodes of an arm whose actions are angles in degrees, written without our code: plain lists, an index called task."""
    root, lengths, fps = tmp_path / "so100 pick", (12, 9), 30
    rng = np.random.default_rng(3)
    rows = []
    for episode, n in enumerate(lengths):
        for i in range(n):
            picture = encode_png(rng.integers(0, 256, (24, 32, 3), np.uint8))
            rows.append(
                {
                    "action": (rng.uniform(-90, 90, 6)).astype(np.float32).tolist(),
                    "observation.state": rng.normal(size=6).astype(np.float32).tolist(),
                    "observation.images.top": {"bytes": picture, "path": f"frame-{i}.png"},
                    "intervention": 4 <= i < 7,
                    "timestamp": np.float32(i / fps),
                    "frame_index": i,
                    "episode_index": episode,
                    "index": len(rows),
                    "task_index": 0,
                }
            )
    names = [f"{joint}.pos" for joint in ("pan", "lift", "elbow", "wrist", "roll", "grip")]
    features = {
        "action": {"dtype": "float32", "shape": [6], "names": names},
        "observation.state": {"dtype": "float32", "shape": [6], "names": names},
        "observation.images.top": {"dtype": "image", "shape": [24, 32, 3], "names": ["height", "width", "channels"]},
        "intervention": {"dtype": "bool", "shape": [1], "names": None},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **{name: {"dtype": "int64", "shape": [1], "names": None} for name in ("frame_index", "episode_index", "index", "task_index")},
    }
    info = {
        "codebase_version": "v3.0", "robot_type": "so100_follower", "total_episodes": 2, "total_frames": 21, "total_tasks": 1,
        "chunks_size": 1000, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": fps, "splits": {"train": "0:2"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "video_path": None, "features": features,
    }  # fmt: skip
    episodes = [
        {
            "episode_index": e, "tasks": ["Pick the red cube"], "length": n, "data/chunk_index": 0, "data/file_index": 0,
            "dataset_from_index": (0, 12)[e], "dataset_to_index": (12, 21)[e],
        }
        for e, n in enumerate(lengths)
    ]  # fmt: skip
    for path in (DATA, EPISODES):
        (root / path).parent.mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.Table.from_pylist(rows), root / DATA)
    pq.write_table(pa.Table.from_pylist(episodes), root / EPISODES)
    pq.write_table(pa.table({"task_index": [0], "task": ["Pick the red cube"]}), root / "meta/tasks.parquet")
    return root


def test_a_foreign_dataset_becomes_demonstrations(foreign, other):
    assert import_lerobot(other, foreign, ImportOptions(auto_scale=True, action_kind="joint_position")).made == 2
    with Catalog.open(other) as catalog:
        rows = catalog.episodes()
    assert [(row.id, row.kind, row.steps, row.control_hz) for row in rows] == [
        ("so100-pick-000000", "demonstration", 12, 30.0),
        ("so100-pick-000001", "demonstration", 9, 30.0),
    ]
    start, steps, end = read_records(other.path / rows[1].path, images=True)
    table = pq.read_table(foreign / DATA).slice(12).to_pylist()
    assert start.spec.action.names == ["pan.pos", "lift.pos", "elbow.pos", "wrist.pos", "roll.pos", "grip.pos"]
    assert (start.spec.prompt, start.spec.task_id, start.spec.robot_id) == ("Pick the red cube", "Pick-the-red-cube", "so100_follower")
    restored = np.array([step.action for step in steps]) * start.spec.action.scale
    np.testing.assert_allclose(restored, [row["action"] for row in table], rtol=1e-12)
    assert np.abs([step.action for step in steps]).max() <= 1
    assert [step.observation for step in steps] == [row["observation.state"] for row in table]
    assert encode_png(np.frombuffer(steps[3].images[0].data, np.uint8).reshape(24, 32, 3)) == table[3]["observation.images.top"]["bytes"]
    assert (steps[-1].terminated, steps[-1].truncated, end.outcome) == (False, True, "unknown")
    assert all(verify_file(other.path / row.path) == [] for row in rows)


def test_interventions_of_a_policys_episodes_are_kept(foreign, other):
    import_lerobot(other, foreign, ImportOptions(auto_scale=True, kind=EpisodeKind.POLICY, prefix="hil"))
    with Catalog.open(other) as catalog:
        rows, segments = catalog.episodes(), catalog.segments()
    assert [(row.id, row.takeovers, row.human_steps) for row in rows] == [("hil-000000", 1, 3), ("hil-000001", 1, 3)]
    assert {(segment.start_step, segment.end_step) for segment in segments} == {(4, 6)}
    with EpisodeReader(other.path / rows[0].path) as reader:
        assert np.isnan(reader.human_action[3]).all()
        np.testing.assert_array_equal(reader.human_action[4:7], reader.actions[4:7])


def test_an_import_goes_on_after_a_stop(foreign, other):
    def stop(done, total):
        if done == 1:
            raise Cancelled

    options = ImportOptions(auto_scale=True)
    with pytest.raises(Cancelled):
        import_lerobot(other, foreign, options, stop)
    (foreign / "meta/info.json").touch()  # a copy has another time
    result = import_lerobot(other, foreign, options)
    assert (result.made, result.present) == (1, 1)


def info(**changes):
    def change(root):
        path = root / "meta/info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def feature(name, **changes):
    def change(root):
        path = root / "meta/info.json"
        content = json.loads(path.read_text())
        content["features"].setdefault(name, {}).update(changes)
        path.write_text(json.dumps(content))

    return change


def cell(path, row, name, value):
    def change(root):
        rows = pq.read_table(root / path).to_pylist()
        rows[row][name] = value
        pq.write_table(pa.Table.from_pylist(rows), root / path)

    return change


def without(path, name):
    def change(root):
        pq.write_table(pq.read_table(root / path).drop_columns([name]), root / path)

    return change


def cut(path):
    def change(root):
        data = (root / path).read_bytes()
        (root / path).write_bytes(data[:-9])

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (info(codebase_version="v2.1"), "info.json: codebase_version is 'v2.1', v3.0 is read"),
        (info(fps=29.97), "info.json: fps is 29.97; a whole number"),
        (
            info(fps=25),
            r"file-000\.parquet, episode 0: timestamp is 0\.0333 s at step 1, 0\.0400 s at 25 frames per second: mixed control rates",
        ),
        (info(data_path="../../{chunk_index}/{file_index}"), "info.json: data_path is '../../"),
        (info(total_episodes=3), "3 episodes and 21 frames are promised, 2 and 21 are there: a half-written dataset"),
        (feature("action", shape=[7]), "action has 6 numbers at step 0, 7 are needed"),
        (feature("force", dtype="float32", shape=[3]), "column 'force' is missing"),
        (feature("a/b", dtype="float32", shape=[3]), r"features\['a/b'\]"),
        (feature("action", dtype="object"), r"features\['action'\] with dtype 'object'"),
        (cell(DATA, 15, "action", [0.0] * 5), "episode 1: action has 5 numbers at step 3, 6 are needed"),
        (cell(DATA, 15, "action", None), "episode 1: action has no value at step 3"),
        (cell(DATA, 15, "action", [0.0, float("nan"), 0, 0, 0, 0]), "episode 1: action is not finite at step 3"),
        (cell(DATA, 4, "observation.state", [float("inf")] * 6), "episode 0: observation is not finite at step 4"),
        (cell(DATA, 4, "timestamp", 0.5), "episode 0: timestamp is 0.5000 s at step 4, 0.1333 s"),
        (cell(DATA, 4, "frame_index", 5), "episode 0: frame_index is 5 at step 4, 4 is needed"),
        (cell(DATA, 4, "episode_index", 1), "episode 0: 11 rows, the episode list says 12"),
        (
            cell(DATA, 2, "observation.images.top", {"bytes": None, "path": "/etc/passwd"}),
            "no picture in the table at step 2",
        ),
        (
            cell(DATA, 2, "observation.images.top", {"bytes": b"\x89PNG not", "path": ""}),
            "images.top at step 2: no PNG or JPEG",
        ),
        (cell(EPISODES, 1, "episode_index", 0), "row 1 is episode 0; row i must be episode i, each once"),
        (cell(EPISODES, 1, "data/file_index", 7), r"file-007\.parquet is missing: a half-written dataset"),
        (cell(EPISODES, 1, "data/chunk_index", -1), "data/chunk_index is -1"),
        (without(EPISODES, "length"), "column 'length' is missing"),
        (without(DATA, "observation.state"), "column 'observation.state' is missing"),
        (cut(DATA), r"file-000\.parquet: .*half-written or damaged"),
        (cut(EPISODES), r"file-000\.parquet: .*half-written or damaged"),
        (lambda root: (root / "meta/info.json").unlink(), "info.json is missing: no LeRobotDataset v3.0, or a half-written one"),
        (lambda root: shutil.rmtree(root / "meta/episodes"), "meta/episodes has no episodes"),
    ],
)
def test_bad_datasets_are_refused_with_file_key_and_step(foreign, other, change, said):
    change(foreign)
    with pytest.raises(ExchangeError, match=said) as caught:
        import_lerobot(other, foreign, ImportOptions(scale=(100.0,) * 6))
    assert str(foreign) in str(caught.value)
    assert not list(other.episodes.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (ImportOptions(), r"action is \d.* at step 0; ours are within \[-1, 1\]: say what 1 stands for"),
        (ImportOptions(scale=(100.0,) * 5), "scale has 5 numbers"),
        (ImportOptions(scale=(0.0,) * 6), "all must be above 0"),
        (ImportOptions(scale=(100.0,) * 6, control_hz=20), "fps is 30, --control-hz says 20"),
        (ImportOptions(scale=(100.0,) * 6, operator="../x"), "'../x' is not an id"),
    ],
)
def test_wrong_options_are_refused(foreign, other, options, said):
    with pytest.raises(ExchangeError, match=said):
        import_lerobot(other, foreign, options)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("episode_id", "../../etc/cron", "'../../etc/cron' is not an id"),
        ("start", "{}", "start, end or outcome cannot be read"),
        ("outcome", "great", "start, end or outcome cannot be read"),
        ("labels", '[{"id": 3}]', "labels cannot be read"),
        ("final_state", [0.0], "final_state does not have 23 numbers"),
    ],
)
def test_a_manipulated_export_of_ours_is_refused(recorded, workspace, other, tmp_path, name, value, said):
    export_lerobot(workspace, tmp_path / "set", Selection(ids=("ep0002",)), LeRobotOptions(images="none"))
    cell(EPISODES, 0, name, value)(tmp_path / "set")
    with pytest.raises(ExchangeError, match=said):
        import_lerobot(other, tmp_path / "set")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("control_mode", 3, "control_mode cannot be 3 at step 8"), ("seq", 2, "seq cannot be 2 at step 8")],
)
def test_impossible_records_are_refused(recorded, workspace, other, tmp_path, name, value, said):
    export_lerobot(workspace, tmp_path / "set", Selection(ids=("ep0002",)), LeRobotOptions(images="none"))
    cell(DATA, 8, name, value)(tmp_path / "set")
    with pytest.raises(ExchangeError, match=said):
        import_lerobot(other, tmp_path / "set")


def test_statistics_of_parts_are_those_of_the_whole():
    values = np.random.default_rng(0).normal(size=(500, 3))
    both = combine([numeric_statistics(values[:120]), numeric_statistics(values[120:])])
    whole = numeric_statistics(values)
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(both[name], whole[name], rtol=1e-12)
    assert both["count"] == whole["count"] == [500]
    np.testing.assert_allclose(both["q50"], whole["q50"], atol=0.05)


def test_an_export_of_ours_without_our_notes_is_foreign(recorded, workspace, other, tmp_path):
    export_lerobot(workspace, tmp_path / "set", options=LeRobotOptions(images="video"))
    (tmp_path / "set/meta/takeover.json").unlink()
    import_lerobot(other, tmp_path / "set", ImportOptions(kind=EpisodeKind.POLICY, task_id="theirs"))
    with Catalog.open(other) as catalog:
        rows = catalog.episodes()
    assert [(row.id, row.steps, row.outcome) for row in rows] == [
        ("set-000000", 20, "success"),
        ("set-000001", 12, "unknown"),
        ("set-000002", 13, "unknown"),
        ("set-000003", 15, "success"),
        ("set-000004", 30, "unknown"),
        ("set-000005", 20, "success"),
    ]
    _, steps, _ = read_records(other.path / rows[4].path, images=True)
    _, originals, _ = read_records(workspace.path / recorded[2].path)
    np.testing.assert_array_equal(np.array([s.action for s in steps], np.float32), np.array([s.action for s in originals], np.float32))
    assert {(image.camera, image.height, image.width) for step in steps for image in step.images} == {("front", 48, 64)}
    for change, said in (
        (lambda path: path.write_bytes(path.read_bytes()[:-2000]), "cannot be read"),
        (lambda path: path.unlink(), "cannot be read"),
    ):
        change(next((tmp_path / "set").rglob("*.mp4")))
        with pytest.raises(ExchangeError, match=rf"file-000\.mp4: {said}"):
            import_lerobot(other, tmp_path / "set", ImportOptions(prefix="again", task_id="again"))


def test_a_video_that_lacks_frames_is_refused(recorded, workspace, other, tmp_path):
    export_lerobot(workspace, tmp_path / "set", Selection(ids=("ep0000", "ep0003")), LeRobotOptions(images="video"))
    export_lerobot(workspace, tmp_path / "short", Selection(ids=("ep0000",)), LeRobotOptions(images="video"))
    shutil.copy(next((tmp_path / "short").rglob("*.mp4")), next((tmp_path / "set").rglob("*.mp4")))
    with pytest.raises(ExchangeError, match=r"no frame at 1.0000 s, step 0 of episode 1; the video is not whole"):
        import_lerobot(other, tmp_path / "set")


def test_episodes_of_one_task_must_be_alike(foreign, recorded, workspace, other, tmp_path):
    import_lerobot(other, foreign, ImportOptions(auto_scale=True, task_id="pick-lift"))
    export_lerobot(workspace, tmp_path / "set", options=LeRobotOptions(images="none"))
    with pytest.raises(ExchangeError, match=r"control_hz 20; episode so100-pick-000001 of task 'pick-lift' in the workspace has 30"):
        import_lerobot(other, tmp_path / "set")
    with pytest.raises(ExchangeError, match=r"action scale .* import under another task's name"):
        import_lerobot(other, foreign, ImportOptions(scale=(100.0,) * 6, task_id="pick-lift", prefix="b"))


def test_an_import_makes_the_index_anew_unless_a_recorder_will(foreign, other):
    with other.lock("recorder"):
        import_lerobot(other, foreign, ImportOptions(auto_scale=True))
    assert not other.index_path.exists()
    import_lerobot(other, foreign, ImportOptions(auto_scale=True))
    with h5py.File(other.index_path) as file:
        assert file["data"].attrs["total"] == 21


def test_a_changed_bit_is_found_before_anything_of_the_episode_is_written(recorded, workspace, tmp_path):
    path = workspace.path / recorded[2].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for export in (export_lerobot, export_robomimic, export_mcap, export_tables):
        with pytest.raises(DamagedFile, match=r"s1-ep0002\.hdf5"):
            export(workspace, tmp_path / export.__name__)
        assert not (tmp_path / export.__name__).exists()
