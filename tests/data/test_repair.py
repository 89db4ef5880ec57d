"""`takeover data repair`: everything that can go wrong with a workspace, on real files; nothing is ever deleted."""

import json
import multiprocessing
import shutil

import msgspec
import numpy as np
import pytest
from sqlalchemy import update

from takeover.app.cli import main
from takeover.data.catalog import Catalog
from takeover.data.catalog_tables import episodes, meta
from takeover.data.episode_build import build_episode
from takeover.data.episode_file import EpisodeReader, read_records, verify_file, write_episode
from takeover.data.episode_restore import read_episode, reseal
from takeover.data.episode_schema import EpisodeError, gather
from takeover.data.hdf5_image import DamagedFile
from takeover.data.index import rebuild_index
from takeover.data.journal import JournalWriter
from takeover.data.labels import Labels, read_log
from takeover.data.recorder import Recorder
from takeover.data.repair import repair
from takeover.data.schema import EpisodeStart, Step
from takeover.data.verify import verify_workspace
from takeover.data.workspace import WorkspaceError


@pytest.fixture
def recorded(workspace, stream):
    recorder = Recorder(workspace)
    for options in ({}, {"takeovers": (), "frames": True}, {"holds": (3,)}):
        for record in stream.episode(**options):
            recorder.accept(record)
        recorder.sync()
    recorder.close()
    labels = Labels(workspace)
    labels.add_label("s1-ep0000:t0", "cause", "timing", "op-02")
    labels.add_label("s1-ep0001", "note", "nice", "op-02")
    labels.close()
    with Catalog.open(workspace) as catalog:
        rebuild_index(workspace, catalog)
    return workspace


def path_of(workspace, episode_id):
    (path,) = workspace.episodes.glob(f"*/{episode_id}.hdf5")
    return path


def contents(workspace):
    """{SHA of every file's bytes}: what must still be somewhere afterwards."""
    import hashlib

    kinds = (".hdf5", ".mcap", ".jsonl", ".tmp")
    files = [path for path in workspace.path.rglob("*") if path.is_file() and path.suffix in kinds and path.name != "index.hdf5"]
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def repaired(workspace):
    before = contents(workspace)
    report = repair(workspace)
    assert before <= contents(workspace), "something was deleted"
    return report


def whole(workspace):
    with Catalog.open(workspace) as catalog:
        return verify_workspace(workspace, catalog).problems


def test_a_workspace_in_order_is_left_alone(recorded):
    report = repaired(recorded)
    assert (report.done, report.left) == ([], [])
    assert not (recorded.path / "set-aside").exists()


def test_journals_left_over_become_episodes(recorded, new_stream):
    stream = new_stream("s2", seed=3)
    whole_one, cut = stream.episode(), stream.episode(end=False)
    for records in (whole_one, cut):
        writer = JournalWriter(recorded.journal / f"{records[0].episode_id}.1.mcap")
        for record in records:
            writer.add(record)
            writer.sync()
        writer.close()
    path = recorded.journal / "s2-ep0001.1.mcap"
    path.write_bytes(path.read_bytes()[:-3000])
    (recorded.journal / "s2-ep0009.1.mcap").write_bytes(b"")
    report = repaired(recorded)
    assert report.left == []
    assert len(report.done) == 4, report.done
    assert read_records(path_of(recorded, "s2-ep0000")) == (whole_one[0], [r for r in whole_one if isinstance(r, Step)], whole_one[-1])
    with EpisodeReader(path_of(recorded, "s2-ep0001")) as reader:
        assert reader.attributes["recovered"]
        assert "ends early" in reader.attributes["history"]
    assert list(recorded.journal.glob("*.mcap")) == []
    assert whole(recorded) == []
    again = repaired(recorded)
    assert (again.done, again.left) == ([], [])


def test_a_lost_start_is_made_up_from_the_session_and_said_so(recorded, stream):
    records = stream.episode(end=False)
    folder = recorded.journal / "unreadable"
    folder.mkdir()
    writer = JournalWriter(folder / f"{records[0].episode_id}.1.mcap")
    for record in records[1:]:
        writer.add(record)
    writer.close()
    report = repaired(recorded)
    assert report.left == []
    assert "its start record was lost and is made up" in report.done[0]
    start, steps, _ = read_records(path_of(recorded, "s1-ep0003"))
    assert steps == [record for record in records if isinstance(record, Step)]
    assert (start.number, start.start_seed, start.operator) == (-1, -1, "op-01")
    with EpisodeReader(path_of(recorded, "s1-ep0003")) as reader:
        history = json.loads(reader.attributes["history"])
    assert history[0]["from"] == "s1-ep0002"
    assert whole(recorded) == []


def test_an_unknown_robot_is_not_made_up(recorded, new_stream):
    (recorded.journal / "unreadable").mkdir()
    records = new_stream("s9").episode()
    writer = JournalWriter(recorded.journal / "unreadable" / "s9-ep0000.1.mcap")
    for record in records[1:]:
        writer.add(record)
    writer.close()
    (recorded.journal / "note.mcap").write_bytes(b"x")
    writer = JournalWriter(recorded.journal / "evil.1.mcap")
    for record in records:
        writer.add(msgspec.structs.replace(record, episode_id="../../evil"))
    writer.close()
    report = repaired(recorded)
    assert report.done == []
    assert "is not named like a journal" in report.left[0]
    assert "'../../evil' is not an id" in report.left[1]
    assert "no other episode of session s9" in report.left[2]
    assert not list(recorded.path.parent.rglob("evil.hdf5"))


def test_a_chunk_lost_in_the_middle_keeps_the_rest(recorded, new_stream):
    records = new_stream("s3", seed=2).episode()
    path = recorded.journal / "s3-ep0000.1.mcap"
    writer = JournalWriter(path)
    edges = []
    for record in records:
        writer.add(record)
        writer.sync()  # a chunk each
        edges.append(path.stat().st_size)
    writer.close()
    data = bytearray(path.read_bytes())
    data[edges[20] - 40] ^= 1
    path.write_bytes(data)
    report = repaired(recorded)
    assert "39 steps of 40" in report.done[0]
    assert verify_file(path_of(recorded, "s3-ep0000")) == []
    with EpisodeReader(path_of(recorded, "s3-ep0000")) as reader:
        assert (len(reader), bool(reader.attributes["recovered"])) == (39, True)
    assert whole(recorded) == []


def test_a_step_that_contradicts_the_robot_costs_no_other(recorded, new_stream):
    records = new_stream("s3", seed=2).episode()
    odd = next(record for record in records if isinstance(record, Step) and record.episode_step == 7)
    records[records.index(odd)] = msgspec.structs.replace(odd, action=[0.5])
    writer = JournalWriter(recorded.journal / "s3-ep0000.1.mcap")
    for record in records:
        writer.add(record)
    writer.close()
    Recorder(recorded).close()  # it cannot close the episode and keeps the journal
    assert [path.name for path in (recorded.journal / "unreadable").iterdir()] == ["s3-ep0000.1.mcap"]
    report = repaired(recorded)
    assert report.left == []
    assert "39 steps of 40" in report.done[0]
    with EpisodeReader(path_of(recorded, "s3-ep0000")) as reader:
        (entry,) = json.loads(reader.attributes["history"])
        assert (entry["seq"], entry["first"]) == (str(odd.seq), "action has 1 numbers, the robot's action has 5")
    assert whole(recorded) == []


def test_a_damaged_file_with_its_journal_is_made_again_and_one_without_is_named(recorded, new_stream):
    records = new_stream("s4", seed=4).episode()
    path = write_episode(recorded, gather(records))[0]
    good = path.read_bytes()
    path.write_bytes(good[:-7])
    writer = JournalWriter(recorded.journal / "s4-ep0000.1.mcap")
    for record in records:
        writer.add(record)
    writer.close()
    lost = path_of(recorded, "s1-ep0001")
    data = bytearray(lost.read_bytes())
    data[5000] ^= 16
    lost.write_bytes(data)
    report = repaired(recorded)
    assert verify_file(path) == []
    assert read_records(path)[2] == records[-1]
    (left,) = report.left
    assert "s1-ep0001" in left
    assert "left where it is" in left
    with Catalog.open(recorded) as catalog:
        assert catalog.episode("s1-ep0001").steps == 40
        assert catalog.episode("s4-ep0000").steps == 40


def test_a_journal_with_more_than_a_whole_file_is_not_put_away(recorded, new_stream):
    records = new_stream("s5").episode()
    write_episode(recorded, gather(records[:20]))
    writer = JournalWriter(recorded.journal / "s5-ep0000.1.mcap")
    for record in records:
        writer.add(record)
    writer.close()
    report = repaired(recorded)
    assert "is whole but lacks" in report.left[0]
    assert (recorded.journal / "s5-ep0000.1.mcap").exists()


def test_rows_missing_superfluous_or_wrong_are_put_right(recorded):
    with Catalog.open(recorded) as catalog, catalog.writing() as connection:
        connection.execute(update(episodes).where(episodes.c.id == "s1-ep0000").values(steps=3, outcome="failure"))
        connection.execute(episodes.delete().where(episodes.c.id == "s1-ep0001"))
    kept = path_of(recorded, "s1-ep0002").rename(recorded.path / "kept.bin")
    report = repaired(recorded)
    assert any("wrong about steps, outcome" in line for line in report.done), report.done
    assert any("was not in the catalog; entered it" in line for line in report.done)
    assert any("took episode s1-ep0002 out of the catalog" in line for line in report.done)
    assert ["put it back from a copy" in line for line in report.left] == [True]
    with Catalog.open(recorded) as catalog:
        assert sorted(row.id for row in catalog.episodes()) == ["s1-ep0000", "s1-ep0001"]
        assert catalog.segment("s1-ep0000:t0").labels == {"cause": "timing"}
    assert kept.exists()


def test_a_catalog_that_cannot_be_used_is_made_again_with_its_policies(recorded):
    with Catalog.open(recorded) as catalog:
        catalog.add_policy(session_id="s1", version=3, sha256="ab", learner="bc", task_id="pick-lift")
        with catalog.writing() as connection:
            connection.execute(update(meta).where(meta.c.name == "version").values(value=999))
    recorded.learning_path.unlink()  # as in a workspace from before there was this log
    report = repaired(recorded)
    assert "1 policies" in report.done[0]
    with Catalog.open(recorded) as catalog:
        assert [row.version for row in catalog.policies()] == [3]
        assert len(catalog.episodes()) == 3
        assert catalog.labels(["s1-ep0001"]) == {"s1-ep0001": {"note": "nice"}}
    recorded.catalog_path.write_bytes(b"no database at all" * 100)
    report = repaired(recorded)
    assert "making a new one" in report.done[0]
    with Catalog.open(recorded) as catalog:
        assert [row.version for row in catalog.policies()] == [3]  # the first repair has written them into the log
    recorded.learning_path.unlink()
    recorded.catalog_path.write_bytes(b"no database at all" * 100)
    assert "policies, evaluations and people, which cannot be read" in repaired(recorded).done[0]
    assert whole(recorded) == []


def test_the_label_log_comes_back_from_the_catalog_and_bad_lines_are_kept(recorded):
    events = read_log(recorded.labels_path)
    recorded.labels_path.unlink()
    assert any("lacked 2 events" in line for line in repaired(recorded).done)
    assert read_log(recorded.labels_path) == events
    lines = recorded.labels_path.read_bytes().split(b"\n")
    recorded.labels_path.write_bytes(b"\n".join([b'{"id": broken', *lines]))
    report = repaired(recorded)
    assert "line 1 cannot be read" in report.done[0]
    assert read_log(recorded.labels_path) == events


def test_half_written_files(recorded, new_stream):
    episode = gather(new_stream("s6").episode())
    path = write_episode(recorded, episode)[0]
    whole_temporary = path.rename(path.with_name(path.name + ".tmp"))
    half = path.with_name("s1-ep0099.hdf5.tmp")
    half.write_bytes(whole_temporary.read_bytes()[:-10])
    report = repaired(recorded)
    assert any("written whole but not named" in line for line in report.done)
    assert any("s1-ep0099.hdf5.tmp: half-written" in line for line in report.done)
    assert verify_file(path) == []
    assert whole(recorded) == []


def test_the_same_episode_twice_is_named(recorded):
    path = path_of(recorded, "s1-ep0000")
    copy = recorded.episodes / "2020-01-01" / path.name
    copy.parent.mkdir()
    shutil.copy(path, copy)
    report = repaired(recorded)
    assert ["move one of them out of episodes/" in line for line in report.left] == [True]
    assert copy.exists()
    assert path.exists()


def test_a_running_recorder_is_not_disturbed(recorded):
    with recorded.lock("recorder"), pytest.raises(WorkspaceError, match="in use"):
        repair(recorded)


def test_index_and_repair_on_the_command_line(recorded, capsys):
    where = ["--workspace", str(recorded.path)]
    recorded.index_path.write_bytes(b"nothing")
    assert main(["data", "repair", *where, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"done": ["index.hdf5: could not be read; made it of 3 episodes"], "left": []}
    recorded.index_path.unlink()
    assert main(["data", "index", *where]) == 0
    assert "3 episodes" in capsys.readouterr().out
    path = path_of(recorded, "s1-ep0001")
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["data", "repair", *where]) == 1
    assert "s1-ep0001" in capsys.readouterr().out
    with recorded.lock("station"):
        assert main(["data", "repair", *where]) == 2


@pytest.mark.parametrize(
    "options", [{"frames": True, "holds": (1, 20)}, {"sim_state": False}, {"end": False}, {"steps": 0, "takeovers": ()}]
)
def test_a_file_made_again_is_the_same(workspace, stream, options):
    episode = gather(stream.episode(**options))
    episode.recovered = episode.end is None
    path = write_episode(workspace, episode)[0]
    again = read_episode(path)
    assert again.start == episode.start
    assert (again.steps, again.frames, again.events, again.end) == (episode.steps, episode.frames, episode.events, episode.end)
    assert len(build_episode(again)) == path.stat().st_size
    reseal(path, again)
    assert verify_file(path) == []
    assert read_episode(path) == again
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_what_would_not_be_the_same_is_not_put_in_place(workspace, stream):
    path = write_episode(workspace, gather(stream.episode()))[0]
    before = path.read_bytes()
    again = read_episode(path)
    again.frames.reverse()
    again.start = EpisodeStart(**{name: getattr(again.start, name) for name in again.start.__struct_fields__} | {"session": "else"})
    with pytest.raises(DamagedFile, match="left as it is"):
        reseal(path, again)
    again.steps[0] = Step(**{name: getattr(again.steps[0], name) for name in again.steps[0].__struct_fields__} | {"action": [0.0]})
    with pytest.raises(EpisodeError):
        reseal(path, again)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_killed_at_any_moment_the_next_repair_goes_on(recorded, new_stream):
    """SIGKILL in the middle of a repair, again and again: no record that was in a journal is lost."""
    fork, rng = multiprocessing.get_context("fork"), np.random.default_rng(3)
    expected = {}
    stream = new_stream("s2", seed=3)
    for _ in range(6):
        records = stream.episode(end=False)
        expected[records[0].episode_id] = [record for record in records if isinstance(record, Step)]
        writer = JournalWriter(recorded.journal / f"{records[0].episode_id}.1.mcap")
        for record in records:
            writer.add(record)
        writer.close()
    killed = 0
    for _ in range(12):
        process = fork.Process(target=repair, args=(recorded,))
        process.start()
        process.join(float(rng.uniform(0.0, 0.12)))
        process.kill()
        process.join()
        killed += process.exitcode != 0
    report = repair(recorded)
    assert killed > 0
    assert report.left == []
    for episode_id, steps in expected.items():
        assert read_records(path_of(recorded, episode_id))[1] == steps
    assert whole(recorded) == []
    assert len(list(recorded.path.rglob("s2-*.mcap"))) == 6
