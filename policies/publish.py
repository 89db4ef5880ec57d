"""Published policies: ``<workspace>/policies/<version>/{weights.safetensors,manifest.json}``, written atomically, checked on load."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from takeover.data.schema import RobotSpec
from takeover.data.spaces import differences, spaces_of
from takeover.policies.base import Policy, PolicyRefused, PolicyWeights
from takeover.policies.inference import build_policy
from takeover.policies.lease import Lease
from takeover.policies.manifest import (
    INSTEAD,
    MANIFEST_NAME,
    PRUNED_NAME,
    WEIGHTS_NAME,
    Manifest,
    policies_folder,
    published_versions,
    read_manifest,
    refuse_pruned,
    version_folder,
)

__all__ = [
    "MANIFEST_NAME",
    "WEIGHTS_NAME",
    "LoadedPolicy",
    "Manifest",
    "load_policy",
    "make_manifest",
    "policies_folder",
    "publish",
    "published_versions",
    "read_manifest",
    "version_folder",
    "weights_bytes",
]

MAX_WEIGHTS_BYTES = 4 * 1024**3


class LoadedPolicy(msgspec.Struct, frozen=True):
    """A policy that passed every check, with its manifest."""

    policy: Policy
    manifest: Manifest
    lease: Lease | None = None  # its weights are not pruned while this is there


def weights_bytes(weights: PolicyWeights) -> bytes:
    """The file's content: a function of the tensors alone, so that equal weights have equal hashes."""
    return save_safetensors({name: weights.tensors[name].contiguous() for name in sorted(weights.tensors)})


def make_manifest(weights: PolicyWeights, content: bytes, spec: RobotSpec, **fields: Any) -> Manifest:
    """A manifest for ``weights`` whose file content is ``content``; ``fields`` are the manifest's others."""
    return Manifest(
        sha256=hashlib.sha256(content).hexdigest(),
        architecture=weights.architecture,
        config=weights.config,
        robot_id=spec.robot_id,
        task_id=spec.task_id,
        observation_names=list(spec.observation.names),
        action_names=list(spec.action.names),
        spaces=spaces_of(spec),
        **fields,
    )


def publish(workspace: str | os.PathLike[str], manifest: Manifest, content: bytes, *, sync: bool = True) -> Path:
    """Write one version: a temporary folder, flushed, then renamed. A version that is already there is replaced only by itself.

    One whose weights were pruned gets them back. Raises `FileExistsError` when other weights have this number.
    """
    target = version_folder(workspace, manifest.version)
    if target.exists():
        if read_manifest(target).sha256 == manifest.sha256:
            if not (target / WEIGHTS_NAME).exists():
                _put_back(target, content, sync)
            return target
        raise FileExistsError(f"{target} holds other weights; versions are never overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{manifest.version}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _write(temporary / WEIGHTS_NAME, content, sync)
        _write(temporary / MANIFEST_NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=1), sync)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if sync:
        _sync_folder(target.parent)
    return target


def _put_back(target: Path, content: bytes, sync: bool) -> None:
    temporary = target / f".{WEIGHTS_NAME}.{os.getpid()}.tmp"
    try:
        _write(temporary, content, sync)
        temporary.rename(target / WEIGHTS_NAME)
    finally:
        temporary.unlink(missing_ok=True)
    (target / PRUNED_NAME).unlink(missing_ok=True)
    if sync:
        _sync_folder(target)


def load_policy(folder: str | os.PathLike[str], spec: RobotSpec) -> LoadedPolicy:
    """Read and check one version: hash, architecture, shapes, finiteness, the robot's spaces.

    Its weights stay on disk as long as the result does. Raises `PolicyRefused` with the reason; nothing is loaded in part.
    """
    manifest = read_manifest(folder)
    path = Path(folder) / WEIGHTS_NAME
    try:
        lease = Lease(path)
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise PolicyRefused(f"{path} is larger than {MAX_WEIGHTS_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        refuse_pruned(folder)
        raise PolicyRefused(f"cannot read {path}: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != manifest.sha256:
        raise PolicyRefused(f"{path}: sha256 is {found[:12]}..., the manifest says {manifest.sha256[:12]}...; {INSTEAD}")
    if manifest.observation_names != list(spec.observation.names):
        raise PolicyRefused(f"version {manifest.version} was trained on other observations than this robot's")
    if manifest.action_names != list(spec.action.names):
        raise PolicyRefused(f"version {manifest.version} acts in another action space than this robot's")
    for what, its, ours in differences(manifest.spaces, spaces_of(spec)):
        raise PolicyRefused(
            f"version {manifest.version} was trained with {what} {its}, this robot's: {ours}; its actions would mean others"
        )
    try:
        tensors = load_safetensors(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise PolicyRefused(f"{path}: {error}") from error
    weights = PolicyWeights(manifest.architecture, manifest.config, tensors)
    return LoadedPolicy(build_policy(weights, spec), manifest, lease)


def load_for(workspace: str | os.PathLike[str], version: int, spec: RobotSpec) -> LoadedPolicy:
    """`load_policy`, of this robot and task only. Raises `PolicyRefused`."""
    folder = version_folder(workspace, version)
    manifest = read_manifest(folder)
    if (manifest.robot_id, manifest.task_id) != (spec.robot_id, spec.task_id):
        raise PolicyRefused(
            f"version {version} is for {manifest.robot_id}:{manifest.task_id}, this robot is {spec.robot_id}:{spec.task_id}"
        )
    return load_policy(folder, spec)


def _write(path: Path, data: bytes, sync: bool) -> None:
    with path.open("wb") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
