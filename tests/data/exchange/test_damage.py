"""Bits flipped and bytes cut anywhere in an export: an import refuses it or gives what was exported, and never crashes."""

import random
import shutil

import pytest

from takeover.data.catalog import Catalog
from takeover.data.episode_file import EpisodeReader
from takeover.data.exchange.errors import ExchangeError
from takeover.data.exchange.lerobot_export import export_lerobot
from takeover.data.exchange.lerobot_import import import_lerobot
from takeover.data.exchange.robomimic_export import RobomimicOptions, export_robomimic
from takeover.data.exchange.robomimic_import import import_robomimic
from takeover.data.exchange.selection import Selection
from takeover.data.workspace import Workspace

TRIES = 25


def contents(workspace: Workspace) -> list:
    """What is in a workspace: the digest of every episode's contents, and what its row says."""
    with Catalog.open(workspace) as catalog:
        rows = catalog.episodes()
    found = []
    for row in rows:
        with EpisodeReader(workspace.path / row.path) as reader:
            found.append((row.id, row.kind, row.outcome, row.operator, row.policy_sha256, reader.start.config_sha256))
    return found


def damage(path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if rng.random() < 0.2:
        data = data[: rng.randrange(len(data))]
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


@pytest.mark.parametrize("form", ["lerobot", "robomimic"])
def test_damage_is_refused_or_harmless(recorded, workspace, tmp_path, form):
    rng = random.Random(7)
    whole, hurt = tmp_path / "whole", tmp_path / "hurt"
    only = Selection(ids=("ep0003",))
    if form == "lerobot":
        export_lerobot(workspace, whole, only)
    else:
        export_robomimic(workspace, whole, only, RobomimicOptions(policy_pictures=False))
    read = import_lerobot if form == "lerobot" else import_robomimic
    shutil.copytree(whole, hurt) if whole.is_dir() else shutil.copy(whole, hurt)
    sound = Workspace(tmp_path / "sound")
    read(sound, hurt)
    expected = contents(sound)
    refusals: list[str] = []
    for number in range(TRIES):
        shutil.rmtree(hurt) if hurt.is_dir() else hurt.unlink()
        shutil.copytree(whole, hurt) if whole.is_dir() else shutil.copy(whole, hurt)
        damage(rng.choice([path for path in sorted(hurt.rglob("*")) if path.is_file()] or [hurt]), rng)
        other = Workspace(tmp_path / f"ws{number}")
        try:
            read(other, hurt)
        except ExchangeError as error:
            refusals.append(str(error))
        else:
            assert contents(other) == expected
    assert len(refusals) > TRIES // 4
    assert [line for line in refusals if str(hurt) not in line] == []
