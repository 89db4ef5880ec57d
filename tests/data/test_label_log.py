"""Labels against a plain model: any order of presses, a crash at any byte, a lost catalog; export and import."""

import os
import random
import shutil
import time

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from takeover.app.cli import main
from takeover.data.catalog import Catalog
from takeover.data.finalise import Finaliser
from takeover.data.label_exchange import export_labels, import_labels
from takeover.data.label_log import open_log
from takeover.data.labels import LabelError, LabelEvent, Labels, read_log
from takeover.data.recorder import Recorder
from takeover.data.recovery import rebuild_catalog, reconcile
from takeover.data.schema import Outcome, OutcomeChange
from takeover.data.workspace import Workspace
from tests.patience import patient

from .conftest import Stream

EPISODE = "s1-ep0000"
TARGETS = (EPISODE, f"{EPISODE}:t0", f"{EPISODE}:t1", "s1-ep0001:f0")
VALUES = {
    "cause": ("vision", "force", ""),
    "exclude": ("true", "false", ""),
    "review": ("submitted", "skipped"),
    "onset": ("2", "5", ""),
    "trim": ("6-8", ""),
    "outcome": ("success", "failure@17", "failure", ""),
    "tag:wet": ("true", ""),
    "quality": ("bad", "good"),
    "subtask": ("grasp", ""),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two episodes with three segments; copied, never changed."""
    workspace = Workspace(tmp_path_factory.mktemp("recorded") / "w")
    recorder, stream = Recorder(workspace), Stream()
    for options in ({"takeovers": ((5, 10), (20, 30))}, {"outcome": Outcome.FAILURE, "takeovers": ()}):
        for record in stream.episode(**options):
            recorder.accept(record)
    recorder.sync()
    recorder.close()
    return workspace


@pytest.fixture
def copied(recorded, tmp_path):
    count = iter(range(10_000))

    def copy():
        folder = tmp_path / f"w{next(count)}"
        shutil.copytree(recorded.path, folder)
        return Workspace(folder)

    return copy


def model(events):
    """{(target, field): value}: the newest event of each by (wall_ns, id), second opinions left out."""
    newest = {}
    for event in sorted(events, key=lambda event: (event.wall_ns, event.id)):
        if not event.blind:
            newest[(event.target, event.field)] = event.value
    return {key: value for key, value in newest.items() if value}


def model_of_undo(events, author, action):
    """The event that the author's next undo or redo is about, with two plain stacks."""
    stacks = {"undo": [], "redo": []}
    by_id = {event.id: event for event in events}
    for event in sorted(events, key=lambda event: (event.wall_ns, event.id)):
        if event.author != author:
            continue
        if event.action == "set":
            stacks["undo"].append(event.id)
            stacks["redo"].clear()
        else:
            stacks[event.action].remove(event.refers_to)
            stacks["redo" if event.action == "undo" else "undo"].append(event.refers_to)
    return by_id[stacks[action][-1]] if stacks[action] else None


def held(labels):
    """The same as `model`, from the catalog."""
    found = {}
    for target, fields in labels.catalog.labels(list(TARGETS)).items():
        found |= {(target, field): value for field, value in fields.items()}
    row = labels.catalog.episode(EPISODE)
    if (EPISODE, "outcome") in found and row.event_step != 39:
        found[(EPISODE, "outcome")] += f"@{row.event_step}"
    return found


def everything(catalog):
    return catalog.episodes(), catalog.segments(limit=None), catalog.sessions(), catalog.excluded_episode_ids(), catalog.excluded_segments()


press = st.tuples(st.sampled_from("ab"), st.sampled_from(TARGETS), st.sampled_from(sorted(VALUES)), st.integers(0, 3), st.booleans())
act = st.one_of(
    press.map(lambda drawn: ("set", *drawn)),
    press.map(lambda drawn: ("set", *drawn)),
    press.map(lambda drawn: ("killed", *drawn)),
    st.tuples(st.sampled_from(("undo", "redo")), st.sampled_from("ab")),
    st.tuples(st.just("late"), st.integers(1, 50)),
    st.tuples(st.just("torn"), st.binary(min_size=1, max_size=20).filter(lambda data: b"\n" not in data)),
)


def perform(labels, step, seed):
    """One act of somebody; what is refused changes nothing."""
    kind, *rest = step
    if kind in ("undo", "redo"):
        labels.replay_log()  # the model looks at everything there is
        about = model_of_undo(read_log(labels.workspace.labels_path), rest[0], kind)
        try:
            made = getattr(labels, kind)(rest[0])
        except LabelError:
            return
        assert about is not None
        assert made.refers_to == about.id
    elif kind == "late":
        labels.add_outcome(EPISODE, Outcome.SUCCESS, "op", 1_000_000 + rest[0], 3)
    elif kind == "torn":
        with labels.workspace.labels_path.open("ab") as file:
            file.write(rest[0])
    else:
        author, target, field, index, blind = rest
        if field == "outcome" and ":" in target:
            field = "cause"
        value = VALUES[field][index % len(VALUES[field])]
        try:
            if kind == "killed":  # after the log and before the catalog
                event = LabelEvent(
                    id=f"k{seed:06d}", target=target, episode_id=target.split(":")[0], field=field, value=value, previous="",
                    author=author, wall_ns=10**18 + seed, blind=blind,
                )  # fmt: skip
                with open_log(labels.workspace.labels_path) as log:
                    log.append([event])
            else:
                labels.add_label(target, field, value, author, blind=blind)
        except LabelError:
            return


@settings(
    max_examples=40,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(acts=st.lists(act, min_size=1, max_size=25), cut=st.floats(0, 1))
def test_what_holds_is_the_log_whatever_happened(copied, acts, cut):
    workspace = copied()
    with_labels = Labels(workspace)
    for number, step in enumerate(acts):
        perform(with_labels, step, number)
    with_labels.replay_log()
    events = read_log(workspace.labels_path)
    assert held(with_labels) == model(events)
    before = everything(with_labels.catalog)
    with_labels.catalog.close()

    assert rebuild_catalog(workspace) == []
    again = Labels(workspace)
    assert everything(again.catalog) == before
    assert again.events_since(0) == sorted(events, key=lambda event: (event.wall_ns, event.id))
    again.catalog.close()

    if workspace.labels_path.exists():  # killed at any byte of the log, and the catalog lost with it
        size = workspace.labels_path.stat().st_size
        os.truncate(workspace.labels_path, int(cut * size))
        assert rebuild_catalog(workspace) == []
        with Labels(workspace).catalog as catalog:
            rest = Labels(workspace, catalog)
            kept = read_log(workspace.labels_path)
            assert kept == events[: len(kept)]
            assert held(rest) == model(kept)
            rest.add_label(f"{EPISODE}:t0", "note", "goes on", "c")
            assert read_log(workspace.labels_path)[:-1] == kept
    shutil.rmtree(workspace.path)


def test_a_log_that_lost_its_end_gets_it_back_from_the_catalog(copied):
    labels = Labels(copied())
    made = [labels.add_label(TARGETS[1], "note", f"{index}", "a") for index in range(6)]
    os.truncate(labels.workspace.labels_path, labels.workspace.labels_path.stat().st_size // 2)
    last = labels.add_label(TARGETS[2], "cause", "wear", "b")
    found = read_log(labels.workspace.labels_path)
    assert sorted(event.id for event in found) == sorted(event.id for event in [*made, last])
    labels.workspace.labels_path.unlink()
    labels.add_label(TARGETS[2], "cause", "force", "b")
    assert len(read_log(labels.workspace.labels_path)) == 8
    labels.close()


def test_a_log_that_was_written_anew_is_read_from_its_beginning(copied):
    labels = Labels(copied())
    for author in "ab":
        labels.add_label(TARGETS[1], "cause", "wear", author)
    path = labels.workspace.labels_path
    longer = [msgspec.structs.replace(event, author=f"forgotten-{event.author}") for event in read_log(path)]
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in [*longer, _event(wall_ns=2 * 10**18, value="force")]))
    labels.add_label(TARGETS[2], "cause", "vision", "c")
    assert labels.current(TARGETS[1]) == {"cause": "force"}
    labels.close()


def test_a_double_press_is_one_event_and_another_persons_is_not(copied):
    labels = Labels(copied())
    first = labels.add_label(TARGETS[1], "cause", "wear", "a")
    assert labels.add_label(TARGETS[1], "cause", "wear", "a") == first
    assert labels.add_label(TARGETS[1], "cause", "wear", "b").author == "b"
    labels.undo("b")
    assert labels.current(TARGETS[1]) == {"cause": "wear"}
    labels.undo("a")
    assert labels.current(TARGETS[1]) == {}
    assert len(labels.history(TARGETS[1])) == 4
    labels.close()


def test_a_clock_that_goes_back_loses_no_label_and_no_undo(copied, monkeypatch):
    labels = Labels(copied())
    labels.add_label(TARGETS[1], "cause", "wear", "a")
    monkeypatch.setattr("takeover.data.labels.time.time_ns", lambda: 5)
    assert labels.add_label(TARGETS[1], "cause", "force", "b").wall_ns > 10**18
    assert labels.current(TARGETS[1]) == {"cause": "force"}
    labels.undo("b")
    assert labels.current(TARGETS[1]) == {"cause": "wear"}
    labels.redo("b")
    assert labels.current(TARGETS[1]) == {"cause": "force"}
    labels.close()


def test_a_late_outcome_counts_from_when_it_was_given(copied):
    labels = Labels(copied())
    labels.add_label(EPISODE, "outcome", "failure@12", "reviewer")
    labels.add_outcome(EPISODE, Outcome.SUCCESS, "operator", 1_000, 30)  # pressed before, and arrived after
    row = labels.catalog.episode(EPISODE)
    assert (row.outcome, row.event_step, row.outcome_source) == ("failure", 12, "label")
    assert labels.catalog.outcome_overrides() == {EPISODE: "failure"}
    assert [event.value for event in labels.history(EPISODE)] == ["success@30", "failure@12"]
    labels.undo("reviewer")
    assert labels.catalog.episode(EPISODE).outcome_source == "task"
    labels.close()


def test_a_broken_line_holds_up_a_late_outcome_and_not_the_recorder(copied, monkeypatch):
    monkeypatch.setattr("takeover.data.finalise.RETRY_AFTER_S", 0.05)
    workspace = copied()
    with Catalog.open(workspace) as catalog:
        Labels(workspace, catalog).add_label(TARGETS[1], "cause", "wear", "a")
        whole = workspace.labels_path.read_bytes()
        workspace.labels_path.write_bytes(whole + b"{broken\n")
        finaliser = Finaliser(workspace, catalog)
        change = {
            "session": "s1",
            "rec_seq": 999,
            "episode_id": EPISODE,
            "previous": Outcome.SUCCESS,
            "author": "op",
            "wall_ns": 2 * 10**18,
        }
        finaliser.submit(OutcomeChange(**change, outcome=Outcome.FAILURE, event_step=12))
        wait_for(lambda: "labels.jsonl, line 2" in finaliser.error)
        workspace.labels_path.write_bytes(whole)
        wait_for(lambda: finaliser.pending == 0 and not finaliser.error)
        finaliser.close()
        assert (catalog.episode(EPISODE).outcome, catalog.episode(EPISODE).event_step) == ("failure", 12)


def wait_for(condition, timeout_s=20.0):
    deadline = time.monotonic() + patient(timeout_s)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_undo_walks_back_over_more_than_a_page_of_ones_own_steps(copied):
    labels = Labels(copied())
    for index in range(120):
        labels.enter_events([_event(id=f"s{index:03d}", field="note", value=str(index), previous=str(index - 1), wall_ns=1000 + index)])
    for index in range(120):
        assert labels.undo("a").refers_to == f"s{119 - index:03d}"
    labels.close()


@pytest.mark.parametrize(
    ("target", "field", "value", "said"),
    [
        (TARGETS[1], "onset", "10", "ends at step 9"),
        (TARGETS[1], "trim", "4-8", "steps 5 to 9"),
        (TARGETS[1], "trim", "9-6", "first-last"),
        (TARGETS[1], "trim", "six", "first-last"),
        (EPISODE, "trim", "0-40", "steps 0 to 39"),
        (EPISODE, "outcome", "failure@40", "steps 0 to 39"),
        (EPISODE, "outcome", "failure@-1", "dated with a step number"),
        (EPISODE, "outcome", "failure@", "dated with a step number"),
        (TARGETS[1], "tag", "true", "tag:<name>"),
        (TARGETS[1], "tag:", "true", "a tag is a-z"),
        (TARGETS[1], "tag:Wet Floor", "true", "a tag is a-z"),
        (TARGETS[1], "tag:wet", "perhaps", "a tag is a-z"),
        (TARGETS[1], "subtask", "../x", "a-z, 0-9"),
        (TARGETS[1], "note", "x" * 4001, "at most 4000"),
        (EPISODE, "subtask", "grasp", "an episode has no"),
        (TARGETS[1], "outcome", "failure", "belongs to the episode s1-ep0000"),
    ],
)
def test_labels_that_point_nowhere_are_refused(copied, target, field, value, said):
    labels = Labels(copied())
    with pytest.raises(LabelError, match=said):
        labels.add_label(target, field, value, "a")
    assert read_log(labels.workspace.labels_path) == []
    labels.close()


def test_a_full_disk_leaves_the_log_as_it_was(copied, monkeypatch):
    labels = Labels(copied())
    labels.add_label(TARGETS[1], "cause", "wear", "a")
    before = labels.workspace.labels_path.read_bytes()
    write = os.write

    def full(fd, data):
        write(fd, bytes(data)[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("takeover.data.label_log.os.write", full)
        with pytest.raises(OSError, match="No space"):
            labels.add_label(TARGETS[1], "cause", "force", "a")
    assert labels.workspace.labels_path.read_bytes() == before
    assert labels.current(TARGETS[1]) == {"cause": "wear"}
    labels.add_label(TARGETS[1], "cause", "timing", "a")
    assert labels.current(TARGETS[1]) == {"cause": "timing"}
    labels.close()


def test_export_and_import_carry_everything_and_twice_is_once(copied, capsys, tmp_path):
    here, there, file = copied(), copied(), tmp_path / "labels.jsonl"
    labels = Labels(here)
    for target, field, value in ((TARGETS[1], "cause", "wear"), (EPISODE, "outcome", "failure@17"), (TARGETS[2], "tag:wet", "true")):
        labels.add_label(target, field, value, "a")
    labels.undo("a")
    labels.add_label(TARGETS[1], "quality", "bad", "b", blind=True)
    wanted = everything(labels.catalog)
    labels.close()
    assert main(["data", "labels", "export", str(file), "--workspace", str(here.path)]) == 0
    assert "5 label events written" in capsys.readouterr().out
    for added, known in ((5, 0), (0, 5)):
        assert main(["data", "labels", "import", str(file), "--workspace", str(there.path)]) == 0
        assert f"{added} label events added, {known} were here already" in capsys.readouterr().out
    labels = Labels(there)
    assert everything(labels.catalog) == wanted
    assert labels.redo("a").value == "true"
    labels.close()
    assert rebuild_catalog(there) == []
    assert not list(tmp_path.glob("*.partial*"))


def test_two_stations_that_import_each_others_labels_agree(copied, tmp_path):
    stations = [Labels(copied()), Labels(copied())]
    rng = random.Random(3)
    for index in range(30):
        station = stations[rng.randrange(2)]
        field = rng.choice(("cause", "exclude", "quality"))
        station.add_label(rng.choice(TARGETS[1:]), field, rng.choice(VALUES[field]), f"p{index % 3}")
    for index, station in enumerate(stations):
        export_labels(station, tmp_path / f"{index}.jsonl")
    for index, station in enumerate(stations):
        steps = []
        import_labels(station, tmp_path / f"{1 - index}.jsonl", lambda done, total, steps=steps: steps.append((done, total)))
        assert steps[-1][0] == steps[-1][1]
    assert everything(stations[0].catalog) == everything(stations[1].catalog)
    assert stations[0].events_since(0) == stations[1].events_since(0)
    for station in stations:
        station.close()


def _event(**changes):
    fields = {"id": "e1", "target": TARGETS[1], "episode_id": EPISODE, "field": "cause", "value": "wear", "previous": "", "author": "a"}
    return LabelEvent(**(fields | {"wall_ns": 5} | changes))


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([b"{broken"], "line 1"),
        ([_event(), b'{"id": 7}'], "line 2"),
        ([_event(value="gremlins")], "line 1: cause cannot be"),
        ([_event(target="../../x:t0", episode_id="../../x")], "do not belong together"),
        ([_event(episode_id="s1-ep0001")], "do not belong together"),
        ([_event(action="undo")], "refers to ''"),
        ([_event(action="undo", refers_to="e9")], "neither there nor here"),
        ([_event(), _event(id="e2", action="undo", refers_to="e1", author="b")], "not a label of the same target and author"),
        ([_event(), _event(value="force")], "said something else"),
        ([_event(wall_ns=-3)], "is no time"),
        ([_event(author="x" * 65)], "at most 64"),
        ([_event(field="onset", value="33")], "event e1: the segment .* ends at step 9"),
        ([b"x" * 70_000], "longer than"),
    ],
)
def test_bad_lines_are_named_and_nothing_is_imported(copied, tmp_path, capsys, events, said):
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b"".join((e if isinstance(e, bytes) else msgspec.json.encode(e)) + b"\n" for e in events))
    labels = Labels(copied())
    with pytest.raises(LabelError, match=said) as error:
        import_labels(labels, file)
    assert str(file) in str(error.value)
    assert labels.events_since(0) == []
    labels.close()
    assert main(["data", "labels", "import", str(file), "--workspace", str(labels.workspace.path)]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("bad.jsonl") >= 1
    assert printed.out == ""


def test_what_is_imported_before_its_episode_holds_once_it_is_there(copied, tmp_path):
    file = tmp_path / "labels.jsonl"
    file.write_bytes(msgspec.json.encode(_event(field="exclude", value="true")) + b"\n")
    labels = Labels(copied())
    rows = labels.catalog.segments(limit=None)
    labels.catalog.remove_episodes([EPISODE])
    assert import_labels(labels, file).waiting == 1
    labels.close()
    assert rebuild_catalog(labels.workspace) == []
    again = Labels(labels.workspace)
    assert [row.id for row in again.catalog.excluded_segments()] == [TARGETS[1]]
    assert len(again.catalog.segments(limit=None)) == len(rows)
    again.close()


def test_an_episode_that_is_entered_again_has_the_labels_it_had(copied):
    labels = Labels(copied())
    labels.add_label(TARGETS[1], "exclude", True, "a")
    labels.add_label(EPISODE, "outcome", "failure@12", "a")
    before = everything(labels.catalog)
    labels.catalog.remove_episodes([EPISODE])
    assert labels.catalog.excluded_segments() == []
    assert reconcile(labels.workspace, labels.catalog) == []
    assert everything(labels.catalog) == before
    labels.close()


@pytest.mark.parametrize("arguments", [["export"], ["import", "/nonexistent/x.jsonl"], ["export", "/nonexistent/x.jsonl"]])
def test_the_command_says_what_to_change(copied, capsys, arguments):
    assert main(["data", "labels", *arguments, "--workspace", str(copied().path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
