"""TensorBoard event files: one for every start of a learner, whose steps never go back from one to the next."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

log = logging.getLogger("learner")

PATTERN = "events.out.tfevents.*"
TRY_AGAIN_AFTER_S = 30.0


class EventFile:
    """Scalars over updates, written by the writer's own thread.

    Updates that an earlier learner has already written, and that are made again after it was killed, are not written twice.
    ``problem``: why nothing can be written, empty when it can; it is tried again now and then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last = newest_step(folder)
        self.problem = ""
        self._try_at = 0.0
        self._writer: EventFileWriter | None = None
        self._open()

    def set_aside(self) -> None:
        """Learning begins anew: what was written so far belongs to something else."""
        if self._last < 0:
            return
        self.close()
        number = 1
        while (aside := self._folder.with_name(f"{self._folder.name}-before-{number}")).exists():
            number += 1
        self._folder.rename(aside)
        self._last = -1
        self._open()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One point of each curve; never raises."""
        if step <= self._last:
            return
        if self._writer is None and time.monotonic() >= self._try_at:
            self._open()
        if self._writer is None:
            return
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        try:
            self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
            self._last = step
        except OSError as error:
            self._fail(error)

    def close(self) -> None:
        """Write what waits."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.close()
        except OSError as error:
            self._fail(error)

    def _open(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventFileWriter(str(self._folder), flush_secs=10)
            self.problem = ""
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._writer, self._try_at = None, time.monotonic() + TRY_AGAIN_AFTER_S
        self.problem = f"the learning curves are not written: {error}"
        log.error("%s", self.problem)


def read_scalars(folder: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, {curve: value}) of every event in the folder's files, in the order they were made; a torn end of a file is passed over."""
    for path in sorted(folder.glob(PATTERN)):
        yield from _read(path)


def newest_step(folder: Path) -> int:
    """The last step that was written; -1: none."""
    for path in sorted(folder.glob(PATTERN), reverse=True):
        steps = [step for step, _ in _read(path)]
        if steps:
            return max(steps)
    return -1


def _read(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    for raw in RawEventFileLoader(str(path)).Load():
        event = Event.FromString(raw)
        if event.summary.value:
            yield event.step, {value.tag: value.simple_value for value in event.summary.value}
