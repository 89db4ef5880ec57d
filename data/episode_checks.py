"""What must hold inside an episode file, seal apart: counts, clocks, finite numbers, tables that point into the file."""

from collections.abc import Iterator

import h5py
import numpy as np

from takeover.data.episode_read import read_bounds

ROWS = ("actions", "rewards", "dones", "states", "action_modes", "intv_labels", "round", "obs/state", "next_obs/state", "hil/seq")
FINITE = ("actions", "rewards", "obs/state", "next_obs/state")  # states are exact bytes, a random generator's too, only stored as f8
FINITE_COLUMNS = ("action", "asked_action", "action_si", "reward", "spread", "command_age_ms", "picture_age_ms")
MAX_NAMED = 5
"""Steps named per problem; the rest are counted."""


def contradictions(demo: h5py.Group) -> Iterator[str]:
    """Everything that contradicts itself in ``/data/demo_0``, each named with its step. Raises `KeyError` for a missing dataset."""
    yield from _counts(demo)
    samples, hil = int(demo.attrs["num_samples"]), demo["hil"]
    for name in FINITE:
        yield from _finite(name, demo[name][:])
    for where, group in _step_groups(hil):
        yield from _columns(where, group)
    yield from _clocks(hil)
    yield from _frames(hil)
    yield from _tables(hil, samples)
    for camera in hil["pictures"]:
        yield from _pictures(camera, hil["pictures"][camera])


def _step_groups(hil: h5py.Group) -> list[tuple[str, h5py.Group]]:
    return [("hil", hil), *([("hil/held", hil["held"])] if "held" in hil else [])]


def _steps(indices: np.ndarray) -> str:
    shown = ", ".join(str(int(index)) for index in indices[:MAX_NAMED])
    more = f" and {len(indices) - MAX_NAMED} more" if len(indices) > MAX_NAMED else ""
    return f"step{'s' if len(indices) > 1 else ''} {shown}{more}"


def _counts(demo: h5py.Group) -> Iterator[str]:
    end = read_bounds(demo)[1]
    samples, recovered = int(demo.attrs["num_samples"]), bool(demo.attrs["recovered"])
    if end.steps != samples and not (recovered and samples < end.steps):  # a recovered one may lack what was never acknowledged
        yield f"the bridge counted {end.steps} steps, the file has {samples}"
    elif end.steps == samples and end.human_steps != int(demo.attrs["human_steps"]):
        yield f"the bridge counted {end.human_steps} human steps, the file has {int(demo.attrs['human_steps'])}"
    for name in ROWS:
        if demo[name].shape[0] != samples:
            yield f"{name} has {demo[name].shape[0]} rows, not {samples}"
    for where, group in _step_groups(demo["hil"]):
        rows = group["seq"].shape[0]
        for name, item in group.items():
            if isinstance(item, h5py.Dataset) and name not in ("interventions", "events") and item.shape[0] != rows:
                yield f"{where}/{name} has {item.shape[0]} rows, not {rows}"


def _finite(name: str, values: np.ndarray, rows: np.ndarray | None = None) -> Iterator[str]:
    """``rows``: which must be finite (all when left out)."""
    if not len(values):
        return
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if rows is not None:
        bad &= rows
    found = np.flatnonzero(bad)
    if found.size:
        yield f"{name} is not finite at {_steps(found)}"


def _columns(where: str, group: h5py.Group) -> Iterator[str]:
    for name in FINITE_COLUMNS:
        yield from _finite(f"{where}/{name}", group[name][:])
    for name in ("policy_action", "human_action"):
        yield from _finite(f"{where}/{name}", group[name][:], group[f"{name}_valid"][:].astype(bool))
    beyond = np.flatnonzero((np.abs(group["action"][:]) > 1.0).any(axis=1))
    if beyond.size:
        yield f"{where}/action is outside [-1, 1] at {_steps(beyond)}"


def _clocks(hil: h5py.Group) -> Iterator[str]:
    for where, group in _step_groups(hil):
        for name in ("seq", "rec_seq", "t_observation_ns"):
            backwards = np.flatnonzero(np.diff(group[name][:]) <= 0)
            if backwards.size:
                yield f"{where}/{name} does not increase at {_steps(backwards + 1)}"
        for earlier, later in (("t_observation_ns", "t_decision_ns"), ("t_decision_ns", "t_applied_ns")):
            wrong = np.flatnonzero(group[later][:] < group[earlier][:])
            if wrong.size:
                yield f"{where}/{later} is before {earlier} at {_steps(wrong)}"


def _frames(hil: h5py.Group) -> Iterator[str]:
    rows = hil["frames/state"].shape[0]
    for where, group in _step_groups(hil):
        index = group["frame_index"][:]
        outside = np.flatnonzero((index < 0) | (index + 1 >= rows))
        if outside.size:
            yield f"{where}/frame_index points outside the {rows} frames at {_steps(outside)}"


def _tables(hil: h5py.Group, samples: int) -> Iterator[str]:
    table = hil["interventions"][:]
    for row in table:
        if not 0 <= row["start"] <= row["end"] < samples:
            yield f"intervention {int(row['id'])} goes from step {int(row['start'])} to {int(row['end'])} of {samples}"
    if len(np.unique(table["id"])) != len(table):
        yield "two interventions have the same id"
    backwards = np.flatnonzero(np.diff(hil["events"][:]["rec_seq"]) <= 0)
    if backwards.size:
        yield f"hil/events: rec_seq does not increase at row {int(backwards[0]) + 1}"
    yield from _offsets("hil/sim_state", hil["sim_state/offsets"][:], hil["sim_state/data"].shape[0], hil["sim_state/seq"].shape[0])


def _offsets(name: str, offsets: np.ndarray, size: int, count: int) -> Iterator[str]:
    if len(offsets) != count + 1 or offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) < 0).any():
        yield f"{name}: the offsets do not fit the {size} bytes of {count} entries"


def _pictures(camera: str, group: h5py.Group) -> Iterator[str]:
    name = f"hil/pictures/{camera}"
    yield from _offsets(name, group["offsets"][:], group["jpeg"].shape[0], group["seq"].shape[0])
    for column in ("t_source_ns", "counter", "rec_seq"):
        backwards = np.flatnonzero(np.diff(group[column][:]) < 0)
        if backwards.size:
            yield f"{name}/{column} goes backwards at picture {int(backwards[0]) + 1}"
