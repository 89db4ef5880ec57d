"""A contact sheet: what the cameras saw over an episode, and who drove when, as one PNG."""

from pathlib import Path

import numpy as np

from takeover.data import png
from takeover.data.episode_file import EpisodeReader
from takeover.data.hdf5_image import write_durably
from takeover.data.schema import ControlMode

COLUMNS = 12
THUMB_WIDTH, THUMB_HEIGHT = 160, 120
_MARGIN, _GAP, _BAR, _LINE = 12, 4, 16, 19
_PAPER, _INK, _EMPTY = (250, 250, 248), (30, 30, 34), (200, 200, 200)
COLOURS = {
    ControlMode.POLICY: (74, 114, 176),
    ControlMode.HUMAN: (230, 140, 0),
    ControlMode.TRANSITION: (246, 196, 110),
    ControlMode.PAUSED: (150, 150, 150),
    ControlMode.SAFETY_HOLD: (196, 32, 52),
}
"""Of the bar on top and the band over each picture."""
_NAMES = {
    ControlMode.POLICY: "policy",
    ControlMode.HUMAN: "human",
    ControlMode.TRANSITION: "ramp",
    ControlMode.PAUSED: "paused",
    ControlMode.SAFETY_HOLD: "safety hold",
}


class SheetError(RuntimeError):
    """No sheet can be drawn: nothing was recorded, no pictures, or no JPEG decoder installed. Says what to do."""


def write_contact_sheet(reader: EpisodeReader, path: Path, columns: int = COLUMNS) -> int:
    """Draw the episode's cameras at ``columns`` moments, onsets of interventions among them, into a PNG; returns how many pictures.

    Full-size pictures are used, or the policy's where there are none. Raises `SheetError`, `OSError`.
    """
    sheet, count = contact_sheet(reader, columns)
    write_durably(path, png.encode_png(sheet))
    return count


def contact_sheet(reader: EpisodeReader, columns: int = COLUMNS) -> tuple[np.ndarray, int]:
    """((H, W, 3) uint8 RGB, number of pictures drawn). Raises `SheetError`."""
    times, modes = reader.column("t_observation_ns", held=True), reader.column("control_mode", held=True)
    if not len(times):
        raise SheetError(f"{reader.path}: the episode has no steps; there is nothing to draw")
    sources = _sources(reader)
    if not sources:
        raise SheetError(f"{reader.path}: no pictures were recorded; there is nothing to draw")
    onsets = _onset_times(reader)
    moments = choose_moments(int(times[0]), int(times[-1]), onsets, max(1, columns))
    width = 2 * _MARGIN + len(moments) * (THUMB_WIDTH + _GAP) - _GAP
    cell = _LINE + 6 + THUMB_HEIGHT + _GAP
    sheet = np.full((2 * _MARGIN + 2 * _LINE + _BAR + 2 * _LINE + len(sources) * (cell + _LINE), width, 3), _PAPER, np.uint8)
    y = _head(sheet, reader, times, modes, onsets)
    drawn = 0
    for camera in sources:
        png.draw_text(sheet, _MARGIN, y, camera, _INK)
        y += _LINE
        for index, moment in enumerate(moments):
            x = _MARGIN + index * (THUMB_WIDTH + _GAP)
            mode = ControlMode(int(modes[max(0, int(np.searchsorted(times, moment, side="right")) - 1)]))
            drawn += _cell(sheet, x, y, reader, camera, moment, mode, moment in onsets)
        y += cell
    return sheet, drawn


def choose_moments(first: int, last: int, onsets: list[int], count: int) -> list[int]:
    """``count`` moments from first to last at equal distances; to every onset the nearest one is moved, as long as there are any left."""
    moments = [first + (last - first) * index // max(1, count - 1) for index in range(count if last > first else 1)]
    free = set(range(len(moments)))
    for onset in onsets:
        if free:
            nearest = min(free, key=lambda index: abs(moments[index] - onset))
            moments[nearest] = onset
            free.discard(nearest)
    return sorted(moments)


def _onset_times(reader: EpisodeReader) -> list[int]:
    times = reader.column("t_observation_ns")
    return [int(times[item["start"]]) for item in reader.interventions]


def _sources(reader: EpisodeReader) -> list[str]:
    return [camera for camera in reader.cameras if reader.frame_count(camera)] or reader.policy_cameras


def _picture(reader: EpisodeReader, camera: str, moment: int) -> np.ndarray | None:
    """(H, W, 3) uint8, or None where that picture cannot be decoded. Raises `SheetError` without a decoder."""
    if camera not in reader.cameras:
        return reader.policy_picture(camera, moment)
    try:
        import simplejpeg
    except ImportError:
        raise SheetError("no JPEG decoder is installed: pip install 'takeover[bridge]'") from None
    try:
        decoded: np.ndarray = simplejpeg.decode_jpeg(reader.frame(camera, reader.frame_at(camera, moment)), colorspace="RGB")
    except ValueError:
        return None
    return decoded


def _cell(sheet: np.ndarray, x: int, y: int, reader: EpisodeReader, camera: str, moment: int, mode: ControlMode, onset: bool) -> int:
    label = f"{max(0.0, (moment - reader.start.t_ns) / 1e9):.1f} s"
    png.draw_text(sheet, x, y, label, _INK)
    if onset:
        png.draw_text(sheet, x + png.text_width(label + " "), y, "takeover", COLOURS[ControlMode.HUMAN])
    y += _LINE - 2
    png.fill(sheet, x, y, THUMB_WIDTH, 6, COLOURS[mode])
    y += 6
    picture = _picture(reader, camera, moment)
    if picture is None:
        png.fill(sheet, x, y, THUMB_WIDTH, THUMB_HEIGHT, _EMPTY)
        png.draw_text(sheet, x + 8, y + THUMB_HEIGHT // 2, "unreadable", _INK)
    else:
        sheet[y : y + THUMB_HEIGHT, x : x + THUMB_WIDTH] = png.fit(picture, THUMB_WIDTH, THUMB_HEIGHT)
    if onset:
        png.frame(sheet, x, y, THUMB_WIDTH, THUMB_HEIGHT, COLOURS[ControlMode.HUMAN])
    return int(picture is not None)


def _head(sheet: np.ndarray, reader: EpisodeReader, times: np.ndarray, modes: np.ndarray, onsets: list[int]) -> int:
    """Title, bar of authority with a tick at each onset, legend; returns the y below."""
    start, y = reader.start, _MARGIN
    outcome = f"{reader.attributes['outcome']} ({reader.attributes['outcome_source']})"
    png.draw_text(sheet, _MARGIN, y, f"{start.episode_id}  {start.spec.task_id}  {start.kind.value}  {outcome}  {len(reader)} steps", _INK)
    y += _LINE
    width = sheet.shape[1] - 2 * _MARGIN
    moments = np.linspace(times[0], times[-1], width)
    at = np.clip(np.searchsorted(times, moments, side="right") - 1, 0, len(times) - 1)
    palette = np.array([COLOURS[mode] for mode in ControlMode], np.uint8)
    sheet[y : y + _BAR, _MARGIN : _MARGIN + width] = palette[modes[at].astype(int)]
    span = max(1, int(times[-1] - times[0]))
    for onset in onsets:
        png.fill(sheet, _MARGIN + (onset - int(times[0])) * (width - 2) // span, y - 3, 2, _BAR + 6, _INK)
    y += _BAR + 6
    x = _MARGIN
    for mode, name in _NAMES.items():
        png.fill(sheet, x, y + 3, 10, 10, COLOURS[mode])
        png.draw_text(sheet, x + 14, y, name, _INK)
        x += 14 + png.text_width(name) + 12
    return y + 2 * _LINE
