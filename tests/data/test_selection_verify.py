"""`takeover data ls` and `verify`: filters are the catalog's, damage is named with episode and step, a long pass goes on."""

import json
import signal
import threading

import h5py
import numpy as np
import pytest

from takeover.app.cli import main
from takeover.data import verify
from takeover.data.catalog import Catalog
from takeover.data.damaged import inspect
from takeover.data.episode_build import DEMO
from takeover.data.episode_file import EpisodeReader, read_records, verify_file
from takeover.data.hdf5_image import DamagedFile, seal
from takeover.data.journal import JournalWriter
from takeover.data.labels import Labels
from takeover.data.recorder import Recorder
from takeover.data.schema import EpisodeKind, Outcome
from takeover.data.selection import EpisodeFilter, SelectionError, count_episodes, day_range, select_episodes
from takeover.data.verify import state_path, verify_workspace


@pytest.fixture
def recorded(workspace, stream, new_stream):
    """Five episodes in two sessions: two successes, a failure with a cause, a demonstration, one relabelled to failure."""
    recorder = Recorder(workspace)
    for options in (
        {"takeovers": ()},
        {"outcome": Outcome.FAILURE},
        {"kind": EpisodeKind.DEMONSTRATION},
        {"takeovers": (), "frames": True},
    ):
        for record in stream.episode(**options):
            recorder.accept(record)
        recorder.sync()
    for record in new_stream("s2", seed=1).episode(takeovers=()):
        recorder.accept(record)
    recorder.sync()
    recorder.close()
    labels = Labels(workspace)
    labels.add_label("s1-ep0001:f0", "cause", "timing", "op-02")
    labels.add_label("s1-ep0000", "outcome", "failure", "op-02")
    labels.close()
    return workspace


def chosen(workspace, **fields):
    with Catalog.open(workspace) as catalog:
        found = select_episodes(catalog, EpisodeFilter(**fields), oldest_first=True)
        assert count_episodes(catalog, EpisodeFilter(**fields)) == len(found)
        return sorted(row.id for row in found)


def test_every_filter_passes_the_right_episodes(recorded):
    everything = ["s1-ep0000", "s1-ep0001", "s1-ep0002", "s1-ep0003", "s2-ep0000"]
    assert chosen(recorded) == chosen(recorded, task="pick-lift", operator="op-01", policy_version=3) == everything
    assert chosen(recorded, outcome="failure") == ["s1-ep0000", "s1-ep0001"]
    assert chosen(recorded, outcome="success") == everything[2:]
    assert chosen(recorded, cause="timing") == chosen(recorded, has_intervention=True) == ["s1-ep0001"]
    assert chosen(recorded, kind="demonstration") == ["s1-ep0002"]
    assert chosen(recorded, session="s2") == chosen(recorded, name="s2-") == ["s2-ep0000"]
    assert chosen(recorded, name="0000") == ["s1-ep0000", "s2-ep0000"]
    assert chosen(recorded, name="%") == chosen(recorded, task="other") == chosen(recorded, policy_version=0) == []
    with Catalog.open(recorded) as catalog:
        rows = select_episodes(catalog, EpisodeFilter(), limit=2, offset=1)
        third = select_episodes(catalog, EpisodeFilter(), oldest_first=True)[2]
    assert len(rows) == 2
    assert rows[0].started_ns >= rows[1].started_ns
    later = chosen(recorded, from_ns=third.started_ns)
    assert third.id in later
    assert "s1-ep0000" not in later
    assert third.id not in chosen(recorded, to_ns=third.started_ns)


def test_dates_count_to_the_end_of_their_day():
    first, last = day_range("2026-05-01", "2026-05-01")
    assert last - first == 24 * 3600 * 10**9
    assert day_range("2026-05-01T02:00+02:00", "")[0] == first
    assert day_range("", "2026-05-01T00:00") == (0, first)
    with pytest.raises(SelectionError, match=r"'May' is not a date; write 2026-05-31"):
        day_range("May", "")
    with pytest.raises(SelectionError, match="not after its beginning"):
        EpisodeFilter(from_ns=2, to_ns=1)


def test_ls_lists_counts_and_prints_json(recorded, capsys):
    where = ["--workspace", str(recorded.path)]
    assert main(["data", "ls", *where, "--limit", "2", "--outcome", "success"]) == 0
    printed = capsys.readouterr()
    assert "2 of 3 episodes" in printed.err
    assert printed.out.count("pick-lift") == 2
    assert main(["data", "ls", *where, "--json", "--has-intervention", "--since", "2020-01-01"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["total"], found["episodes"][0]["id"]) == (1, "s1-ep0001")
    for wrong, said in (
        (["--outcome", "won"], "unknown outcome 'won'"),
        (["--until", "soon"], "'soon' is not a date"),
        (["--limit", "-1"], "0 for"),
    ):
        assert main(["data", "ls", *where, *wrong]) == 2
        assert said in capsys.readouterr().err


def damage(path, change):
    """Change an episode file in a way its seal does not show: the seal is made anew."""
    data = path.read_bytes()
    plain = path.with_suffix(".plain")
    plain.write_bytes(data[512:])
    with h5py.File(plain, "r+") as file:
        change(file[DEMO])
    path.write_bytes(data[:512] + plain.read_bytes())
    path.write_bytes(seal(path.read_bytes()[512:]))
    plain.unlink()


def path_of(workspace, episode_id):
    (path,) = workspace.episodes.glob(f"*/{episode_id}.hdf5")
    return path


def check(workspace, **options):
    with Catalog.open(workspace) as catalog:
        return verify_workspace(workspace, catalog, **options)


def put(name, index, value):
    def change(demo):
        values = demo[name][:]
        values[index] = value
        demo[name][:] = values

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("hil/human_action", (12, 0), np.nan), "hil/human_action is not finite at step 12"),
        (put("hil/frames/state", (30, 3), np.inf), "obs/state is not finite at step 30"),
        (put("hil/t_observation_ns", 7, 0), "hil/t_observation_ns does not increase at step 7"),
        (put("hil/t_applied_ns", 9, 0), "hil/t_applied_ns is before t_decision_ns at step 9"),
        (put("hil/action", (5, 1), 1.5), r"hil/action is outside [-1, 1] at step 5"),
        (put("hil/frame_index", 39, 40), "hil/frame_index points outside the 41 frames at step 39"),
        (put("hil/sim_state/offsets", 1, 10**6), "hil/sim_state: the offsets do not fit"),
        (lambda demo: demo.__delitem__("hil/spread"), "unreadable"),
        (lambda demo: demo.attrs.__setitem__("num_samples", 39), "the bridge counted 40 steps, the file has 39"),
    ],
)
def test_a_sealed_file_that_contradicts_itself_is_named_with_its_step(recorded, change, said):
    path = path_of(recorded, "s1-ep0001")
    damage(path, change)
    report = check(recorded)
    assert {problem.episode for problem in report.problems} == {"s1-ep0001"}
    assert any(said in problem.text and str(path) in problem.text for problem in report.problems), report.problems
    assert not report.whole


def test_the_catalog_is_compared_with_the_files(recorded):
    assert check(recorded).whole
    with Catalog.open(recorded) as catalog:
        row = catalog.episode("s1-ep0001")
        from sqlalchemy import update

        from takeover.data.catalog_tables import episodes

        with catalog.writing() as connection:
            connection.execute(update(episodes).where(episodes.c.id == row.id).values(steps=41))
        catalog.remove_episodes(["s1-ep0002"])
    path_of(recorded, "s1-ep0003").rename(recorded.path / "elsewhere.hdf5")
    (recorded.episodes / "2026-01-01").mkdir()
    (recorded.episodes / "2026-01-01" / "x.hdf5.tmp").write_bytes(b"half")
    recorded.index_path.unlink()
    found = {problem.episode: problem.text for problem in check(recorded).problems}
    assert "the catalog says steps 41, the file 40" in found["s1-ep0001"]
    assert "is not in the catalog" in found["s1-ep0002"]
    assert "cannot be read" in found["s1-ep0003"]
    assert "never finished" in found["x"]
    assert "index.hdf5: is missing" in found[""]


def test_journals_and_labels_are_looked_at_too(recorded, new_stream):
    writer = JournalWriter(recorded.sessions / "s9.1.mcap")
    for record in new_stream("s9").episode()[1:4]:
        writer.add(record)
        writer.sync()
    writer.abandon()
    assert check(recorded).whole, "a recorder that was killed leaves a journal without its end"
    path = recorded.sessions / "s9.1.mcap"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (recorded.journal / "unreadable").mkdir()
    (recorded.journal / "unreadable" / "a.1.mcap").write_bytes(b"")
    (recorded.journal / "b.1.mcap").write_bytes(b"")
    lines = recorded.labels_path.read_bytes().split(b"\n")
    recorded.labels_path.write_bytes(b"\n".join(lines[1:]))
    texts = {problem.path: problem.text for problem in check(recorded).problems}
    assert "is damaged" in texts["sessions/s9.1.mcap"]
    assert "tries again" in texts["journal/unreadable/a.1.mcap"]
    assert "left over" in texts["journal/b.1.mcap"]
    assert "lacks 1 label events of the catalog" in texts["labels.jsonl"]
    recorded.labels_path.write_bytes(b"\n".join([b"{", *lines]))
    texts = {problem.path: problem.text for problem in check(recorded).problems}
    assert "line 1" in texts["labels.jsonl"]


def test_an_interrupted_pass_goes_on_and_a_complete_one_is_not_remembered(recorded):
    stop = threading.Event()
    seen = []

    def progress(done, total):
        seen.append((done, total))
        if done == 3:
            stop.set()

    first = check(recorded, progress=progress, cancelled=stop)
    assert (first.checked, first.total, first.whole) == (3, 5, False)
    assert seen[-1] == (3, 5)
    touched = path_of(recorded, "s1-ep0001")
    data = bytearray(touched.read_bytes())
    data[-1] ^= 1
    touched.write_bytes(data)
    second = check(recorded)
    assert (second.checked, second.remembered) == (5, 2)
    assert [problem.episode for problem in second.problems] == ["s1-ep0001", "s1-ep0001"][: len(second.problems)]
    assert not state_path(recorded, EpisodeFilter()).exists()
    assert check(recorded).remembered == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_long_command_at_the_next_episode(recorded, capsys, monkeypatch, number):
    before = signal.getsignal(number)
    real = verify.verify_file

    def interrupted(path):
        if path.stem == "s1-ep0001":
            signal.raise_signal(number)
        return real(path)

    monkeypatch.setattr(verify, "verify_file", interrupted)
    assert main(["data", "verify", "--workspace", str(recorded.path)]) == 130
    said = capsys.readouterr().err
    assert "3 of 5 episodes checked" in said
    assert "the same command goes on from here" in said
    assert signal.getsignal(number) is before
    monkeypatch.setattr(verify, "verify_file", real)
    assert main(["data", "verify", "--workspace", str(recorded.path)]) == 0
    assert "5 episodes checked (3 in the run before)" in capsys.readouterr().err


def test_verify_on_the_command_line(recorded, capsys):
    where = ["--workspace", str(recorded.path)]
    assert main(["data", "verify", *where, "--kind", "policy"]) == 0
    assert "4 episodes checked, 0 problems" in capsys.readouterr().err
    path = path_of(recorded, "s2-ep0000")
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["data", "verify", *where, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert {problem["episode"] for problem in report["problems"]} == {"s2-ep0000"}
    assert main(["data", "verify", "s1-ep0000", *where]) == 0
    capsys.readouterr()
    assert main(["data", "verify", "nobody", *where]) == 2
    assert "no episode 'nobody'" in capsys.readouterr().err


def test_what_a_flipped_bit_hit_is_named_without_opening_the_file_here(recorded, monkeypatch):
    """A damaged file can crash HDF5 and the process with it, so one of its own looks inside."""
    path = path_of(recorded, "s1-ep0003")
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        jpeg = file[f"{DEMO}/hil/pictures/front/jpeg"][:].tobytes()
        stored = file[f"{DEMO}/hil/asked_action"][:].tobytes()
    data[data.index(jpeg) + 10] ^= 2
    data[data.index(stored) + 100] ^= 1
    path.write_bytes(data)
    texts = [problem.text for problem in check(recorded).problems]
    assert "SHA-256" in texts[0]
    assert any("hil/pictures/front/jpeg cannot be read at rows 0 to 11999" in text for text in texts), texts
    assert any("hil/asked_action cannot be read at rows 0 to 39" in text for text in texts), texts

    def opened(*_, **__):
        raise AssertionError("the damaged file was opened in this process")

    monkeypatch.setattr(h5py, "File", opened)
    with pytest.raises(DamagedFile, match="SHA-256"):
        read_records(path)
    with pytest.raises(DamagedFile, match="SHA-256"):
        EpisodeReader(path)
    assert len(verify_file(path)) == 1


def test_looking_inside_survives_whatever_is_there(recorded, tmp_path):
    path = path_of(recorded, "s1-ep0001")
    good, rng = path.read_bytes(), np.random.default_rng(1)
    noise = [good[:512] + rng.bytes(5000), good[: len(good) // 2], b"", good[:700] + rng.bytes(300) + good[1000:]]
    for index, content in enumerate(noise):
        bad = tmp_path / f"bad{index}.hdf5"
        bad.write_bytes(content)
        found = inspect(bad)
        assert found
        assert all(line.startswith(f"{bad}: ") for line in found)
    assert "is somewhere between them" in inspect(path)[0]
