"""What is known of published policies without loading their weights: ``<workspace>/policies/<version>/manifest.json``."""

import os
from pathlib import Path
from typing import Any

import msgspec

from takeover.data.spaces import Spaces
from takeover.policies.base import PolicyRefused

WEIGHTS_NAME = "weights.safetensors"
INSTEAD = "restore the file from a copy, or use another version"  # where one cannot be read
MANIFEST_NAME = "manifest.json"
PRUNED_NAME = "weights.pruned"  # empty; it stands where the weights were, see `pruning`


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of a published policy."""

    version: int
    parent: int  # 0: none
    sha256: str  # of the weights file
    learner: str
    architecture: str
    config: dict[str, Any]
    swap: str  # "step" or "episode"
    robot_id: str
    task_id: str
    observation_names: list[str]
    action_names: list[str]
    spaces: Spaces = Spaces()  # of the robot it was trained for; what an older manifest lacks is not compared
    acts_from_train_step: int = 0
    data: dict[str, int] = msgspec.field(default_factory=dict)  # snapshot: episodes, steps, human steps, demonstrations
    counters: dict[str, int] = msgspec.field(default_factory=dict)
    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    corrections: list[str] | None = None  # first in a batch since the parent, see `correction_name`; None: not noted
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    task_parameters: dict[str, float] | None = None  # of the newest episode learned from, where not the task's own; None: not noted
    session_id: str = ""  # of the run
    data_session: str = ""  # of the bridge whose steps it was last trained on
    wall_ns: int = 0


def correction_name(episode_id: str, intervention_id: int) -> str:
    """How a manifest calls a correction."""
    return f"{episode_id}:{intervention_id}"


def policies_folder(workspace: str | os.PathLike[str]) -> Path:
    return Path(workspace) / "policies"


def version_folder(workspace: str | os.PathLike[str], version: int) -> Path:
    return policies_folder(workspace) / str(version)


def version_numbers(workspace: str | os.PathLike[str]) -> list[int]:
    """Numbers of the folders there are, ascending, also of those without a manifest: a look at the names alone."""
    try:
        names = os.listdir(policies_folder(workspace))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if name.isdecimal())


def is_published(workspace: str | os.PathLike[str], version: int) -> bool:
    return os.path.isfile(os.path.join(workspace, "policies", str(version), MANIFEST_NAME))


def published_versions(workspace: str | os.PathLike[str]) -> list[int]:
    """Versions on disk, ascending, pruned ones too; unfinished ones (temporary names) are not among them."""
    return [version for version in version_numbers(workspace) if is_published(workspace, version)]


def newest_version(workspace: str | os.PathLike[str]) -> int:
    """The last of `published_versions`, without a look into every folder; 0: none."""
    return next((version for version in reversed(version_numbers(workspace)) if is_published(workspace, version)), 0)


def newest_for(workspace: str | os.PathLike[str], robot_id: str, task_id: str, others: set[int]) -> int:
    """The newest version of this robot and task, or with a manifest that cannot be read; 0: none.

    ``others`` remembers, from call to call, which versions are of others, so that none is read twice.
    """
    for version in reversed(version_numbers(workspace)):
        if version in others or not is_published(workspace, version):
            continue
        try:
            manifest = read_manifest(version_folder(workspace, version))
        except PolicyRefused:
            return version
        if (manifest.robot_id, manifest.task_id) == (robot_id, task_id):
            return version
        others.add(version)
    return 0


def has_weights(workspace: str | os.PathLike[str], version: int) -> bool:
    return (version_folder(workspace, version) / WEIGHTS_NAME).is_file()


def is_pruned(folder: str | os.PathLike[str]) -> bool:
    """Whether a version's weights went by the rule of `pruning`; its manifest is there."""
    return (Path(folder) / PRUNED_NAME).exists() and not (Path(folder) / WEIGHTS_NAME).exists()


def refuse_pruned(folder: str | os.PathLike[str]) -> None:
    """Raises `PolicyRefused` for a version whose weights were pruned: what, where, and what to do."""
    if is_pruned(folder):
        raise PolicyRefused(
            f"the weights of version {Path(folder).name} were pruned, {folder} keeps its manifest alone; take a version that "
            f"`takeover policy ls` does not mark so (learner.keep_versions and learner.keep_every say which keep theirs)"
        )


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Raises `PolicyRefused` when it is missing or broken."""
    path = Path(folder) / MANIFEST_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise PolicyRefused(f"cannot read {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise PolicyRefused(f"{path} is damaged: {error}; {INSTEAD}") from error
