"""MCAP files for Foxglove and Rerun, and tables of metrics."""

import csv

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from mcap.reader import make_reader

from takeover.data.episode_file import EpisodeReader
from takeover.data.episode_read import read_records
from takeover.data.exchange.errors import Cancelled, ExchangeError
from takeover.data.exchange.mcap_export import export_mcap, number_message
from takeover.data.exchange.selection import Selection
from takeover.data.exchange.tables import export_tables
from takeover.data.labels import Labels
from takeover.data.recorder import Recorder
from takeover.data.schema import Event
from takeover.data.selection import EpisodeFilter


def messages(path):
    """Every message, decoded with Google's own library by nothing but the schema in the file."""
    pools = {}
    with path.open("rb") as stream:
        for schema, channel, message in make_reader(stream).iter_messages():
            if schema.name not in pools:
                pool = pools[schema.name] = descriptor_pool.DescriptorPool()
                for file in descriptor_pb2.FileDescriptorSet.FromString(schema.data).file:
                    pool.Add(file)
            kind = message_factory.GetMessageClass(pools[schema.name].FindMessageTypeByName(schema.name))
            yield channel.topic, schema.name, message.log_time, kind.FromString(message.data)


def test_every_number_and_picture_is_in_the_mcap_file(recorded, workspace, tmp_path):
    result = export_mcap(workspace, tmp_path / "out", Selection(ids=("ep0001",)))
    assert (result.episodes, result.frames) == (1, 44)
    found = list(messages(tmp_path / "out/s1-ep0001.mcap"))
    start, steps, _ = read_records(workspace.path / recorded[1].path)
    assert [time for _, _, time, _ in found] == sorted(time for _, _, time, _ in found)
    actions = [(time, value) for topic, _, time, value in found if topic == "/action"]
    assert [value.timestamp.ToNanoseconds() for _, value in actions] == [time for time, _ in actions]
    assert [time for time, _ in actions] == [step.wall_ns for step in steps]
    assert [[getattr(value, name) for name in start.spec.action.names] for _, value in actions] == [step.action for step in steps]
    observed = [[getattr(value, name) for name in start.spec.observation.names] for topic, _, _, value in found if topic == "/observation"]
    assert observed == [step.observation for step in steps]
    assert sum(topic == "/human_action" for topic, *_ in found) == sum(step.human_action is not None for step in steps)
    assert [value.held for topic, _, _, value in found if topic == "/step"] == [int(bool(step.hold_reason)) for step in steps]
    pictures = [(schema, value) for topic, schema, _, value in found if topic == "/camera/front"]
    assert {schema for schema, _ in pictures} == {"foxglove.CompressedImage"}
    with EpisodeReader(workspace.path / recorded[1].path) as reader:
        assert [value.data for _, value in pictures] == [reader.frame("front", i) for i in range(40)]
    texts = [value.message for topic, schema, _, value in found if topic == "/events" and schema == "foxglove.Log"]
    assert "mark schön" in texts
    assert "success (task)" in texts


def test_names_become_fields_of_their_own():
    names = ["robot0.eef pos", "robot0_eef_pos", "2nd", "timestamp"]
    kind = number_message("X", names)
    assert [field.name for field in kind.fields] == ["timestamp", "robot0_eef_pos", "robot0_eef_pos_3", "f_2nd", "timestamp_5"]
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(kind.descriptor_set()).file:
        pool.Add(file)
    found = message_factory.GetMessageClass(pool.FindMessageTypeByName("takeover.X")).FromString(kind.encode((-5, 1.5, -2.0, 3.0, 4.0)))
    assert (found.timestamp.ToNanoseconds(), found.robot0_eef_pos, found.robot0_eef_pos_3) == (-5, 1.5, -2.0)


def test_mcap_files_have_an_index_and_say_whose_they_are(recorded, workspace, tmp_path):
    export_mcap(workspace, tmp_path / "out", Selection(ids=("ep0002",), people=False))
    with (tmp_path / "out/s1-ep0002.mcap").open("rb") as stream:
        reader = make_reader(stream)
        summary = reader.get_summary()
        assert summary.statistics.message_count == len(list(messages(tmp_path / "out/s1-ep0002.mcap")))
        assert {channel.message_encoding for channel in summary.channels.values()} == {"protobuf"}
        (noted,) = list(reader.iter_metadata())
    assert (noted.metadata["outcome"], noted.metadata["operator"]) == ("failure", "anonymous")


def test_mcap_export_goes_on_after_a_stop(recorded, workspace, tmp_path):
    def stop(done, total):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        export_mcap(workspace, tmp_path / "out", progress=stop)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out.partial").glob("*.mcap")}
    assert len(before) == 2
    assert export_mcap(workspace, tmp_path / "out").resumed == 2
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert len(after) == 4
    assert before.items() <= after.items()


def test_tables_have_a_row_per_episode_and_per_segment(recorded, workspace, tmp_path):
    labels = Labels(workspace)
    labels.add_label("s1-ep0001:t0", "cause", "force", "op-02")
    labels.add_label("s1-ep0001:t0", "note", "=1+1", "op-02")
    labels.close()
    export_tables(workspace, tmp_path / "parquet", Selection(include_excluded=True))
    episodes = pq.read_table(tmp_path / "parquet/episodes.parquet").to_pylist()
    assert [row["id"] for row in episodes] == [row.id for row in recorded]
    for row, entry in zip(episodes, recorded, strict=True):
        _, steps, _ = read_records(workspace.path / entry.path)
        driven = [step for step in steps if not step.hold_reason]
        assert row["reward_sum"] == sum(step.reward for step in driven)
        assert row["human_share"] == sum(step.human_action is not None for step in driven) / len(driven)
        assert row["safety_steps"] == sum(step.safety_bits != 0 for step in driven)
        assert row["excluded"] == entry.excluded
    segments = pq.read_table(tmp_path / "parquet/segments.parquet").to_pylist()
    assert {row["id"]: row["label_cause"] for row in segments}["s1-ep0001:t0"] == "force"
    export_tables(workspace, tmp_path / "csv", Selection(include_excluded=True), "csv")
    with (tmp_path / "csv/segments.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [row["id"] for row in segments]
    assert {row["id"]: row["label_note"] for row in rows}["s1-ep0001:t0"] == "'=1+1"  # a spreadsheet must not calculate it
    with (tmp_path / "csv/episodes.csv").open(newline="") as stream:
        assert [int(row["steps"]) for row in csv.DictReader(stream)] == [row["steps"] for row in episodes]


def test_tables_without_segments_have_their_columns(recorded, workspace, tmp_path):
    export_tables(workspace, tmp_path / "out", Selection(ids=("ep0000",)), "csv")
    assert (tmp_path / "out/segments.csv").read_text().startswith("id,episode_id,session_id")


def test_a_selection_that_fits_nothing_is_said(recorded, workspace, tmp_path):
    with pytest.raises(ExchangeError, match="no episode fits the selection"):
        export_tables(workspace, tmp_path / "out", Selection(EpisodeFilter(task="juggle")))
    (workspace.path / recorded[0].path).unlink()
    with pytest.raises(ExchangeError, match="the file of episode s1-ep0000 is gone"):
        export_mcap(workspace, tmp_path / "out")
    assert not np.any([path.name.startswith("out") for path in tmp_path.iterdir()])


@pytest.mark.parametrize("people", [True, False])
def test_who_drove_is_left_out_with_the_people(workspace, stream, tmp_path, people):
    """Also where it is somebody else than the episode's operator, and in the events that name them."""
    recorder = Recorder(workspace)
    texts = {"driver": "op-09 2026-05", "lease": "granted to console-op-09, person op-09"}
    for kind, text in texts.items():
        for record in stream.episode():
            named = {"kind": kind, "source": "bridge", "text": text, "seq": -1}
            recorder.accept(msgspec.structs.replace(record, **named) if isinstance(record, Event) else record)
        recorder.sync()
    recorder.close()
    export_tables(workspace, tmp_path / "tables", Selection(people=people))
    operators = [row["operator"] for row in pq.read_table(tmp_path / "tables/segments.parquet").to_pylist()]
    assert operators == (["op-09", "op-01"] if people else ["anonymous"] * 2)
    export_mcap(workspace, tmp_path / "mcap", Selection(people=people))
    said = [str(made) for path in sorted((tmp_path / "mcap").glob("*.mcap")) for topic, _, _, made in messages(path) if topic == "/events"]
    assert sum("op-09" in line for line in said) == (2 if people else 0)
    assert sum("driver" in line or "lease" in line for line in said) == 2, "that somebody did is kept"
