"""Exact-resume checkpoints: ``<run>/checkpoint-<n>/{state.safetensors,state.json}``, written by a thread while learning goes on.

Whole or not there: a temporary folder, flushed, renamed. The newest whole one counts. Kept are the newest two that are whole and what is
newer than those; older ones go only after a new one is in place and was read back, so the last good one is never removed.
"""

import hashlib
import json
import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import psutil
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from takeover.data.heap import give_back

log = logging.getLogger("learner")

TENSORS_NAME = "state.safetensors"
VALUES_NAME = "state.json"
KEPT = 2
_PREFIX = "checkpoint-"


class CheckpointError(ValueError):
    """A checkpoint that is not whole."""


def save_checkpoint(run: Path, state: dict[str, Any]) -> Path:
    """Write ``state`` (``tensors`` plus JSON-able rest) under a new number; older ones go only after it is in place and whole.

    Raises `OSError`, with everything as it was before.
    """
    run.mkdir(parents=True, exist_ok=True)
    number = max(_numbers(run), default=0) + 1
    target = run / f"{_PREFIX}{number:08d}"
    temporary = run / f".{target.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        data = save_safetensors({name: tensor.contiguous() for name, tensor in state["tensors"].items()})
        rest = json.loads(json.dumps({key: value for key, value in state.items() if key != "tensors"}))
        values = json.dumps(rest | {"sha256": _hash(data, rest)}).encode()
        for name, content in ((TENSORS_NAME, data), (VALUES_NAME, values)):
            with (temporary / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    descriptor = os.open(run, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _prune(run)
    return target


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Raises `CheckpointError` saying what is wrong with it."""
    try:
        data = (folder / TENSORS_NAME).read_bytes()
        state = json.loads((folder / VALUES_NAME).read_bytes())
        if _hash(data, {key: value for key, value in state.items() if key != "sha256"}) != state.pop("sha256"):
            raise CheckpointError(f"{folder}: the hash does not match")
        return state | {"tensors": load_safetensors(data)}
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise error if isinstance(error, CheckpointError) else CheckpointError(f"{folder}: {error}") from error


def newest_checkpoint(run: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest whole checkpoint (None: there is none) and why newer ones were passed over."""
    problems: list[str] = []
    for number in sorted(_numbers(run), reverse=True):
        try:
            return load_checkpoint(_path(run, number)), problems
        except CheckpointError as error:
            problems.append(str(error))
    return None, problems


class CheckpointWriter:
    """Writes checkpoints of ``run`` in a thread of its own: a learner copies its state and goes on.

    A state that comes while another is being written waits; a newer one takes its place. ``problem``: why the last one could not be
    written, empty when it could. `submit` and `close` are one thread's.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.problem = ""
        self.written = 0
        self._waiting: dict[str, Any] | None = None
        self._busy = False
        self._closing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        _remove_left_over(run)

    def submit(self, state: dict[str, Any]) -> None:
        """Have ``state``, of which nobody changes a tensor any more, written soon."""
        with self._changed:
            self._waiting = state
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything submitted is written, or could not be."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None and not self._busy)

    def close(self) -> None:
        """Write what waits and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closing)
                state, self._waiting = self._waiting, None
                self._busy = state is not None
            if state is None:
                return
            try:
                save_checkpoint(self.run, state)
                self.problem = ""
                self.written += 1
            except (OSError, SafetensorError, ValueError, TypeError, MemoryError, RuntimeError) as error:  # it lives to write the next one
                self.problem = f"checkpoint not written: {str(error) or type(error).__name__}; the one before is kept"
                log.error("%s", self.problem)
            finally:
                del state  # a copy of all that was learned: not kept until the next one
                give_back()
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()


def _path(run: Path, number: int) -> Path:
    return run / f"{_PREFIX}{number:08d}"


def _numbers(run: Path) -> list[int]:
    if not run.is_dir():
        return []
    names = [path.name[len(_PREFIX) :] for path in run.iterdir() if path.name.startswith(_PREFIX)]
    return [int(name) for name in names if name.isdecimal()]


def _hash(data: bytes, rest: dict[str, Any]) -> str:
    digest = hashlib.sha256(data)
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()


def _prune(run: Path) -> None:
    whole = 0
    for number in sorted(_numbers(run), reverse=True):
        if whole >= KEPT:
            shutil.rmtree(_path(run, number))
            continue
        try:
            load_checkpoint(_path(run, number))
            whole += 1
        except CheckpointError as error:
            log.warning("a checkpoint does not count: %s", error)


def _remove_left_over(run: Path) -> None:
    """What a process that was killed in mid-write has left."""
    for path in run.glob(f".{_PREFIX}*.tmp"):
        pid = path.name.split(".")[-2]
        if not (pid.isdecimal() and psutil.pid_exists(int(pid))):
            shutil.rmtree(path, ignore_errors=True)
