"""What labels trim off is cut in every format, as in the learner's batches; the filters of an export are those of `data ls`."""

import json

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from mcap.reader import make_reader

from takeover.app.cli import main
from takeover.data.catalog import Catalog
from takeover.data.episode_file import EpisodeReader
from takeover.data.episode_read import read_records
from takeover.data.exchange.errors import ExchangeError
from takeover.data.exchange.lerobot_export import LeRobotOptions, export_lerobot
from takeover.data.exchange.mcap_export import export_mcap
from takeover.data.exchange.robomimic_export import export_robomimic
from takeover.data.exchange.selection import Selection
from takeover.data.exchange.tables import export_tables
from takeover.data.labels import Labels
from takeover.data.selection import EpisodeFilter, select_episodes
from takeover.data.training_labels import training_labels

from .test_mcap_and_tables import messages

EPISODE = "s1-ep0002"  # 30 steps, a takeover in 10 to 19
PARTS = [(3, 9), (12, 17), (20, 26)]
KEPT = [step for first, last in PARTS for step in range(first, last + 1)]
ONLY = Selection(ids=(EPISODE,))


@pytest.fixture
def trimmed(recorded, workspace):
    labels = Labels(workspace)
    labels.add_label(EPISODE, "trim", "3-26", "op-02")
    labels.add_label(f"{EPISODE}:t0", "trim", "12-17", "op-02")
    labels.close()
    return workspace


def steps_of(workspace, recorded):
    return read_records(workspace.path / recorded[2].path)[1]


def test_the_learner_counts_the_same_steps(trimmed, catalog):
    labels = training_labels(catalog, [EPISODE])[EPISODE]
    assert [step for step in range(30) if labels.counts(step)] == KEPT


def test_lerobot(trimmed, recorded, tmp_path):
    result = export_lerobot(trimmed, tmp_path / "set", ONLY, LeRobotOptions(precision="float64"))
    assert (result.episodes, result.frames) == (3, 20)
    episodes = pq.read_table(tmp_path / "set/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(row["first_step"], row["last_step"], row["success"]) for row in episodes] == [(*part, False) for part in PARTS]
    data = pq.read_table(tmp_path / "set/data/chunk-000/file-000.parquet")
    steps = steps_of(trimmed, recorded)
    assert data["action"].to_pylist() == [steps[i].action for i in KEPT]
    assert not any(data["next.done"].to_pylist())  # the end was trimmed off
    everything = Selection(ids=(EPISODE,), include_excluded=True)
    export_lerobot(trimmed, tmp_path / "all", everything, LeRobotOptions(images="none"))
    weights = pq.read_table(tmp_path / "all/data/chunk-000/file-000.parquet")["sample_weight"].to_pylist()
    assert weights == [float(step in KEPT) for step in range(30)]


def test_robomimic(trimmed, recorded, tmp_path):
    assert export_robomimic(trimmed, tmp_path / "all.hdf5", ONLY).frames == 20
    steps = steps_of(trimmed, recorded)
    with h5py.File(tmp_path / "all.hdf5") as file:
        assert sorted(file["data"]) == ["demo_0", "demo_1", "demo_2"]
        assert "failure" not in file["mask"]
        for number, (first, last) in enumerate(PARTS):
            demo = file[f"data/demo_{number}"]
            assert (demo.attrs["first_step"], demo.attrs["last_step"], demo.attrs["num_samples"]) == (first, last, last - first + 1)
            np.testing.assert_array_equal(demo["actions"][:], np.array([step.action for step in steps[first : last + 1]], np.float32))


def test_mcap(trimmed, recorded, tmp_path):
    assert export_mcap(trimmed, tmp_path / "out", ONLY).frames == 20
    found = list(messages(tmp_path / f"out/{EPISODE}.mcap"))
    steps = steps_of(trimmed, recorded)
    for topic in ("/step", "/action", "/observation"):
        assert [time for name, _, time, _ in found if name == topic] == [steps[i].wall_ns for i in KEPT]
    with EpisodeReader(trimmed.path / recorded[2].path) as reader:
        frames = [reader.frame("front", i) for i in range(30)]
    # picture i is taken after observation i: those of the time that counts, and the one that the first step of each part saw
    shown = [i for first, last in PARTS for i in range(first - 1, last + 1)]
    assert [value.data for topic, _, _, value in found if topic == "/camera/front"] == [frames[i] for i in shown]
    texts = [value.message for topic, _, _, value in found if topic == "/events"]
    assert "mark schön" in texts
    assert not any(text.startswith(("failure 0", "takeover 0")) for text in texts)  # they begin in what was cut
    assert steps[26].wall_ns <= max(time for _, _, time, _ in found) < steps[27].wall_ns
    export_mcap(trimmed, tmp_path / "all", Selection(ids=(EPISODE,), include_excluded=True))
    with (tmp_path / f"all/{EPISODE}.mcap").open("rb") as stream:
        assert sum(channel.topic == "/step" for _, channel, _ in make_reader(stream).iter_messages()) == 30


def test_held_steps_go_with_the_step_before_them(recorded, workspace, tmp_path):
    labels = Labels(workspace)
    labels.add_label("s1-ep0001", "trim", "12-39", "op-02")  # two held steps before 12, two before 25
    labels.close()
    assert export_mcap(workspace, tmp_path / "out", Selection(ids=("ep0001",))).frames == 28 + 2


def test_tables(trimmed, recorded, tmp_path):
    export_tables(trimmed, tmp_path / "out")
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "out/episodes.parquet").to_pylist()}
    steps = [steps_of(trimmed, recorded)[i] for i in KEPT]
    row = rows[EPISODE]
    assert (row["steps"], row["steps_counted"], row["human_share"]) == (30, 20, 6 / 20)
    assert row["safety_steps"] == sum(step.safety_bits != 0 for step in steps)
    assert row["duration_s"] == (steps[-1].wall_ns - steps[0].wall_ns) / 1e9
    assert (rows["s1-ep0001"]["steps"], rows["s1-ep0001"]["steps_counted"]) == (40, 40)
    segments = {row["id"]: row for row in pq.read_table(tmp_path / "out/segments.parquet").to_pylist()}
    takeover = segments[f"{EPISODE}:t0"]
    assert (takeover["steps"], takeover["steps_counted"], takeover["label_trim"]) == (10, 6, "12-17")


def test_an_episode_of_which_nothing_is_left_is_left_out(recorded, workspace, tmp_path):
    labels = Labels(workspace)
    labels.add_label("s1-ep0002:t0", "exclude", "true", "op-02")
    labels.add_label("s1-ep0002", "trim", "10-19", "op-02")
    labels.close()
    assert export_mcap(workspace, tmp_path / "out", Selection(ids=("ep0001", "ep0002"))).episodes == 1
    for export in (export_lerobot, export_robomimic, export_mcap, export_tables):
        with pytest.raises(ExchangeError, match="labels leave every step of the selected episodes out"):
            export(workspace, tmp_path / "none", ONLY)
    assert not list(tmp_path.glob("none*"))


FILTERS = [
    ("--task", "pick-lift"),
    ("--operator", "op-01"),
    ("--policy-version", "3"),
    ("--outcome", "failure"),
    ("--cause", "force"),
    ("--kind", "demonstration"),
    ("--has-intervention",),
    ("--session", "s1"),
    ("--since", "2026-09-21", "--until", "2026-09-21"),
    ("--kind", "policy", "--has-intervention", "--outcome", "success"),
]


@pytest.mark.parametrize("options", FILTERS)
def test_export_selects_what_ls_lists(recorded, workspace, tmp_path, capsys, options):
    labels = Labels(workspace)
    labels.add_label("s1-ep0001:t0", "cause", "force", "op-02")
    labels.close()
    where = ["--workspace", str(workspace.path)]
    assert main(["data", "ls", "--json", "--limit", "0", "--oldest-first", *where, *options]) == 0
    listed = [row["id"] for row in json.loads(capsys.readouterr().out)["episodes"] if not row["excluded"]]
    assert listed
    assert main(["export", "parquet", str(tmp_path / "out"), *where, *options]) == 0
    assert [row["id"] for row in pq.read_table(tmp_path / "out/episodes.parquet").to_pylist()] == listed


@pytest.mark.parametrize(
    "options", [("--outcome", "won"), ("--cause", "bad luck"), ("--kind", "play"), ("--since", "yesterday"), ("--policy-version", "-7")]
)
def test_export_says_what_ls_says_of_a_wrong_filter(recorded, workspace, tmp_path, capsys, options):
    where = ["--workspace", str(workspace.path)]
    assert main(["data", "ls", *where, *options]) == 2
    said = capsys.readouterr().err
    assert main(["export", "csv", str(tmp_path / "out"), *where, *options]) == 2
    assert capsys.readouterr().err == said


def test_ids_are_answered_one_by_one_and_a_wrong_one_is_named(recorded, workspace, catalog, tmp_path):
    both = Selection(EpisodeFilter(outcome="success"), ids=("s1-ep0003", "ep0001"))
    assert export_tables(workspace, tmp_path / "out", both).episodes == 2
    with pytest.raises(ExchangeError, match="no episode 'ep0077' fits the selection"):
        export_tables(workspace, tmp_path / "more", Selection(ids=("ep0001", "ep0077")))
    with Catalog.open(workspace) as again:
        assert [row.id for row in select_episodes(again, both.filters, oldest_first=True)] == [
            "s1-ep0000",
            "s1-ep0001",
            "s1-ep0003",
            "s1-ep0004",
        ]
