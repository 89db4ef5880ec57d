"""From an episode's records to the bytes of its HDF5 file (recording.md, docs/data-format.md)."""

import json
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from takeover.data.drivers import driver_at, drivers
from takeover.data.episode_attributes import environment_args, put_attributes
from takeover.data.episode_schema import (
    ACTION_COLUMNS,
    COLUMNS,
    OPTIONAL_ACTIONS,
    EpisodeError,
    EpisodeRecords,
    action_modes,
    ending,
    intervention_labels,
    is_held,
    is_human,
)
from takeover.data.hdf5_image import ImageBuilder
from takeover.data.schema import CameraFrame, ControlMode, EpisodeEnd, EpisodeKind, EpisodeStart, Event, Outcome, Step, Trigger

__all__ = ["DEMO", "build_episode", "environment_args", "find_interventions", "step_problem", "text_array"]

DEMO = "data/demo_0"
PICTURE_CHUNK_BYTES = 1 << 20


def text_array(values: Sequence[str]) -> np.ndarray:
    """UTF-8 bytes of fixed length, at least one byte."""
    encoded = [value.encode() for value in values]
    return np.array(encoded, dtype=f"S{max([1, *map(len, encoded)])}")


def build_episode(episode: EpisodeRecords) -> bytes:
    """The sealed HDF5 file. Raises `EpisodeError`, naming the step when the records contradict each other."""
    start, end = episode.start, ending(episode)
    _check(start, episode.steps)
    builder = ImageBuilder()
    try:
        _put_episode(builder, episode, end)
        return builder.finish()
    except BaseException as error:
        builder.abandon()
        if isinstance(error, EpisodeError) or not isinstance(error, Exception):
            raise
        # no disk is involved yet: it is the records, a number without room in its column, a score's name that is none
        raise EpisodeError(f"episode {start.episode_id}: {type(error).__name__}: {error}") from error


def _put_episode(builder: ImageBuilder, episode: EpisodeRecords, end: EpisodeEnd) -> None:
    start = episode.start
    driven = [step for step in episode.steps if not is_held(step)]
    held = [step for step in episode.steps if is_held(step)]
    demo = builder.root.create_group(DEMO)
    hil = demo.create_group("hil")
    _put_frames(builder, demo, hil, episode.steps, start)
    _put_core(builder, demo, driven, start)
    _put_steps(builder, hil, driven, start)
    if held:
        held_group = hil.create_group("held")
        _put_steps(builder, held_group, held, start)
    frame_of = _frame_rows(episode.steps)[0]
    builder.put(hil, "frame_index", np.array([frame_of[id(step)] for step in driven], np.int32))
    if held:
        builder.put(hil["held"], "frame_index", np.array([frame_of[id(step)] for step in held], np.int32))
    _put_interventions(builder, hil, episode)
    _put_events(builder, hil, episode.events)
    _put_states(builder, demo, hil, episode, end)
    _put_pictures(builder, hil, episode.frames)
    put_attributes(builder.root, demo, episode, end, len(driven))


def _check(start: EpisodeStart, steps: Sequence[Step]) -> None:
    for step in steps:
        if problem := step_problem(start, step):
            raise EpisodeError(f"episode {start.episode_id}, step seq {step.seq}: {problem}")


def step_problem(start: EpisodeStart, step: Step) -> str:
    """What in a step contradicts the robot's description; empty when nothing does."""
    size, width, groups = start.spec.action.size, start.spec.observation.size, len(start.spec.action.groups)
    for name in ACTION_COLUMNS:
        value = getattr(step, name)
        if value is None and name in OPTIONAL_ACTIONS:
            continue
        if len(value) != size:
            return f"{name} has {len(value)} numbers, the robot's action has {size}"
    if len(step.observation) != width or len(step.next_observation) != width:
        return f"the observation does not have {width} numbers"
    return f"source has {len(step.source)} entries, the robot has {groups} action groups" if len(step.source) != groups else ""


def _frame_rows(steps: Sequence[Step]) -> tuple[dict[int, int], list[tuple[Step, bool]]]:
    """Where each step's observation is stored (by ``id(step)``; its successor is the row after), and what the rows are.

    Every observation is stored once: a step that begins with what the last one ended with, in the same run, shares its row.
    """
    row_of: dict[int, int] = {}
    rows: list[tuple[Step, bool]] = []  # (step, whether the row is its *next* observation)
    last: Step | None = None
    for step in steps:
        joined = last is not None and (
            step.run_id == last.run_id
            and step.seq == last.seq + 1
            and step.observation == last.next_observation
            and is_held(step) == is_held(last)
        )
        if not joined:
            rows.append((step, False))
        row_of[id(step)] = len(rows) - 1
        rows.append((step, True))
        last = step
    return row_of, rows


def _put_frames(builder: ImageBuilder, demo: h5py.Group, hil: h5py.Group, steps: Sequence[Step], start: EpisodeStart) -> None:
    row_of, rows = _frame_rows(steps)
    frames = hil.create_group("frames")
    width = start.spec.observation.size
    state = np.array([step.next_observation if after else step.observation for step, after in rows], np.float64).reshape(len(rows), width)
    builder.put(frames, "state", state)
    keys = ["state"]
    by_row = {row_of[id(step)]: step for step in steps}
    cameras = sorted({image.camera for step in steps for image in (*step.images, *step.next_images)})
    for camera in cameras:
        keys.append(camera)
        _put_policy_images(builder, frames, hil, camera, rows, by_row)
    driven = [row_of[id(step)] for step in steps if not is_held(step)]
    stretches = _stretches(driven)
    obs, following = demo.create_group("obs"), demo.create_group("next_obs")
    for key in keys:
        source = f"/{DEMO}/hil/frames/{key}"
        builder.put_view(obs, key, source, stretches, len(driven))
        builder.put_view(following, key, source, [(here, there + 1, n) for here, there, n in stretches], len(driven))


def _put_policy_images(
    builder: ImageBuilder, frames: h5py.Group, hil: h5py.Group, camera: str, rows: Sequence[tuple[Step, bool]], by_row: dict[int, Step]
) -> None:
    """uint8 (rows, H, W, 3), a chunk per picture; rows for which no picture was sent are zero and marked in ``image_valid``."""
    pictures: list[np.ndarray | None] = []
    for index, (step, after) in enumerate(rows):
        owner = by_row.get(index)
        found = [i for i in (owner.images if owner else step.next_images if after else []) if i.camera == camera]
        pictures.append(np.frombuffer(found[0].data, np.uint8).reshape(found[0].height, found[0].width, 3) if found else None)
    shape = next(picture.shape for picture in pictures if picture is not None)
    stack = np.zeros((len(rows), *shape), np.uint8)
    for index, picture in enumerate(pictures):
        if picture is not None:
            if picture.shape != shape:
                raise EpisodeError(f"policy pictures of camera {camera!r} change size: {shape} and {picture.shape}")
            stack[index] = picture
    builder.put(frames, camera, stack, chunk=(1, *shape), lzf=True)
    valid = hil.require_group("image_valid")
    builder.put(valid, camera, np.array([picture is not None for picture in pictures], np.uint8))


def _stretches(rows: Sequence[int]) -> list[tuple[int, int, int]]:
    """Consecutive rows as (first position, first row, length)."""
    found: list[tuple[int, int, int]] = []
    for position, row in enumerate(rows):
        if found and row == found[-1][1] + found[-1][2]:
            here, there, n = found[-1]
            found[-1] = (here, there, n + 1)
        else:
            found.append((position, row, 1))
    return found


def _put_core(builder: ImageBuilder, demo: h5py.Group, driven: Sequence[Step], start: EpisodeStart) -> None:
    n, size = len(driven), start.spec.action.size
    builder.put(demo, "actions", np.array([step.action for step in driven], np.float32).reshape(n, size))
    builder.put(demo, "rewards", np.array([step.reward for step in driven], np.float64))
    builder.put(demo, "dones", np.array([step.terminated or step.truncated for step in driven], np.int64))
    modes = action_modes(start.kind, driven)
    builder.put(demo, "action_modes", modes)
    builder.put(demo, "intv_labels", intervention_labels(modes, start.spec.control_hz))
    builder.put(demo, "round", np.full(n, start.policy_version, np.int64))


def _put_steps(builder: ImageBuilder, group: h5py.Group, steps: Sequence[Step], start: EpisodeStart) -> None:
    for column in COLUMNS:
        values = [getattr(step, column.name) for step in steps]
        builder.put(group, column.name, text_array(values) if column.dtype == "S" else np.array(values, column.dtype))
    n, spec = len(steps), start.spec.action
    absent = [float("nan")] * spec.size
    for name in ACTION_COLUMNS:
        found = [getattr(step, name) for step in steps]
        builder.put(group, name, np.array([absent if row is None else row for row in found], np.float64).reshape(n, spec.size))
        if name in OPTIONAL_ACTIONS:
            builder.put(group, f"{name}_valid", np.array([row is not None for row in found], np.uint8))
    applied = np.array([step.action for step in steps], np.float64).reshape(n, spec.size)
    builder.put(group, "action_si", applied * np.array(spec.scale, np.float64))
    for name in ("observation", "decision"):  # wall_ns was read right after the action was applied
        walls = [step.wall_ns - step.t_applied_ns + getattr(step, f"t_{name}_ns") for step in steps]
        builder.put(group, f"wall_{name}_ns", np.array(walls, np.int64))
    builder.put(group, "source", np.array([step.source for step in steps], np.int8).reshape(n, len(spec.groups)))
    names = sorted({name for step in steps for name in step.scores})
    if names:
        scores = group.create_group("scores")
        scores.attrs["names"] = json.dumps(names)  # a "/" in a name would make a group of it
        for name in names:
            builder.put(scores, name.replace("/", "_"), np.array([step.scores.get(name, np.nan) for step in steps], np.float64))


def find_interventions(steps: Sequence[Step], kind: EpisodeKind) -> list[dict[str, Any]]:
    """Interventions as {id, start, end, trigger}: first and last step (both counted among the N) with human authority.

    A demonstration is no intervention. ``trigger`` is safety when the robot was held by the safety filter just before.
    """
    if kind in (EpisodeKind.DEMONSTRATION, EpisodeKind.MANUAL_RESET):
        return []
    found: dict[int, dict[str, Any]] = {}
    index, last = 0, None
    for step in steps:
        if not is_held(step):
            if step.intervention_id >= 0 and is_human(step):
                after_safety = last is not None and last.control_mode == ControlMode.SAFETY_HOLD
                entry = found.setdefault(
                    step.intervention_id,
                    {"id": step.intervention_id, "start": index, "trigger": Trigger.SAFETY if after_safety else Trigger.HUMAN},
                )
                entry["end"] = index
            index += 1
        last = step
    return list(found.values())


def _put_interventions(builder: ImageBuilder, hil: h5py.Group, episode: EpisodeRecords) -> None:
    found = find_interventions(episode.steps, episode.start.kind)
    driven = [step for step in episode.steps if not is_held(step)]
    changes = drivers(episode.start, episode.events)
    drove = [driver_at(changes, driven[entry["start"]].seq).encode() for entry in found]
    operator = f"S{max(1, len(episode.start.operator.encode()), *map(len, drove))}"
    dtype = np.dtype(
        [("id", "i4"), ("start", "i4"), ("end", "i4"), ("labeled_onset", "i4"), ("kind", "S8"), ("trigger", "S12"), ("operator", operator)]
    )
    # kind and labeled onset are a labeler's; the catalog has them, and exports put them in
    rows = [(e["id"], e["start"], e["end"], -1, b"", e["trigger"].encode(), who) for e, who in zip(found, drove, strict=True)]
    builder.put(hil, "interventions", np.array(rows, dtype))


def _put_events(builder: ImageBuilder, hil: h5py.Group, events: Sequence[Event]) -> None:
    words = {name: text_array([getattr(event, name) for event in events]) for name in ("kind", "source")}
    dtype = np.dtype(
        [("rec_seq", "i8"), ("t_ns", "i8"), ("wall_ns", "i8"), ("seq", "i8"), ("value", "f8")]
        + [(name, words[name].dtype.str) for name in ("kind", "source")]
        + [("text", h5py.string_dtype())]  # of any length: one long text shall not make the row of every other event as long
    )
    table = np.zeros(len(events), dtype)
    for index, event in enumerate(events):
        numbers = (event.rec_seq, event.t_ns, event.wall_ns, event.seq, event.value)
        # such a string ends at a NUL
        table[index] = (
            *numbers,
            *(words[name][index] for name in ("kind", "source")),
            event.text.replace("\0", "\N{REPLACEMENT CHARACTER}"),
        )
    builder.put(hil, "events", table)


def _put_states(builder: ImageBuilder, demo: h5py.Group, hil: h5py.Group, episode: EpisodeRecords, end: EpisodeEnd) -> None:
    """``states`` when every step has one, and the exact bytes at takeovers, failures, marks in ``hil/sim_state``."""
    driven = [step for step in episode.steps if not is_held(step)]
    lengths = {len(step.sim_state) for step in driven}
    whole = len(lengths) == 1 and min(lengths) > 0 and min(lengths) % 8 == 0
    if whole:
        states = np.frombuffer(b"".join(step.sim_state for step in driven), np.float64).reshape(len(driven), -1)
    else:
        states = np.zeros((len(driven), 0), np.float64)
    builder.put(demo, "states", states)
    kept: list[tuple[str, int, bytes]] = []
    onsets = {entry["start"] for entry in find_interventions(episode.steps, episode.start.kind)}
    for index, step in enumerate(driven):
        if not step.sim_state:
            continue
        if index in onsets:
            kept.append(("takeover", step.seq, step.sim_state))
        if end.outcome is Outcome.FAILURE and index == min(end.event_step, len(driven) - 1):
            kept.append(("failure", step.seq, step.sim_state))
        if not whole:
            kept.append(("step", step.seq, step.sim_state))
    kept += [("held", step.seq, step.sim_state) for step in episode.steps if is_held(step) and step.sim_state]
    kept += [(event.kind, event.seq, event.sim_state) for event in episode.events if event.sim_state]
    offsets = np.cumsum([0, *(len(data) for _, _, data in kept)]).astype(np.int64)
    group = hil.create_group("sim_state")
    builder.put(group, "kind", text_array([kind for kind, _, _ in kept]))
    builder.put(group, "seq", np.array([seq for _, seq, _ in kept], np.int64))
    builder.put(group, "offsets", offsets)
    builder.put(group, "data", np.frombuffer(b"".join(data for _, _, data in kept), np.uint8))


def _put_pictures(builder: ImageBuilder, hil: h5py.Group, frames: Sequence[CameraFrame]) -> None:
    pictures = hil.create_group("pictures")
    for camera in sorted({frame.camera for frame in frames}):
        own = [frame for frame in frames if frame.camera == camera]
        group = pictures.create_group(camera)
        group.attrs["width"], group.attrs["height"] = own[0].width, own[0].height
        data = np.frombuffer(b"".join(frame.jpeg for frame in own), np.uint8)
        builder.put(group, "jpeg", data, chunk=(min(max(1, len(data)), PICTURE_CHUNK_BYTES),))
        builder.put(group, "offsets", np.cumsum([0, *(len(frame.jpeg) for frame in own)]).astype(np.int64))
        for name in ("t_source_ns", "counter", "seq", "rec_seq"):
            builder.put(group, name, np.array([getattr(frame, name) for frame in own], np.int64))
