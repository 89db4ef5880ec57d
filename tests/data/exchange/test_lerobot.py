"""LeRobotDataset v3.0: what is written, and that it comes back equal."""

import json

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from av.video.reformatter import ColorRange

from takeover.data.catalog import Catalog
from takeover.data.episode_file import EpisodeReader, verify_file
from takeover.data.episode_read import read_records
from takeover.data.exchange.errors import Cancelled, ExchangeError
from takeover.data.exchange.lerobot_export import LeRobotOptions, export_lerobot
from takeover.data.exchange.lerobot_import import import_lerobot
from takeover.data.exchange.pictures import decode, encode_jpeg
from takeover.data.exchange.selection import Selection
from takeover.data.exchange.video import VideoTrack, read_video
from takeover.data.labels import Labels
from takeover.data.workspace import Workspace

# fmt: off
STEP_FIELDS = (
    "observation", "next_observation", "action", "asked_action", "policy_action", "human_action", "source", "reward", "terminated",
    "truncated", "control_mode", "intervention_id", "seq", "run_id", "t_observation_ns", "t_decision_ns", "t_applied_ns", "wall_ns",
    "policy_from_seq", "policy_version", "safety_bits", "spread", "command_age_ms", "images", "mode",
)
# fmt: on
EXACT = LeRobotOptions(precision="float64", pictures="policy")


def episodes_table(target):
    return pq.read_table(target / "meta/episodes/chunk-000/file-000.parquet")


def data_table(target):
    return pq.read_table(sorted((target / "data").rglob("*.parquet")))


@pytest.fixture
def other(tmp_path) -> Workspace:
    return Workspace(tmp_path / "other").prepare()


def test_runs_become_episodes_and_row_i_is_episode_i(recorded, workspace, tmp_path):
    seen = []
    result = export_lerobot(workspace, tmp_path / "set", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    info = json.loads((tmp_path / "set/meta/info.json").read_text())
    episodes = episodes_table(tmp_path / "set")
    # the discarded demonstration is left out; two holds make three runs of the second episode
    assert episodes["length"].to_pylist() == [20, 12, 13, 15, 30, 20]
    assert episodes["episode_index"].to_pylist() == list(range(6))
    assert episodes["episode_id"].to_pylist()[:4] == ["s1-ep0000", *["s1-ep0001"] * 3]
    assert (result.episodes, result.frames) == (info["total_episodes"], info["total_frames"]) == (6, 110)
    assert (info["codebase_version"], info["fps"], info["splits"]) == ("v3.0", 20, {"train": "0:6"})
    assert episodes["success"].to_pylist() == [True, False, False, True, False, True]
    data = data_table(tmp_path / "set")
    assert data.column_names == [name for name, feature in info["features"].items() if feature["dtype"] != "video"]
    assert data["index"].to_pylist() == list(range(110))
    frame = np.array(data["frame_index"].to_pylist())
    np.testing.assert_array_equal(np.array(data["timestamp"].to_pylist(), np.float32), (frame / 20).astype(np.float32))
    assert not list(tmp_path.glob("*.partial*"))


def test_numbers_are_those_of_the_files(recorded, workspace, tmp_path):
    export_lerobot(workspace, tmp_path / "set", Selection(ids=("ep0002",)), LeRobotOptions(images="none"))
    data = data_table(tmp_path / "set")
    _, steps, _ = read_records(workspace.path / recorded[2].path)
    np.testing.assert_array_equal(np.array(data["action"].to_pylist(), np.float32), np.array([s.action for s in steps], np.float32))
    assert data["intervention"].to_pylist() == [10 <= i < 20 for i in range(30)]
    assert data["human_action_valid"].to_pylist() == [s.human_action is not None for s in steps]
    assert data["policy_action_valid"].to_pylist() == [s.policy_action is not None for s in steps]
    assert data["wallclock_ns"].to_pylist() == [s.wall_ns for s in steps]
    assert data["next.done"].to_pylist() == [False] * 29 + [True]
    assert data["sample_weight"].to_pylist() == [1.0] * 30
    stats = json.loads((tmp_path / "set/meta/stats.json").read_text())
    actions = np.array([s.action for s in steps], np.float32)
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(0), atol=1e-6)
    np.testing.assert_allclose(stats["action"]["q90"], np.quantile(actions, 0.9, axis=0), atol=1e-6)
    assert stats["action"]["count"] == [30]


def test_tasks_are_an_index_of_texts_as_pandas_writes_them(recorded, workspace, tmp_path):
    export_lerobot(workspace, tmp_path / "set", Selection(ids=("ep0002",)), LeRobotOptions(images="none"))
    table = pq.read_table(tmp_path / "set/meta/tasks.parquet")
    noted = json.loads(table.schema.metadata[b"pandas"])
    assert noted["index_columns"] == ["__index_level_0__"]
    assert table.to_pydict() == {"task_index": [0], "__index_level_0__": ["lift the cube"]}


def test_an_export_with_exact_numbers_comes_back_bit_for_bit(recorded, workspace, other, tmp_path):
    export_lerobot(workspace, tmp_path / "set", Selection(ids=("ep0000", "ep0002", "ep0003")), EXACT)
    result = import_lerobot(other, tmp_path / "set")
    assert (result.made, result.present) == (3, 0)
    with Catalog.open(other) as catalog:
        rows = catalog.episodes()
    assert [row.id for row in rows] == ["s1-ep0000", "s1-ep0002", "s1-ep0003"]
    for row, old in zip(rows, (recorded[0], recorded[2], recorded[3]), strict=True):
        assert verify_file(other.path / row.path) == []
        for name in ("outcome", "kind", "steps", "human_steps", "takeovers", "autonomous", "policy_version", "operator", "started_ns"):
            assert getattr(row, name) == getattr(old, name), name
        _, came, end = read_records(other.path / row.path, images=True)
        _, went, was = read_records(workspace.path / old.path, images=True)
        for one, two in zip(came, went, strict=True):
            for name in STEP_FIELDS:
                assert getattr(one, name) == getattr(two, name), (row.id, one.seq, name)
        assert (end.outcome, end.event_step, end.outcome_source) == (was.outcome, was.event_step, was.outcome_source)


def test_single_precision_comes_back_as_single_precision(recorded, workspace, other, tmp_path):
    export_lerobot(workspace, tmp_path / "set", Selection(ids=("ep0002",)))
    import_lerobot(other, tmp_path / "set")
    with Catalog.open(other) as catalog:
        path = other.path / catalog.episodes()[0].path
    with EpisodeReader(path) as came, EpisodeReader(workspace.path / recorded[2].path) as went:
        np.testing.assert_array_equal(came.actions, went.actions.astype(np.float32))
        np.testing.assert_array_equal(came.observations, went.observations.astype(np.float32))
        taken = [went.frame_at("front", t) for t in went.column("t_observation_ns")]
        assert [came.frame("front", i) for i in range(30)] == [went.frame("front", i) for i in taken]
    # a second time around nothing changes any more
    export_lerobot(other, tmp_path / "again")
    again, first = (
        data_table(tmp_path / name).drop_columns(["picture_age_s"]) for name in ("again", "set")
    )  # taken at the observation now
    assert again == first


def test_joined_runs_keep_every_successor(recorded, workspace, other, tmp_path):
    export_lerobot(
        workspace, tmp_path / "set", Selection(ids=("ep0001",)), LeRobotOptions(images="none", precision="float64", join_runs=True)
    )
    import_lerobot(other, tmp_path / "set")
    with Catalog.open(other) as catalog:
        row = catalog.episode("s1-ep0001")
    _, came, _ = read_records(other.path / row.path)
    _, went, _ = read_records(workspace.path / recorded[1].path)
    driven = [step for step in went if not step.hold_reason]
    assert [(s.observation, s.next_observation, s.run_id) for s in came] == [(s.observation, s.next_observation, s.run_id) for s in driven]


def test_videos_have_a_frame_at_exactly_every_period(recorded, workspace, other, tmp_path):
    export_lerobot(workspace, tmp_path / "set", options=LeRobotOptions(images="video"))
    frames = list(read_video(tmp_path / "set/videos/observation.images.front/chunk-000/file-000.mp4"))
    assert [time for time, _ in frames] == pytest.approx([i / 20 for i in range(110)], abs=1e-6)
    episodes = episodes_table(tmp_path / "set")
    assert episodes["videos/observation.images.front/from_timestamp"].to_pylist()[:3] == [0.0, 1.0, 1.6]
    import_lerobot(other, tmp_path / "set")
    with Catalog.open(other) as catalog:
        row = catalog.episodes()[4]
    assert row.id == "s1-ep0002"
    _, came, _ = read_records(other.path / row.path, images=True)

    with EpisodeReader(workspace.path / recorded[2].path) as went:
        index = went.frame_at("front", int(went.column("t_observation_ns")[7]))
        original = decode(went.frame("front", index)).astype(np.float64)
    decoded = np.frombuffer(came[7].images[0].data, np.uint8).reshape(48, 64, 3).astype(np.float64)
    assert np.sqrt(np.mean((decoded - original) ** 2)) < 12  # of 255: lossy, but this picture and no other


def test_av1_is_written_too(recorded, workspace, tmp_path):
    export_lerobot(workspace, tmp_path / "set", Selection(ids=("ep0003",)), LeRobotOptions(images="video", codec="av1"))
    assert [time for time, _ in read_video(next((tmp_path / "set").rglob("*.mp4")))] == pytest.approx([i / 20 for i in range(20)], abs=1e-6)


def test_labels_travel_and_come_back(recorded, workspace, other, tmp_path):
    with_labels = Labels(workspace)
    failure = next(row for row in with_labels.catalog.segments() if row.kind == "failure")
    with_labels.add_label(failure.id, "cause", "timing", "op-02")
    with_labels.add_label(failure.id, "cause", "force", "op-02")
    with_labels.undo("op-02")
    with_labels.add_label("s1-ep0003", "quality", "good", "op-03")
    with_labels.close()
    export_lerobot(workspace, tmp_path / "set", options=LeRobotOptions(images="none"))
    rows = {row["episode_id"]: row for row in episodes_table(tmp_path / "set").to_pylist()}
    assert (rows["s1-ep0002"]["failure_cause"], rows["s1-ep0003"]["quality"]) == ("timing", "good")
    import_lerobot(other, tmp_path / "set")
    with Catalog.open(other) as catalog:
        labels = Labels(other, catalog)
        assert labels.current(failure.id) == {"cause": "timing"}
        assert [event.author for event in labels.history(failure.id)] == ["op-02"] * 3
        assert labels.current("s1-ep0003") == {"quality": "good"}


def test_people_can_be_left_out(recorded, workspace, tmp_path):
    labels = Labels(workspace)
    labels.add_label("s1-ep0003", "quality", "good", "op-03")
    labels.close()
    export_lerobot(workspace, tmp_path / "set", Selection(people=False), LeRobotOptions(images="none"))
    text = json.dumps(episodes_table(tmp_path / "set").to_pylist())
    assert "op-0" not in text
    assert "anonymous" in text


def test_excluded_steps_stay_out_or_weigh_nothing(recorded, workspace, tmp_path):
    labels = Labels(workspace)
    labels.add_label("s1-ep0002:t0", "exclude", True, "op-02")
    labels.add_label("s1-ep0003", "exclude", True, "op-02")
    labels.close()
    only = LeRobotOptions(images="none")
    export_lerobot(workspace, tmp_path / "set", Selection(ids=("ep0002", "ep0003")), only)
    episodes = episodes_table(tmp_path / "set").to_pylist()
    assert [(row["first_step"], row["last_step"]) for row in episodes] == [(0, 9), (20, 29)]
    export_lerobot(workspace, tmp_path / "all", Selection(ids=("ep0002", "ep0003"), include_excluded=True), only)
    weights = data_table(tmp_path / "all")["sample_weight"].to_pylist()
    assert weights == [1.0] * 10 + [0.0] * 10 + [1.0] * 10 + [0.0] * 20


def test_a_persons_outcome_sets_reward_and_end(recorded, workspace, tmp_path):
    labels = Labels(workspace)
    labels.add_label("s1-ep0002", "outcome", "success", "op-02")
    labels.close()
    export_lerobot(workspace, tmp_path / "set", Selection(ids=("ep0002",)), LeRobotOptions(images="none"))
    data = data_table(tmp_path / "set")
    assert data["next.reward"].to_pylist()[-1] == 1.0
    assert data["next.success"].to_pylist() == [False] * 29 + [True]
    assert not any(data["next.truncated"].to_pylist())


def test_an_interrupted_export_goes_on(recorded, workspace, tmp_path):
    def stop(done, total):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        export_lerobot(workspace, tmp_path / "set", options=EXACT, progress=stop)
    assert not (tmp_path / "set").exists()
    with pytest.raises(ExchangeError, match="unfinished export of other episodes"):
        export_lerobot(workspace, tmp_path / "set", options=LeRobotOptions(images="none"))
    with (tmp_path / "set.partial/done.jsonl").open("a") as stream:
        stream.write('{"sources": 9, "epi')  # killed in the middle of a line
    result = export_lerobot(workspace, tmp_path / "set", options=EXACT)
    assert result.resumed == 2
    export_lerobot(workspace, tmp_path / "whole", options=EXACT)
    assert data_table(tmp_path / "set") == data_table(tmp_path / "whole")
    assert json.loads((tmp_path / "set/meta/stats.json").read_text()) == json.loads((tmp_path / "whole/meta/stats.json").read_text())
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["data", "meta"]
    with pytest.raises(ExchangeError, match="exists"):
        export_lerobot(workspace, tmp_path / "set", options=EXACT)


@pytest.mark.parametrize("codec", ["h264", "av1"])
@pytest.mark.parametrize("form", ["jpeg", "pixels"])
def test_a_video_has_the_colours_of_its_pictures(tmp_path, codec, form):
    colours = [(200, 30, 40), (20, 180, 60), (30, 60, 220), (5, 5, 5), (128, 128, 128), (250, 250, 250)]
    pixels = [np.full((64, 96, 3), colour, np.uint8) for colour in colours]
    VideoTrack(tmp_path / "a.mp4", 96, 64, 20, codec).write([[encode_jpeg(p) for p in pixels] if form == "jpeg" else np.stack(pixels)])
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.pix_fmt, stream.codec_context.color_range) == ("yuv420p", ColorRange.MPEG)
    for colour, (_, came) in zip(colours, read_video(tmp_path / "a.mp4"), strict=True):
        np.testing.assert_allclose(came[32, 48], colour, atol=6)
