"""`takeover data show`: the strip, the summary and the contact sheet of files that were really written."""

import json
import shutil

import msgspec
import numpy as np
import pytest
import simplejpeg

from takeover.app.cli import main
from takeover.data import png
from takeover.data.catalog import Catalog
from takeover.data.contact_sheet import COLOURS, SheetError, choose_moments, contact_sheet, write_contact_sheet
from takeover.data.episode_file import EpisodeReader, write_episode
from takeover.data.episode_schema import gather
from takeover.data.episode_summary import authority_strip, limits_hit, summarise
from takeover.data.exchange.pictures import decode
from takeover.data.labels import Labels
from takeover.data.recorder import Recorder
from takeover.data.schema import CameraFrame, ControlMode, Outcome, PolicyImage, Step


def with_pictures(records, lost=0):
    """The same records with real JPEGs, brighter with every picture; ``lost``: a jump of the camera's count."""
    made = []
    for record in records:
        if isinstance(record, CameraFrame):
            pixels = np.full((48, 64, 3), min(255, 5 * record.counter), np.uint8)
            counter = record.counter + (lost if record.counter > 20 else 0)
            record = msgspec.structs.replace(record, jpeg=simplejpeg.encode_jpeg(pixels), counter=counter)
        made.append(record)
    return made


@pytest.fixture
def recorded(workspace, stream):
    recorder = Recorder(workspace)
    records = with_pictures(stream.episode(frames=True, holds=(30,), outcome=Outcome.FAILURE), lost=3)
    for record in [*records, *stream.episode(takeovers=())]:
        recorder.accept(record)
    recorder.sync()
    recorder.close()
    labels = Labels(workspace)
    labels.add_label("s1-ep0000:t0", "cause", "timing", "op-02")
    labels.add_label("s1-ep0000", "outcome", "success", "op-02")
    labels.close()
    return workspace


def test_the_strip_shows_the_shortest_hold():
    times = np.arange(1000)
    modes = np.zeros(1000, np.int8)
    modes[500] = ControlMode.SAFETY_HOLD
    modes[100:300] = ControlMode.HUMAN
    modes[100:103] = ControlMode.TRANSITION
    strip = authority_strip(times, modes, 10)
    assert strip == ".HH..!...."
    assert authority_strip(times[:3], modes[99:102]) == ".hh"
    assert authority_strip(times[:0], modes[:0]) == ""
    gap = np.array([0, 1, 2, 50, 99])
    assert authority_strip(gap, np.array([0, 1, 1, 1, 0], np.int8), 5) == "HHHH."


def test_limits_are_counted_by_name():
    assert limits_hit(np.array([0, 8, 8 | 64, 64, 64])) == {"speed": 3, "workspace": 2}
    assert limits_hit(np.zeros(0, np.int32)) == {}


def test_the_summary_says_what_happened(recorded):
    with Catalog.open(recorded) as catalog:
        summary = summarise(recorded.path / catalog.episode("s1-ep0000").path, catalog)
        plain = summarise(recorded.path / catalog.episode("s1-ep0001").path)
    assert (summary.steps, summary.human_steps, summary.held_steps) == (40, 10, 2)
    assert (summary.outcome, summary.outcome_source, summary.recorded_outcome) == ("success", "label", "failure")
    (takeover,) = summary.interventions
    assert (takeover.start, takeover.end, takeover.trigger, takeover.labels) == (10, 19, "human", {"cause": "timing"})
    assert "H" * 10 in summary.strip
    assert summary.strip.count("!") == 2
    assert summary.holds == {"command_stale": 2}
    assert summary.limits_hit == {"workspace": 8 + 2}
    (camera,) = summary.cameras
    assert (camera.name, camera.pictures, camera.width, camera.height, camera.lost) == ("front", 40, 64, 48, 3)
    assert summary.clocks.wall_set_ms == 0
    assert summary.clocks.period_ms == 50
    assert sum(summary.sizes.values()) < summary.size_bytes
    assert plain.interventions == plain.cameras == []
    assert plain.outcome == "success"


def test_pngs_are_what_was_drawn():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    assert (decode(png.encode_png(pixels)) == pixels).all()
    with pytest.raises(ValueError, match=r"not \(7, 5\) uint8"):
        png.encode_png(pixels[:, :, 0])
    beside = png.fit(pixels, 10, 7)
    assert beside.shape == (7, 10, 3)
    assert (beside[:, 2:7] == pixels).all()
    assert (png.fit(np.repeat(np.repeat(pixels, 4, 0), 4, 1), 5, 7) == pixels).all()  # a mean of equal pixels


def test_text_is_drawn_where_it_was_wanted_and_cut_off_at_the_edges():
    page = np.zeros((40, 200, 3), np.uint8)
    png.draw_text(page, 10, 8, "10.5 s schön", (255, 255, 255))
    rows, columns = np.flatnonzero(page.any((1, 2))), np.flatnonzero(page.any((0, 2)))
    assert 8 <= rows[0] < rows[-1] < 8 + 18
    assert 10 <= columns[0] < 14
    assert 10 + png.text_width("10.5 s") < columns[-1] <= 10 + png.text_width("10.5 s schön")
    same = np.zeros_like(page)
    png.draw_text(same, 10, 8, "10.5 s schon", (255, 255, 255))
    assert (page != same).any()  # it has more than ASCII
    for x, y in ((-5, -4), (190, 35), (500, 500), (-500, 0)):
        png.draw_text(page, x, y, "takeover", (255, 0, 0))


def test_moments_are_spread_evenly_and_meet_the_onsets():
    assert choose_moments(0, 110, [], 12) == list(range(0, 111, 10))
    assert choose_moments(0, 110, [33, 31, 110], 12) == [0, 10, 20, 31, 33, 50, 60, 70, 80, 90, 100, 110]
    assert choose_moments(0, 100, [1, 2, 3, 4], 2) == [1, 2]
    assert choose_moments(5, 5, [5], 12) == [5]


def test_the_sheet_has_the_pictures_of_its_moments_and_marks_the_onset(recorded, tmp_path):
    with Catalog.open(recorded) as catalog:
        path = recorded.path / catalog.episode("s1-ep0000").path
    with EpisodeReader(path) as reader:
        assert write_contact_sheet(reader, tmp_path / "a.png", columns=6) == 6
        sheet, _ = contact_sheet(reader, 6)
    assert (decode((tmp_path / "a.png").read_bytes()) == sheet).all()
    human, held = (np.all(sheet == COLOURS[mode], axis=2) for mode in (ControlMode.HUMAN, ControlMode.SAFETY_HOLD))
    assert human.sum() > 2000
    assert held.any()
    centres = [int(sheet[-80, 12 + index * 164 + 80, 0]) for index in range(6)]
    assert centres == sorted(centres)
    assert centres[-1] > centres[0] + 100


def test_what_cannot_be_drawn_is_said(recorded, tmp_path, workspace, new_stream):
    with Catalog.open(recorded) as catalog:
        path = recorded.path / catalog.episode("s1-ep0001").path
    with EpisodeReader(path) as reader, pytest.raises(SheetError, match=rf"{path.name}: no pictures were recorded"):
        write_contact_sheet(reader, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
    noise = write_episode(workspace, gather(new_stream("s7").episode(frames=True)))[0]  # random bytes are no JPEG
    with EpisodeReader(noise) as reader:
        assert write_contact_sheet(reader, tmp_path / "b.png") == 0
    empty = write_episode(workspace, gather(new_stream("s8").episode(steps=0, takeovers=())))[0]
    with EpisodeReader(empty) as reader, pytest.raises(SheetError, match="has no steps"):
        contact_sheet(reader)
    assert summarise(empty).strip == ""


def test_without_full_pictures_the_policys_are_shown(workspace, stream, tmp_path):
    records = []
    for record in stream.episode(takeovers=()):
        if isinstance(record, Step):
            record = msgspec.structs.replace(record, images=[PolicyImage(camera="wrist", height=8, width=8, data=bytes([200]) * 192)])
        records.append(record)
    with EpisodeReader(write_episode(workspace, gather(records))[0]) as reader:
        assert reader.policy_cameras == ["wrist"]
        assert write_contact_sheet(reader, tmp_path / "a.png", 3) == 3


def test_show_on_the_command_line(recorded, tmp_path, capsys):
    where = ["--workspace", str(recorded.path)]
    assert main(["data", "show", "0000", "--sheet", str(tmp_path / "s.png"), *where]) == 0
    printed = capsys.readouterr()
    for words in (
        "success at step 39, source label, recorded as failure",
        "takeover 0",
        "cause timing",
        "workspace 10 steps",
        "3 lost",
        "H" * 10,
    ):
        assert words in printed.out
    assert "12 pictures" in printed.err
    (path,) = recorded.episodes.glob("*/s1-ep0000.hdf5")
    assert main(["data", "show", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "success"
    copy = shutil.copy(path, tmp_path / "copy.hdf5")
    assert main(["data", "show", str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcome"] == "failure", "without its catalog a file knows no labels"
    for name, said in (("nobody", "no episode 'nobody'"), ("s1-", "several episodes are called 's1-'"), ("", "no episode ''")):
        assert main(["data", "show", name, *where]) == 2
        assert said in capsys.readouterr().err
    for options, said in (
        (["--sheet", "a.jpg"], "ending with .png"),
        (["--columns", "0"], "1 to 60"),
        (["--sheet", "/proc/a.png"], "/proc/a.png"),
    ):
        assert main(["data", "show", str(path), *options]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("nothing of ours")
    assert main(["data", "show", str(tmp_path / "notes.txt")]) == 2
    assert "notes.txt: the first 512 bytes are not those of an episode file" in capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["data", "show", str(path)]) == 2
    assert path.name in capsys.readouterr().err
