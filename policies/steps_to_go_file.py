"""Steps-to-go heads on disk: ``<workspace>/steps_to_go/<robot>-<task>-<hash>.safetensors``, one file with everything known of it.

The file's metadata holds a `HeadManifest` as JSON; the hash in it is of the tensors. A head is for one robot and task; a newer one
replaces it as a whole.
"""

import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import Tensor

from takeover.data.schema import RobotSpec
from takeover.policies.base import FloatArray, PolicyRefused
from takeover.policies.steps_to_go import PREFIX, Bins, Head, layout_of

FOLDER = "steps_to_go"
KEY = "takeover"


class HeadManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of a head but its tensors."""

    robot_id: str
    task_id: str
    observation_names: list[str]
    max_steps: int
    hidden: int
    sha256: str  # of the tensors, see `tensors_sha256`
    success_steps: float  # success is offered where d is at most this
    stall_spread_steps: float | None  # spread above which a stall is said; None: too few runs to set it
    episodes: int  # learned from
    recorded: int = 0  # episodes there were, held-out ones included
    report: dict[str, Any] = msgspec.field(default_factory=dict)
    wall_ns: int = 0


class ProgressScores:
    """A head that acts: an observation in, scores out, as an actor sends them beside its action."""

    def __init__(self, head: Head, manifest: HeadManifest) -> None:
        self.head, self.manifest = head, manifest
        self._stall = manifest.stall_spread_steps

    def scores(self, observation: FloatArray) -> dict[str, float]:
        """Observation (D,) -> ``steps_to_go`` and ``steps_to_go_spread`` in steps, ``success_offered`` 0 or 1, and ``stalled`` 0 or 1 where
        its threshold is known. Raises `ValueError` for an observation of another size."""
        d, spread = self.head.of(observation[None])
        made = {"steps_to_go": float(d[0]), "steps_to_go_spread": float(spread[0])}
        made["success_offered"] = float(made["steps_to_go"] <= self.manifest.success_steps)
        if self._stall is not None:
            made["stalled"] = float(made["steps_to_go_spread"] > self._stall)
        return made


def head_path(workspace: str | os.PathLike[str], robot_id: str, task_id: str) -> Path:
    """Where the head for a robot and task is; names become a readable and unique file name."""
    identity = f"{robot_id}\0{task_id}"
    readable = re.sub(r"[^A-Za-z0-9]+", "-", identity).strip("-")[:60]
    return Path(workspace) / FOLDER / f"{readable}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}.safetensors"


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """Of names, shapes and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_head(workspace: str | os.PathLike[str], head: Head, manifest: HeadManifest) -> Path:
    """Write it under a temporary name, flushed, then renamed: whole or not at all. Raises `OSError`."""
    path = head_path(workspace, manifest.robot_id, manifest.task_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = save_safetensors(head.tensors(), metadata={KEY: msgspec.json.encode(manifest).decode()})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def make_manifest(head: Head, spec: RobotSpec, **fields: Any) -> HeadManifest:
    """A manifest for ``head``; ``fields`` are the manifest's others."""
    return HeadManifest(
        robot_id=spec.robot_id,
        task_id=spec.task_id,
        observation_names=list(spec.observation.names),
        max_steps=head.bins.limit,
        hidden=head.hidden,
        sha256=tensors_sha256(head.tensors()),
        **fields,
    )


def read_head(path: Path) -> tuple[HeadManifest, dict[str, Tensor]]:
    """Raises `PolicyRefused` for a file that is damaged or none of ours, `FileNotFoundError`."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError) as error:
        raise PolicyRefused(f"cannot read {path}: {error}") from error
    if KEY not in metadata:
        raise PolicyRefused(f"{path} is no steps-to-go head: its metadata lacks {KEY!r}")
    try:
        manifest = msgspec.convert(json.loads(metadata[KEY]), HeadManifest)
    except (ValueError, msgspec.ValidationError) as error:
        raise PolicyRefused(f"{path}: {error}") from error
    if tensors_sha256(tensors) != manifest.sha256:
        raise PolicyRefused(f"{path}: the hash does not match; fit it again with `takeover policy steps-to-go`")
    return manifest, tensors


def load_head(path: Path, spec: RobotSpec) -> ProgressScores:
    """Read and check a head for ``spec``. Raises `PolicyRefused` with the reason, `FileNotFoundError`."""
    manifest, tensors = read_head(path)
    if (manifest.robot_id, manifest.task_id) != (spec.robot_id, spec.task_id):
        raise PolicyRefused(f"{path} is for {manifest.robot_id}:{manifest.task_id}, this robot is {spec.robot_id}:{spec.task_id}")
    if manifest.observation_names != list(spec.observation.names):
        raise PolicyRefused(f"{path} was fitted to other observations than this robot's")
    if not (math.isfinite(manifest.success_steps) and manifest.max_steps >= 1 and manifest.hidden >= 1):
        raise PolicyRefused(f"{path}: success_steps, max_steps or hidden is out of range")
    bins = Bins.of(manifest.max_steps)
    size = len(manifest.observation_names)
    expected = {"flat": (layout_of(size, manifest.hidden, bins).size,), "mean": (size,), "scale": (size,)}
    for name, shape in expected.items():
        tensor = tensors.get(f"{PREFIX}.{name}")
        if tensor is None or tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            raise PolicyRefused(f"{path}: tensor {PREFIX}.{name!r} is missing or not float32 {shape}")
        if not bool(torch.isfinite(tensor).all()):
            raise PolicyRefused(f"{path}: tensor {PREFIX}.{name!r} holds a number that is not finite")
    head = Head(bins, manifest.hidden, *(tensors[f"{PREFIX}.{name}"] for name in ("flat", "mean", "scale")))
    return ProgressScores(head, manifest)


class HeadWatch:
    """The newest head for a robot and task; looked for when an episode begins. A head that is refused is said in ``problem``."""

    def __init__(self, workspace: str | os.PathLike[str], spec: RobotSpec) -> None:
        self._path = head_path(workspace, spec.robot_id, spec.task_id)
        self._spec = spec
        self._stamp: tuple[int, int] | None = None
        self.current: ProgressScores | None = None
        self.problem = ""

    def look(self) -> None:
        """Load a head that is new or was replaced; one that went or is refused acts no longer."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._stamp, self.current, self.problem = None, None, ""
            return
        except OSError as error:
            self._stamp, self.current, self.problem = None, None, f"{self._path}: {error.strerror}"
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.current, self.problem = load_head(self._path, self._spec), ""
        except FileNotFoundError:
            self._stamp, self.current = None, None
        except PolicyRefused as error:
            self.current, self.problem = None, str(error)
