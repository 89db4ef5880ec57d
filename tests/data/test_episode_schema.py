"""docs/episode-schema.md against a file that was really written, and files of older and newer schemas."""

import re
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest

from takeover.data.catalog import Catalog
from takeover.data.episode_build import DEMO
from takeover.data.episode_file import EpisodeReader, open_episode, read_records, verify_file, write_episode
from takeover.data.episode_migrate import STEPS, NewerFile
from takeover.data.episode_schema import SCHEMA_VERSION, gather
from takeover.data.hdf5_image import DamagedFile, seal
from takeover.data.recovery import reconcile
from takeover.data.schema import Outcome, PolicyImage, Step

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "episode-schema.md").read_text(encoding="utf-8")
FILES = Path(__file__).parent / "files"
CODES = {"S": "S", "V": "table"}


def rows(heading):
    """{name: cells} of the table below a heading of the page."""
    body = PAGE.split(heading, 1)[1].split("\n## ", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in cells}


@pytest.fixture
def complete(workspace, stream):
    """A file with everything a file can have: pictures of both kinds, held steps, an event, scores, simulator states."""
    records = []
    for record in stream.episode(steps=8, takeovers=((3, 6),), holds=(5,), frames=True, outcome=Outcome.FAILURE):
        if isinstance(record, Step):
            record = msgspec.structs.replace(record, images=[PolicyImage(camera="wrist", height=4, width=4, data=stream.rng.bytes(48))])
        records.append(record)
    return write_episode(workspace, gather(records))[0]


def placeholders(name):
    name = re.sub(r"^(obs|next_obs|hil/frames|hil/image_valid)/(?!state$)[^/]+$", r"\1/<camera>", name)
    return re.sub(r"scores/[^/]+$", "scores/<name>", re.sub(r"hil/pictures/[^/]+/", "hil/pictures/<camera>/", name))


def type_of(dtype):
    return CODES.get(dtype.kind, f"{dtype.kind}{dtype.itemsize}")


def test_every_dataset_is_on_the_page_and_every_line_of_the_page_is_in_the_file(complete):
    found = {}
    with h5py.File(complete) as file:
        file[DEMO].visititems(lambda name, item: found.update({placeholders(name): item}) if isinstance(item, h5py.Dataset) else None)
        found = {name: (item.ndim, type_of(item.dtype)) for name, item in found.items()}
    per_step, others = rows("## Per step"), rows("## Datasets of")
    documented = others | {f"hil/{name}": cells for name, cells in per_step.items()} | {f"hil/held/{n}": c for n, c in per_step.items()}
    assert sorted(found) == sorted(documented)
    for name, (shape, dtype, *rest) in documented.items():
        assert found[name] == (len([part for part in shape.strip("()").split(",") if part.strip()]), dtype), name
        assert rest[-1] or name.startswith("hil/held"), f"{name} has no meaning"


@pytest.mark.parametrize(("heading", "where"), [("## Attributes of `/data`\n", "data"), ("## Attributes of `/data/demo_0`", DEMO)])
def test_every_attribute_is_on_the_page_and_the_other_way_round(complete, heading, where):
    documented = rows(heading)
    with h5py.File(complete) as file:
        attributes = dict(file[where].attrs)
        assert dict(file[f"{DEMO}/hil/pictures/front"].attrs) == {"width": 64, "height": 48}
        assert list(file[f"{DEMO}/hil/scores"].attrs) == ["names"]
    assert sorted(attributes) == sorted(documented)
    for name, (kind, _, meaning) in documented.items():
        value = attributes[name]
        stored = "text" if isinstance(value, str) else "bool" if isinstance(value, np.bool_) else type_of(value.dtype)
        assert stored == kind.split()[-1], name
        assert meaning, name


def test_tables_have_the_fields_the_page_names(complete):
    page = rows("## Datasets of")
    with h5py.File(complete) as file:
        for name in ("hil/interventions", "hil/events"):
            named = set(re.findall(r"`([a-z_]+)`", page[name][-1])) - {"human", "robot_asked", "safety"}
            assert named == set(file[DEMO][name].dtype.names)


def test_there_is_a_step_and_a_file_for_every_older_version():
    assert sorted(STEPS) == list(range(1, SCHEMA_VERSION))
    assert [path.name for path in sorted(FILES.glob("episode-v*.hdf5"))] == [f"episode-v{number}.hdf5" for number in STEPS]
    assert f"Schema version {SCHEMA_VERSION}." in PAGE


def test_a_file_of_version_1_reads_like_one_of_today(workspace):
    path = FILES / "episode-v1.hdf5"
    before = path.read_bytes()
    with h5py.File(path) as file:
        assert file[DEMO].attrs["schema_version"] == 1
        assert "subtask" not in file[f"{DEMO}/hil"]
    assert verify_file(path) == []
    start, steps, end = read_records(path, images=True)
    assert (start.episode_id, len(steps), end.steps, start.consent_version) == ("v1-ep0000", 10, 8, "")
    assert {(step.subtask, step.reward_version) for step in steps} == {("", 0)}
    with EpisodeReader(path) as reader:
        assert reader.attributes["schema_version"] == SCHEMA_VERSION
        assert reader.attributes["history"] == "[]"
        assert reader.attributes["wall_minus_monotonic_end_ns"] == end.wall_ns - end.t_ns
        waited = reader.column("t_applied_ns", held=True) - reader.column("t_observation_ns", held=True)
        assert (reader.column("wall_ns", held=True) - reader.column("wall_observation_ns", held=True)).tolist() == waited.tolist()
        assert reader.cameras == ["front"]
        assert reader._demo["next_obs/wrist"].shape == (8, 4, 4, 3)
    with open_episode(path) as file:
        names = {name for name, item in file[f"{DEMO}/hil"].items() if isinstance(item, h5py.Dataset)}
    assert names | {"scores/<name>"} == set(rows("## Per step")) | {"interventions", "events"}
    assert path.read_bytes() == before, "a closed file is never touched"
    kept = workspace.episodes / "2026-09-21" / "v1-ep0000.hdf5"
    kept.parent.mkdir()
    kept.write_bytes(before)
    with Catalog.open(workspace) as catalog:
        assert reconcile(workspace, catalog) == []
        assert catalog.episode("v1-ep0000").steps == 8


def with_version(path, version):
    data = path.read_bytes()
    plain = path.with_suffix(".plain")
    plain.write_bytes(data[512:])
    with h5py.File(plain, "r+") as file:
        file[DEMO].attrs["schema_version"] = version
    path.write_bytes(seal(plain.read_bytes()))
    plain.unlink()


def test_a_newer_file_is_refused_with_both_numbers_and_is_not_called_damaged(complete):
    with_version(complete, SCHEMA_VERSION + 1)
    said = f"schema {SCHEMA_VERSION + 1}, this version reads up to {SCHEMA_VERSION}; update takeover"
    with pytest.raises(NewerFile, match=said):
        read_records(complete)
    (problem,) = verify_file(complete)
    assert said in problem


@pytest.mark.parametrize("version", [0, -1, "two", 1.5])
def test_a_version_that_is_none_is_refused(complete, version):
    with_version(complete, version)
    with pytest.raises(DamagedFile, match="schema_version is"):
        read_records(complete)


def test_an_old_file_that_lacks_something_is_named(complete):
    with_version(complete, 1)  # it has what version 2 adds already: the step cannot be made
    with pytest.raises(DamagedFile, match=rf"{complete.name}: cannot be brought from schema 1 to {SCHEMA_VERSION}"):
        read_records(complete)
