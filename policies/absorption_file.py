"""What was measured of a version's absorption, without torch: ``policies/<version>/absorption.json`` beside the manifest.

There is one for every version, so it is small: each correction is a row of values in the order of `SegmentAbsorption`'s fields, which
``fields`` names. Files of before that, in which it is an object with names, are read as well.
"""

import os
from pathlib import Path
from typing import Any

import msgspec

from takeover.policies.manifest import read_manifest, version_folder

FILE = "absorption.json"


class SegmentRetest(msgspec.Struct, frozen=True, kw_only=True):
    """From the exact state at the takeover: successes of ``runs`` runs. It passes when the new version succeeds in more than half."""

    runs: int
    old: int
    new: int
    verdict: str  # of `retest.verdict_of`
    passed: bool


class SegmentAbsorption(msgspec.Struct, frozen=True, kw_only=True):
    """One correction; see `absorption.Distance`. ``interval`` None: too few steps. ``n`` steps were compared, ``without_picture`` more
    were left out."""

    episode_id: str
    intervention_id: int
    acted_version: int
    used: bool | None  # None: not noted when the version was made
    n: int
    before: float
    after: float
    interval: tuple[float, float] | None
    verdict: str
    gripper_before: float | None = None
    gripper_after: float | None = None
    retest: SegmentRetest | None = None
    without_picture: int = 0


class Absorption(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a version. ``totals`` are over the corrections of which a batch held a step, or where that was not noted."""

    version: int
    sha256: str
    wall_ns: int
    limit: int  # newest corrections looked at; 0: all
    segments: list[SegmentAbsorption]
    totals: dict[str, Any]
    labelled_out: int
    later: int
    unattended: int
    problems: list[str]
    without_picture: int = 0  # steps of all segments that were left out, since a policy needs pictures that are not there
    with_pictures: bool = False  # policies that see pictures could be asked; older code passed over their corrections


class _Kept(Absorption, frozen=True, kw_only=True):
    """As it lies in the file."""

    segments: list[Any]
    fields: list[str] = []


def read_absorption(workspace: str | os.PathLike[str], version: int) -> Absorption | None:
    """What was measured of a version; None: nothing yet, or of other weights. Raises `ValueError` for a damaged file, naming it."""
    path = version_folder(workspace, version) / FILE
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        rows = [dict(zip(kept.fields, row, strict=True)) for row in kept.segments] if kept.fields else kept.segments
        segments = msgspec.convert(rows, list[SegmentAbsorption])
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}; measure it again with `takeover policy absorb {version}`") from error
    if kept.sha256 != read_manifest(path.parent).sha256:
        return None
    return Absorption(**{name: getattr(kept, name) for name in Absorption.__struct_fields__} | {"segments": segments})


def write_absorption(workspace: str | os.PathLike[str], made: Absorption) -> None:
    """Whole or not at all, under `Absorption.version`. Raises `OSError`."""
    names = list(SegmentAbsorption.__struct_fields__)
    rows = [[getattr(segment, name) for name in names] for segment in made.segments]
    content = msgspec.structs.asdict(made) | {"fields": names, "segments": rows}
    path = version_folder(workspace, made.version) / FILE
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write(temporary, msgspec.json.encode(content))
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
