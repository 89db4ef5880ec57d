"""Versions of reward classifiers: ``<workspace>/rewards/<version>/{weights.safetensors,manifest.json}``, written once, checked on load."""

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from takeover.data.schema import RobotSpec
from takeover.data.workspace import fsync_folder
from takeover.policies.manifest import MANIFEST_NAME, WEIGHTS_NAME
from takeover.policies.reward_compare import Comparison
from takeover.policies.reward_model import RewardConfig, RewardModel
from takeover.policies.reward_settings import AUTHOR, RewardError

MAX_WEIGHTS_BYTES = 256 * 1024**2


class RewardManifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of a classifier."""

    version: int
    parent: int  # 0: none
    sha256: str  # of the weights file
    config: dict[str, Any]  # `RewardConfig`
    settings: dict[str, Any]  # `RewardSettings`
    robot_id: str
    task_id: str
    observation_names: list[str]
    snapshot: str  # sha256 of the data: episodes and what was known of them
    label_log_bytes: int  # how far labels.jsonl had been read
    data: dict[str, int]  # episodes, steps, positives, negatives, hard negatives; of training and of held-out episodes
    metrics: dict[str, float]  # at the threshold, on held-out episodes
    ends: dict[str, dict[str, float]]  # the same at both ends of the allowed thresholds
    trained_on: list[str]
    held_out: list[str]
    encoder: str = ""  # sha256 of the picture encoder; "": none
    against: Comparison | None = None  # with the parent; None: there was none, or it sees by other pictures
    wall_ns: int = 0

    @property
    def threshold(self) -> float:
        return float(self.config["threshold"])

    @property
    def author(self) -> str:
        """Under which its outcomes are labels."""
        return f"{AUTHOR}{self.version}"


def rewards_folder(workspace: str | os.PathLike[str]) -> Path:
    return Path(workspace) / "rewards"


def reward_versions(workspace: str | os.PathLike[str]) -> list[int]:
    """Versions on disk, ascending; unfinished ones are not among them."""
    folder = rewards_folder(workspace)
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit() and (path / MANIFEST_NAME).is_file())


def read_reward_manifest(workspace: str | os.PathLike[str], version: int) -> RewardManifest:
    """Raises `RewardError` when there is none, or it is broken."""
    path = rewards_folder(workspace) / str(version) / MANIFEST_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=RewardManifest)
    except FileNotFoundError:
        known = reward_versions(workspace)
        listed = f"{known[0]} to {known[-1]}" if len(known) > 1 else str(known[0]) if known else "none"
        raise RewardError(f"no reward classifier {version} in {workspace}; there are: {listed}") from None
    except (OSError, msgspec.DecodeError) as error:
        raise RewardError(f"{path}: {error}") from error


def newest_for(workspace: str | os.PathLike[str], robot_id: str, task_id: str) -> RewardManifest | None:
    """The newest classifier of a robot and task; None when there is none. Raises `RewardError` for a broken manifest."""
    for version in reversed(reward_versions(workspace)):
        manifest = read_reward_manifest(workspace, version)
        if (manifest.robot_id, manifest.task_id) == (robot_id, task_id):
            return manifest
    return None


def load_reward(workspace: str | os.PathLike[str], version: int, spec: RobotSpec | None = None) -> tuple[RewardModel, RewardManifest]:
    """Read and check one version: hash, shapes, finiteness, and that it is for this robot. Raises `RewardError` with the reason."""
    manifest = read_reward_manifest(workspace, version)
    path = rewards_folder(workspace) / str(version) / WEIGHTS_NAME
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise RewardError(f"{path} is larger than {MAX_WEIGHTS_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise RewardError(f"cannot read {path}: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != manifest.sha256:
        raise RewardError(f"{path}: sha256 is {found[:12]}..., the manifest says {manifest.sha256[:12]}...")
    if spec is not None:
        check_spec(manifest, spec)
    try:
        tensors = load_safetensors(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise RewardError(f"{path}: {error}") from error
    return RewardModel(RewardConfig.of(manifest.config), tensors), manifest


def check_spec(manifest: RewardManifest, spec: RobotSpec) -> None:
    """Raises `RewardError` when a classifier is not for this robot and task."""
    if (manifest.robot_id, manifest.task_id) != (spec.robot_id, spec.task_id):
        of = f"{manifest.robot_id}:{manifest.task_id}"
        raise RewardError(f"reward classifier {manifest.version} is for {of}, this robot is {spec.robot_id}:{spec.task_id}")
    if manifest.observation_names != list(spec.observation.names):
        raise RewardError(f"reward classifier {manifest.version} was trained on other observations than this robot's")


def write_reward(workspace: str | os.PathLike[str], model: RewardModel, **fields: Any) -> RewardManifest:
    """Publish as the next version: a temporary folder, flushed, renamed. Two at once get different numbers. Raises `OSError`."""
    content = save_safetensors({name: model.tensors[name].contiguous() for name in sorted(model.tensors)})
    config = msgspec.json.decode(msgspec.json.encode(model.config))
    folder = rewards_folder(workspace)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".new.{os.getpid()}.tmp"
    while True:
        version = max(reward_versions(workspace), default=0) + 1
        manifest = RewardManifest(
            version=version, sha256=hashlib.sha256(content).hexdigest(), config=config, wall_ns=time.time_ns(), **fields
        )
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            _write(temporary / WEIGHTS_NAME, content)
            _write(temporary / MANIFEST_NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
            try:
                temporary.rename(folder / str(version))
            except OSError:
                if (folder / str(version)).exists():
                    continue  # somebody else was faster
                raise
            fsync_folder(folder)
            return manifest
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
