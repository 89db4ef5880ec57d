"""Exact-resume checkpoints: ``<run>/checkpoint-<n>/{state.safetensors,state.json}``. The newest whole one counts; two are kept."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

TENSORS_NAME = "state.safetensors"
VALUES_NAME = "state.json"
_PREFIX = "checkpoint-"
_KEPT = 2


class CheckpointError(ValueError):
    """A checkpoint that is not whole."""


def save_checkpoint(run: Path, state: dict[str, Any]) -> Path:
    """Write ``state`` (``tensors`` plus JSON-able rest) under a new number; older ones go only after it is in place."""
    run.mkdir(parents=True, exist_ok=True)
    number = max(_numbers(run), default=0) + 1
    target = run / f"{_PREFIX}{number:08d}"
    temporary = run / f".{target.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    data = save_safetensors({name: tensor.contiguous() for name, tensor in state["tensors"].items()})
    rest = {key: value for key, value in state.items() if key != "tensors"} | {"sha256": hashlib.sha256(data).hexdigest()}
    for name, content in ((TENSORS_NAME, data), (VALUES_NAME, json.dumps(rest).encode())):
        with (temporary / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    temporary.rename(target)
    for old in sorted(_numbers(run))[:-_KEPT]:
        shutil.rmtree(run / f"{_PREFIX}{old:08d}")
    return target


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Raises `CheckpointError` saying what is wrong with it."""
    try:
        data = (folder / TENSORS_NAME).read_bytes()
        state = json.loads((folder / VALUES_NAME).read_bytes())
        if hashlib.sha256(data).hexdigest() != state.pop("sha256"):
            raise CheckpointError(f"{folder}: the hash does not match")
        return state | {"tensors": load_safetensors(data)}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: {error}") from error


def newest_checkpoint(run: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest whole checkpoint (None: there is none) and why newer ones were passed over."""
    problems: list[str] = []
    for number in sorted(_numbers(run), reverse=True):
        try:
            return load_checkpoint(run / f"{_PREFIX}{number:08d}"), problems
        except CheckpointError as error:
            problems.append(str(error))
    return None, problems


def _numbers(run: Path) -> list[int]:
    if not run.is_dir():
        return []
    return [int(path.name[len(_PREFIX) :]) for path in run.iterdir() if path.name.startswith(_PREFIX)]
