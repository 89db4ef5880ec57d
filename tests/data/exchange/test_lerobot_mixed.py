"""Episodes of several tasks in one LeRobot dataset, and episodes that do not fit into one."""

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from takeover.data.catalog import Catalog
from takeover.data.entry import entry_of
from takeover.data.episode_file import write_episode
from takeover.data.episode_schema import gather
from takeover.data.exchange.errors import ExchangeError
from takeover.data.exchange.lerobot_export import LeRobotOptions, export_lerobot
from takeover.data.exchange.lerobot_import import import_lerobot
from takeover.data.exchange.pictures import encode_jpeg
from takeover.data.exchange.robomimic_export import export_robomimic
from takeover.data.schema import CameraFrame, EpisodeStart
from takeover.data.workspace import Workspace

NUMBERS = LeRobotOptions(images="none")


@pytest.fixture
def record(workspace, stream):
    """Record an episode of 10 steps with a changed spec, and pictures of a size; ``rate`` and ``scale`` are the spec's."""

    def make(size=None, rate=20.0, scale=0.012, **changes):
        records = stream.episode(steps=10, takeovers=(), frames=size is not None)
        spec = records[0].spec
        action = msgspec.structs.replace(spec.action, scale=[scale, *spec.action.scale[1:]])
        spec = msgspec.structs.replace(spec, action=action, control_hz=rate, **changes)
        for index, item in enumerate(records):
            if isinstance(item, EpisodeStart):
                records[index] = msgspec.structs.replace(item, spec=spec)
            elif isinstance(item, CameraFrame):
                jpeg = encode_jpeg(np.full((*size, 3), item.counter, np.uint8))
                records[index] = msgspec.structs.replace(item, jpeg=jpeg, height=size[0], width=size[1])
        episode = gather(records)
        path, sha256, size_bytes = write_episode(workspace, episode)
        entry = entry_of(episode, path.relative_to(workspace.path).as_posix(), sha256, size_bytes)
        with Catalog.open(workspace) as catalog:
            catalog.add_episode(entry.session, entry.episode, entry.segments)

    return make


def test_tasks_are_counted_by_their_prompts(record, workspace, tmp_path):
    record()
    record(task_id="stack", prompt="stack the cubes")
    record()
    record(task_id="sweep", prompt="")
    export_lerobot(workspace, tmp_path / "set", options=NUMBERS)
    tasks = pq.read_table(tmp_path / "set/meta/tasks.parquet").to_pydict()
    assert tasks == {"task_index": [0, 1, 2], "__index_level_0__": ["lift the cube", "stack the cubes", "sweep"]}
    data = pq.read_table(tmp_path / "set/data/chunk-000/file-000.parquet")
    assert data["task_index"].to_pylist() == [0] * 10 + [1] * 10 + [0] * 10 + [2] * 10
    other = Workspace(tmp_path / "other")
    import_lerobot(other, tmp_path / "set")
    with Catalog.open(other) as catalog:
        assert [row.task_id for row in catalog.episodes()] == ["pick-lift", "stack", "pick-lift", "sweep"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": 10.0}, r"s1-ep0000 and s1-ep0001 do not fit into one dataset: control_hz is 20.0 and 10.0; export them apart"),
        ({"scale": 0.02}, "do not fit into one dataset: action is different names, units or scales"),
        ({"robot_id": "ur5"}, "do not fit into one dataset: robot_id is sim and ur5"),
    ],
)
def test_episodes_that_differ_are_named(record, workspace, tmp_path, changes, said):
    record()
    record(**changes)
    with pytest.raises(ExchangeError, match=said):
        export_lerobot(workspace, tmp_path / "set", options=NUMBERS)
    if "scale" not in changes:
        with pytest.raises(ExchangeError, match="s1-ep0000 and s1-ep0001 do not fit into one file"):
            export_robomimic(workspace, tmp_path / "all.hdf5")
    assert list(tmp_path.glob("set*")) == []


def test_pictures_that_differ_are_named(record, workspace, tmp_path):
    record(size=(48, 64))
    record(size=(24, 32))
    record()
    with pytest.raises(ExchangeError, match=r"pictures of front \(64x48\) and of front \(32x24\); export them apart, or without pictures"):
        export_lerobot(workspace, tmp_path / "set")
    assert export_lerobot(workspace, tmp_path / "set", options=NUMBERS).episodes == 3


def test_odd_pictures_are_no_video(record, workspace, tmp_path):
    record(size=(47, 64))
    with pytest.raises(ExchangeError, match="camera front: pictures of 64x47: MP4 in yuv420p needs even numbers; export images instead"):
        export_lerobot(workspace, tmp_path / "set", options=LeRobotOptions(images="video"))
    assert export_lerobot(workspace, tmp_path / "set").frames == 10


def test_a_rate_that_is_no_whole_number_is_said(record, workspace, tmp_path):
    record(rate=12.5)
    with pytest.raises(ExchangeError, match=r"episode s1-ep0000: control_hz is 12.5; LeRobot wants a whole number"):
        export_lerobot(workspace, tmp_path / "set", options=NUMBERS)
    assert export_robomimic(workspace, tmp_path / "all.hdf5").frames == 10
