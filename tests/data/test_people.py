"""Pseudonyms, consent, and forgetting a person: no byte of the pseudonym is left where it is promised, every step is."""

import contextlib
import json
import multiprocessing
import re
import threading

import msgspec
import numpy as np
import pytest

from takeover.app.cli import main
from takeover.data import audit
from takeover.data import forget as forget_module
from takeover.data.catalog import Catalog
from takeover.data.episode_file import EpisodeReader, read_records
from takeover.data.episode_restore import read_episode
from takeover.data.forget import PENDING_FILE, forget
from takeover.data.index import rebuild_index
from takeover.data.journal import JournalWriter, read_journal
from takeover.data.labels import Labels, read_log
from takeover.data.people import PeopleError, Person, list_people, mentions, replaced
from takeover.data.recorder import Recorder
from takeover.data.recovery import rebuild_catalog
from takeover.data.schema import EpisodeStart, Event, Outcome, OutcomeChange, Step
from takeover.data.verify import verify_workspace
from takeover.data.workspace import WorkspaceError


def by(records, operator, consent="", note=""):
    made = []
    for record in records:
        if isinstance(record, EpisodeStart):
            record = msgspec.structs.replace(record, operator=operator, consent_version=consent)
        elif isinstance(record, Event) and note:
            record = msgspec.structs.replace(record, text=note)
        made.append(record)
    return made


@pytest.fixture
def recorded(workspace, stream):
    """Two episodes of op-07 and one of op-070 whose mark names op-07; both label; a late outcome of op-07."""
    recorder = Recorder(workspace)
    first = by(stream.episode(frames=True, holds=(12,)), "op-07", "2026-05")
    for record in first:
        recorder.accept(record)
    recorder.sync()
    change = OutcomeChange(
        session="s1",
        rec_seq=stream.next(),
        episode_id=first[0].episode_id,
        outcome=Outcome.FAILURE,
        previous=Outcome.SUCCESS,
        author="op-07",
        event_step=3,
        wall_ns=stream.wall_ns,
    )
    for records in ([change], by(stream.episode(), "op-07", "2026-06"), by(stream.episode(), "op-070", note="op-07 was here")):
        for record in records:
            recorder.accept(record)
        recorder.sync()
    recorder.close()
    labels = Labels(workspace)
    labels.add_label("s1-ep0002:t0", "cause", "timing", "op-07")
    labels.add_label("s1-ep0001", "note", "ask op-07, not op-070", "op-070")
    labels.add_label("s1-ep0001", "note", "done", "op-070")
    labels.add_label("s1-ep0001", "quality", "good", "console-op-07")
    labels.close()
    with Catalog.open(workspace) as catalog:
        rebuild_index(workspace, catalog)
    return workspace


def bytes_of(workspace):
    paths = [*workspace.episodes.rglob("*.hdf5"), *workspace.sessions.glob("*"), workspace.labels_path, *workspace.path.glob("catalog*")]
    return {path.name: path.read_bytes() for path in paths}


def test_words_are_words():
    assert replaced("op-07, xop-07 op-070 op-07-b (op-07) console-op-07", "op-07", "f") == "f, xop-07 op-070 op-07-b (f) console-f"
    assert not mentions("a.b").search(b"axb")


def test_people_and_their_consent_are_known_and_come_back_from_the_files(recorded):
    expected = [
        Person(id="op-07", consent_version="2026-06", episodes=2, steps=80, human_steps=20, label_events=3, takeovers=2),
        Person(id="op-070", consent_version="", episodes=1, steps=40, human_steps=10, label_events=2, takeovers=1),
    ]
    with Catalog.open(recorded) as catalog:
        assert list_people(catalog) == expected
    rebuild_catalog(recorded)
    with Catalog.open(recorded) as catalog:
        assert list_people(catalog) == expected
    with EpisodeReader(next(recorded.episodes.glob("*/s1-ep0000.hdf5"))) as reader:
        assert reader.attributes["consent_version"] == "2026-05"


def test_who_drove_in_the_episode_of_another_is_known_and_can_be_forgotten(workspace, stream):
    """Two takeovers in an episode of op-01: before the second one the bridge noted that op-09 drives."""
    *records, end = stream.episode(takeovers=((10, 20), (25, 30)))
    seq = next(record.seq for record in records if isinstance(record, Step) and record.intervention_id == 1)
    (mark,) = (record for record in records if isinstance(record, Event))
    noted = msgspec.structs.replace(mark, kind="driver", source="bridge", text="op-09 2026-05", seq=seq)
    another = msgspec.structs.replace(noted, source="local/bridge", text="op-10", rec_seq=end.rec_seq)  # not the bridge's own
    recorder = Recorder(workspace)
    for record in records:
        recorder.accept(noted if record is mark else record)
    for record in (another, msgspec.structs.replace(end, rec_seq=stream.next())):
        recorder.accept(record)
    recorder.sync()
    recorder.close()
    (path,) = workspace.episodes.rglob("*.hdf5")

    def drove():
        with EpisodeReader(path) as reader, Catalog.open(workspace) as catalog:
            found = [item["operator"] for item in reader.interventions]
            assert [catalog.segment(f"s1-ep0000:t{number}").operator for number in range(2)] == found
            return found, list_people(catalog)

    def both(name):
        common = {"label_events": 0, "takeovers": 1}
        return [
            Person(id=name, consent_version="2026-05", episodes=0, steps=0, human_steps=0, **common),
            Person(id="op-01", consent_version="", episodes=1, steps=40, human_steps=15, **common),
        ]

    assert drove() == (["op-01", "op-09"], both("op-09")[::-1])
    rebuild_catalog(workspace)
    assert drove() == (["op-01", "op-09"], both("op-09")[::-1])
    before = read_episode(path)
    report = forget(workspace, "op-09", "data")
    assert (report.finished, report.episodes) == (True, 1)
    assert drove() == (["op-01", "forgotten-1"], both("forgotten-1"))
    assert read_episode(path).steps == before.steps
    assert not any(b"op-09" in item.read_bytes() for item in (path, workspace.catalog_path))


def test_a_person_is_forgotten_and_every_step_is_kept(recorded):
    before = {path.name: read_episode(path) for path in recorded.episodes.rglob("*.hdf5")}
    assert all(re.search(rb"op-07(?![0-9])", data) for data in bytes_of(recorded).values()), "the test must be able to fail"
    report = forget(recorded, "op-07", "data")
    assert (report.name, report.finished, report.episodes, report.label_events, report.left) == ("forgotten-1", True, 3, 5, [])
    for name, data in bytes_of(recorded).items():
        assert not re.search(rb"op-07(?![0-9])", data), name
    for path in recorded.episodes.rglob("*.hdf5"):
        old, new = before[path.name], read_episode(path)
        assert (new.steps, new.frames, new.end) == (old.steps, old.frames, old.end)
        operator = "op-070" if old.start.operator == "op-070" else "forgotten-1"
        assert new.start == msgspec.structs.replace(old.start, operator=operator)
        assert [event.text for event in new.events] == [event.text.replace("op-07", "forgotten-1") for event in old.events]
        assert new.history == [{"what": "person forgotten", "name": "forgotten-1"}]
    with Catalog.open(recorded) as catalog:
        assert verify_workspace(recorded, catalog).problems == []
        assert [person.id for person in list_people(catalog)] == ["forgotten-1", "op-070"]
        assert list_people(catalog)[0].consent_version == "2026-06"
        assert catalog.segment("s1-ep0002:t0").labels == {"cause": "timing"}
        assert catalog.episode("s1-ep0000").outcome == "failure"
    notes = [event.value for event in read_log(recorded.labels_path) if event.field == "note"]
    assert notes == ["ask forgotten-1, not op-070", "done"]
    (journal,) = recorded.sessions.glob("*.mcap")
    assert [record.author for record in read_journal(journal).records] == ["forgotten-1"]
    entry = list(audit.entries(recorded.path))[-1]
    assert (entry["who"], entry["what"], entry["name"], entry["episodes"]) == ("data", "person_forgotten", "forgotten-1", 3)
    assert not (recorded.path / PENDING_FILE).exists()
    assert forget(recorded, "op-070", "data").name == "forgotten-2"


def test_the_labels_survive_a_rebuild_after_it(recorded):
    forget(recorded, "op-07", "data")
    rebuild_catalog(recorded)
    with Catalog.open(recorded) as catalog:
        assert catalog.segment("s1-ep0002:t0").labels == {"cause": "timing"}
        assert [person.id for person in list_people(catalog)] == ["forgotten-1", "op-070"]
    labels = Labels(recorded)
    labels.add_label("s1-ep0001:t0", "cause", "force", "op-070")
    labels.close()
    assert len(read_log(recorded.labels_path)) == 6


def test_one_that_is_stopped_goes_on_under_the_same_name(recorded, monkeypatch):
    stop = threading.Event()
    report = forget(recorded, "op-07", "data", progress=lambda done, _: stop.set() if done == 1 else None, cancelled=stop)
    assert (report.finished, report.episodes) == (False, 1)
    with pytest.raises(PeopleError, match="forgetting somebody else was interrupted"):
        forget(recorded, "op-070", "data")

    def killed(*_):
        raise KeyboardInterrupt

    # killed between the new file and its row in the catalog
    with monkeypatch.context() as patch:
        patch.setattr(forget_module, "entry_of_file", killed)
        with pytest.raises(KeyboardInterrupt):
            forget(recorded, "op-07", "data")
    again = forget(recorded, "op-07", "data")
    assert (again.name, again.finished) == ("forgotten-1", True)
    with Catalog.open(recorded) as catalog:
        assert verify_workspace(recorded, catalog).problems == []


def test_what_cannot_be_done_is_said(recorded):
    for name, said in (("op-99", "nobody is called 'op-99'"), ("scripted", "is no person"), ("forgotten-1", "is no person")):
        with pytest.raises(PeopleError, match=said):
            forget(recorded, name, "data")
    with recorded.lock("recorder"), pytest.raises(WorkspaceError):
        forget(recorded, "op-07", "data")
    writer = JournalWriter(recorded.journal / "s9-ep0000.1.mcap")
    writer.close()
    with pytest.raises(PeopleError, match=r"s9-ep0000.1.mcap\); call `takeover data repair` first"):
        forget(recorded, "op-07", "data")
    (recorded.journal / "s9-ep0000.1.mcap").unlink()
    path = next(recorded.episodes.glob("*/s1-ep0001.hdf5"))
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    (recorded.logs / "recorder.log").write_text("op-07 began\n")
    report = forget(recorded, "op-07", "data")
    assert not report.finished
    assert "s1-ep0001.hdf5" in report.left[0]
    assert "logs/recorder.log" in report.remains
    path.write_bytes(good)
    report = forget(recorded, "op-07", "data")
    assert (report.finished, report.name, report.remains) == (True, "forgotten-1", ["logs/recorder.log"])
    assert read_records(path)[0].operator == "forgotten-1"


def test_people_and_forget_on_the_command_line(recorded, capsys):
    where = ["--workspace", str(recorded.path)]
    assert main(["data", "people", *where]) == 0
    assert "op-070" in capsys.readouterr().out
    assert main(["data", "forget", "op-07", *where]) == 2
    assert "2 episodes, 3 label events and 0 decisions name 'op-07'; this cannot be undone: add --yes" in capsys.readouterr().err
    assert main(["data", "forget", "op-99", *where]) == 2
    assert main(["data", "forget", "op-07", "--yes", "--by", "privacy-desk", *where]) == 0
    assert "forgotten-1: 3 episode files made anew, 1 journals, 5 label events, 0 decisions" in capsys.readouterr().out
    assert main(["audit", *where]) == 0
    printed = capsys.readouterr().out
    assert "privacy-desk" in printed
    assert "person_forgotten" in printed
    assert "op-07" not in printed
    assert main(["data", "people", "--json", *where]) == 0
    assert [person["id"] for person in json.loads(capsys.readouterr().out)] == ["forgotten-1", "op-070"]


def test_killed_at_any_moment_the_next_call_finishes_it(recorded):
    """SIGKILL in the middle of forgetting, again and again: every file is whole throughout, and in the end nothing is left."""
    fork, rng = multiprocessing.get_context("fork"), np.random.default_rng(5)
    before = {path.name: read_episode(path).steps for path in recorded.episodes.rglob("*.hdf5")}
    for _ in range(12):
        process = fork.Process(target=forget, args=(recorded, "op-07", "data"))
        process.start()
        process.join(float(rng.uniform(0.0, 0.15)))
        process.kill()
        process.join()
        for path in recorded.episodes.rglob("*.hdf5"):
            assert read_episode(path).steps == before[path.name]
        if process.exitcode == 0:
            break
    if (recorded.path / PENDING_FILE).exists() or process.exitcode != 0:
        with contextlib.suppress(PeopleError):  # nobody of that name: the last one was done but for its end
            assert forget(recorded, "op-07", "data").name == "forgotten-1"
    for name, data in bytes_of(recorded).items():
        assert not re.search(rb"op-07(?![0-9])", data), name
    assert len(list(recorded.episodes.rglob("*"))) == 1 + 3
    with Catalog.open(recorded) as catalog:
        assert verify_workspace(recorded, catalog).problems == []
        assert [person.id for person in list_people(catalog)] == ["forgotten-1", "op-070"]
