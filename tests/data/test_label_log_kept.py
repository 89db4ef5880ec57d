"""``labels.jsonl`` while others write it, and when a line of it is broken: nothing is lost, labelling goes on."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

from takeover.app.cli import main
from takeover.data import forget as forget_module
from takeover.data.catalog import Catalog
from takeover.data.forget import forget
from takeover.data.label_log import open_log
from takeover.data.labels import LabelError, Labels, read_log
from takeover.data.people import PeopleError
from takeover.data.recorder import Recorder
from takeover.data.repair import repair
from takeover.data.verify import verify_workspace
from takeover.data.workspace import Workspace

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def labelled(workspace, stream):
    recorder = Recorder(workspace)
    for record in [*stream.episode(), *stream.episode()]:
        recorder.accept(record)
    recorder.sync()
    recorder.close()
    labels = Labels(workspace)
    for index in range(6):
        labels.add_label("s1-ep0000:t0", "note", f"nötig {index}", "op-01" if index % 2 else "op-02")
    labels.close()
    return workspace


def _label_on(workspace, name, acknowledged, stop):
    labels = Labels(Workspace(workspace.path))
    number = 0
    while not stop.is_set():
        try:
            made = labels.add_label("s1-ep0001", f"tag:{name}-{number}", "true", name)
        except LabelError:  # a broken line: refused until it is repaired
            time.sleep(0.01)
            continue
        number += 1
        acknowledged.put(made.id)
    labels.close()


@pytest.mark.parametrize("change", ["forget", "repair"])
def test_what_labelers_are_told_is_kept_while_the_log_is_rewritten(labelled, monkeypatch, change):
    """Two processes label without a break; each of them may wait for the lock of a log that is being replaced."""
    acknowledged, stop = FORK.Queue(), FORK.Event()
    labelers = [FORK.Process(target=_label_on, args=(labelled, f"lab-{index}", acknowledged, stop)) for index in range(2)]
    for process in labelers:
        process.start()
    known = {acknowledged.get(timeout=20) for _ in range(10)}
    real = forget_module.write_durably

    def slow(path, data):
        time.sleep(0.2)  # what is appended in this time must not be lost
        real(path, data)

    try:
        if change == "forget":
            monkeypatch.setattr(forget_module, "write_durably", slow)
            report = forget(labelled, "op-01", "data")
            assert (report.finished, report.left) == (True, [])
        else:
            for _ in range(3):
                with open_log(labelled.labels_path) as log:
                    os.write(log._fd, b"\xff\xfe broken\n")
                monkeypatch.setattr("takeover.data.label_repair.write_durably", slow)
                assert any("cannot be read" in line for line in repair(labelled).done)
        known |= {acknowledged.get(timeout=20) for _ in range(10)}
    finally:
        stop.set()
        for process in labelers:
            process.join(20)
    while not acknowledged.empty():
        known.add(acknowledged.get())
    assert [process.exitcode for process in labelers] == [0, 0]
    assert known <= {event.id for event in read_log(labelled.labels_path)}
    with Catalog.open(labelled) as catalog:
        assert verify_workspace(labelled, catalog).problems == []


LABEL_ONCE = """
import sys
from takeover.data.labels import Labels
Labels(sys.argv[1]).add_label("s1-ep0001", "tag:just-then", "true", "op-03")
"""


@pytest.mark.parametrize("module", ["forget", "label_repair"])
def test_a_label_given_at_the_moment_of_the_change_waits_and_is_kept(labelled, monkeypatch, module):
    """Between reading the old log and putting the new one in its place: whoever labels then must wait, or it would be lost."""
    real = forget_module.write_durably
    labelers = []

    def meanwhile(path, data):
        if path == labelled.labels_path:
            labelers.append(subprocess.Popen([sys.executable, "-c", LABEL_ONCE, str(labelled.path)]))
            with suppress(subprocess.TimeoutExpired):
                labelers[0].wait(1.5)
        real(path, data)

    monkeypatch.setattr(f"takeover.data.{module}.write_durably", meanwhile)
    if module == "forget":
        forget(labelled, "op-01", "data")
    else:
        lines = labelled.labels_path.read_bytes().splitlines()
        labelled.labels_path.write_bytes(b"\n".join([lines[0][:-9], *lines[1:], b""]))
        repair(labelled)
    assert labelers[0].wait(20) == 0
    assert len(read_log(labelled.labels_path)) == 7
    assert read_log(labelled.labels_path)[-1].field == "tag:just-then"


BREAK = {
    "cut short": lambda line, rng: line[: len(line) // 2],
    "no text": lambda line, rng: line[:40] + b"\xff\xfe" + line[42:],
    "other words": lambda line, rng: b"who wrote this?",
    "another table": lambda line, rng: b'{"id": 7, "target": []}',
    "a bit": lambda line, rng: bytes(c ^ (0x80 if i == 30 else 0) for i, c in enumerate(line)),
}


@pytest.mark.parametrize("what", sorted(BREAK))
@pytest.mark.parametrize("lost", [False, True], ids=["catalog there", "catalog lost"])
def test_a_broken_line_is_named_set_aside_and_labelling_goes_on(labelled, capsys, what, lost):
    where = ["--workspace", str(labelled.path)]
    before = read_log(labelled.labels_path)
    lines = labelled.labels_path.read_bytes().splitlines()
    broken = BREAK[what](lines[3], np.random.default_rng(0))
    labelled.labels_path.write_bytes(b"\n".join([*lines[:3], broken, *lines[4:], b""]))
    assert main(["data", "verify", *where]) == 1
    said = capsys.readouterr().out
    assert f"{labelled.labels_path}, line 4" in said
    assert "takeover data repair" in said
    if lost:
        for path in labelled.path.glob("catalog.sqlite*"):
            path.unlink()
    assert main(["data", "repair", *where, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)["done"]
    assert any("labels.jsonl: line 4 cannot be read; set aside in labels.jsonl.broken" in line for line in done), done
    assert (labelled.path / "labels.jsonl.broken").read_bytes() == broken + b"\n"
    (kept,) = (labelled.path / "set-aside").rglob("labels.jsonl")
    assert kept.read_bytes().splitlines()[3] == broken
    assert read_log(labelled.labels_path) == (before[:3] + before[4:] if lost else before)
    assert main(["data", "verify", *where]) == 0
    labels = Labels(labelled)
    made = labels.add_label("s1-ep0001", "quality", "good", "op-02")
    labels.close()
    assert read_log(labelled.labels_path)[-1] == made


def test_until_then_every_command_says_what_to_do(labelled):
    with labelled.labels_path.open("ab") as file:
        file.write(b"{}\n")
    labels = Labels(labelled)
    with pytest.raises(LabelError, match=r"labels.jsonl, line 7: .*`takeover data repair` sets the line aside"):
        labels.add_label("s1-ep0001", "quality", "good", "op-02")
    labels.close()
    with pytest.raises(PeopleError, match=r"labels.jsonl, line 7: .*`takeover data repair`"):
        forget(labelled, "op-01", "data")
    with pytest.raises(LabelError, match="line 7"):
        Recorder(labelled)


def test_a_last_line_without_its_end_is_an_event_all_the_same(labelled):
    before = read_log(labelled.labels_path)
    os.truncate(labelled.labels_path, labelled.labels_path.stat().st_size - 1)
    for path in labelled.path.glob("catalog.sqlite*"):
        path.unlink()
    assert any("the end of its last line was lost; written again" in line for line in repair(labelled).done)
    assert read_log(labelled.labels_path) == before


def test_killed_at_any_moment_of_a_repair_no_line_is_lost(labelled):
    rng = np.random.default_rng(4)
    lines = labelled.labels_path.read_bytes().splitlines()
    labelled.labels_path.write_bytes(b"\n".join([*lines[:2], b"broken", *lines[2:], b""]))
    for _ in range(8):
        process = FORK.Process(target=repair, args=(labelled,))
        process.start()
        process.join(float(rng.uniform(0.0, 0.06)))
        process.kill()
        process.join()
    repair(labelled)
    assert labelled.labels_path.read_bytes().splitlines() == lines
    assert set((labelled.path / "labels.jsonl.broken").read_bytes().splitlines()) == {b"broken"}


def test_a_line_that_was_changed_and_can_still_be_read_is_named(labelled, capsys):
    where = ["--workspace", str(labelled.path)]
    before = labelled.labels_path.read_bytes()
    event = read_log(labelled.labels_path)[3]
    changed = before.replace(event.value.encode(), event.value.replace("3", "2").encode(), 1)
    labelled.labels_path.write_bytes(changed)
    for command, place in (("verify", "out"), ("repair", "out")):
        assert main(["data", command, *where]) == 1
        said = getattr(capsys.readouterr(), place)
        assert f"event {event.id} (note of s1-ep0000:t0) differs between this log and the catalog" in said
        assert "value 'nötig 2' and 'nötig 3'" in said
    labelled.labels_path.write_bytes(b"".join(line for line in changed.splitlines(True) if event.id.encode() not in line))
    assert main(["data", "repair", *where]) == 0
    assert sorted(labelled.labels_path.read_bytes().splitlines()) == sorted(before.splitlines())
    assert main(["data", "verify", *where]) == 0
