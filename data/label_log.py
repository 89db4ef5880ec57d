"""``labels.jsonl``: one label event per line, appended and synced before anything else knows of it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from takeover.data.catalog_tables import LabelEvent
from takeover.data.locked_log import locked as locked

_TAIL = 1 << 16


class LabelError(ValueError):
    """A label that cannot be: unknown field, value or target, a step that is not there, nothing to undo. Says what is allowed."""


class LabelLog:
    """The log while this process holds its lock: nobody else appends. Made by `open_log`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self.size = _drop_torn_line(fd)

    def append(self, events: Sequence[LabelEvent]) -> None:
        """All of them or, when the disk refuses, none: what was written is cut off again and `OSError` raised."""
        self.write(lines_of(events))

    def write(self, data: bytes) -> None:
        """Add whole lines; as `append`."""
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._fd, left) :]
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self.size)
            raise
        self.size += len(data)

    def read(self, start: int = 0) -> list[LabelEvent]:
        """Events from byte ``start`` (the beginning of a line) on. Raises `LabelError` naming a line that cannot be read."""
        size = self.size - start
        data = b""
        while len(data) < size and (piece := os.pread(self._fd, min(size - len(data), 1 << 24), start + len(data))):
            data += piece
        return _events(self.path, data, start)


@contextmanager
def open_log(path: Path) -> Iterator[LabelLog]:
    """Lock the log, made when there is none; a torn last line, which was never acknowledged, is dropped. Raises `OSError`."""
    with locked(path) as fd:
        yield LabelLog(path, fd)


def lines_of(events: Sequence[LabelEvent]) -> bytes:
    """A log of these events."""
    encoder = msgspec.json.Encoder()
    return b"".join(encoder.encode(event) + b"\n" for event in events)


def _drop_torn_line(fd: int) -> int:
    """Cut off what a process killed in the middle of a line left behind; returns the size that is left."""
    size = end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _TAIL)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(fd, end)
    return end


def read_log(path: Path) -> list[LabelEvent]:
    """Events of a label log; a last line without its end is left out. Raises `LabelError` naming any other broken line."""
    if not path.exists():
        return []
    data = path.read_bytes()
    return _events(path, data[: data.rfind(b"\n") + 1], 0)


def _events(path: Path, data: bytes, start: int) -> list[LabelEvent]:
    decoder = msgspec.json.Decoder(LabelEvent)
    found = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line:
            continue
        try:
            found.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            where = f"line {number}" if start == 0 else f"line {number} after byte {start}"
            raise LabelError(f"{path}, {where}: {error}; `takeover data repair` sets the line aside and keeps the others") from error
    return found
