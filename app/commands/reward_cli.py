"""`takeover reward ...`: a reward classifier, trained from what people's keys, marks and labels say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import tyro

from takeover.app.commands.data_options import Where, existing, print_json
from takeover.app.commands.progress import listing, print_table
from takeover.app.commands.reward_options import Json, RobotName, assignments, refusals, robot_and_task, shown
from takeover.data.statistics import wilson

if TYPE_CHECKING:
    from takeover.policies.reward_store import RewardManifest


@dataclass(frozen=True)
class Train:
    """Train a classifier on all that was recorded for a robot and task; a new version each time."""

    cameras: tuple[str, ...] = ()
    """Policy cameras whose pictures are inputs, e.g. `front wrist`; none: the observation's numbers alone."""
    pictures_only: bool = False
    """The observation's numbers are no inputs."""
    without: tuple[str, ...] = ()
    """Observations that are left out of the inputs, by name."""
    check: tuple[str, ...] = ()
    """Observations that must lie in the range of the positives (half as wide again on each side), e.g. gripper_width."""
    new_encoder: bool = False
    """Train the picture encoder anew though the version before has one."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE", help_behavior_hint="")] = ()
    """Settings, e.g. `--set updates=3000 key_delay_max_s=1.5`."""
    robot: RobotName = ""
    json: Json = False
    workspace: Where = ""


@dataclass(frozen=True)
class Ls:
    """List the classifiers: what they were trained on, threshold, precision and recall on held-out episodes."""

    json: Json = False
    workspace: Where = ""


@dataclass(frozen=True)
class Show:
    """One classifier: inputs, data, and its quality on held-out episodes with intervals."""

    version: Annotated[int, tyro.conf.Positional, tyro.conf.arg(metavar="VERSION")]
    json: Json = False
    workspace: Where = ""


@dataclass(frozen=True)
class Score:
    """Set the outcome of episodes by a classifier, as labels: a learner follows before its next batch. A person's judgement stands."""

    version: Annotated[int, tyro.conf.arg(metavar="N", help="Which classifier (default: the newest for the robot).")] = 0
    over_task: bool = False
    """Also where the task itself judged."""
    dry_run: bool = False
    """Say what would change, and change nothing."""
    robot: RobotName = ""
    json: Json = False
    workspace: Where = ""


@dataclass(frozen=True)
class Veto:
    """A success that a classifier gave is none: its reward goes at once, and its steps become hard negatives of the next version."""

    episode: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EPISODE")]
    """Its id in `takeover data ls`."""
    retrain: bool = False
    """Train the next version at once, with the settings of the one before, and set the episodes' outcomes by it."""
    by: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="", help="Who says so (default: the station's person).")] = ""
    robot: RobotName = ""
    json: Json = False
    workspace: Where = ""


def train(command: Train) -> int:
    """Returns 0; 2 when there is too little or one class only."""
    from takeover.policies.reward_settings import parse_settings
    from takeover.policies.reward_training import RewardRequest, train_reward

    workspace = existing(command.workspace)
    robot_id, task_id, _ = robot_and_task(workspace, command.robot)
    with refusals(), shown("train") as progress:
        request = RewardRequest(
            robot_id=robot_id,
            task_id=task_id,
            settings=parse_settings(assignments(command.set)),
            state=not command.pictures_only,
            without=command.without,
            cameras=command.cameras,
            checks=command.check,
            new_encoder=command.new_encoder,
        )
        manifest, problems = train_reward(workspace, request, progress)
    _print_one(manifest, command.json, problems)
    return 0


def ls(command: Ls) -> int:
    """Returns 0."""
    from takeover.policies.reward_store import read_reward_manifest, reward_versions

    workspace = existing(command.workspace)
    with refusals():
        found = [read_reward_manifest(workspace.path, version) for version in reward_versions(workspace.path)]
    if command.json:
        print_json({"workspace": str(workspace.path), "rewards": [_row(manifest) for manifest in found]})
        return 0
    table = listing(str(workspace.path))
    for column in ("version", "created (UTC)", "robot, task", "positives, negatives", "threshold", "precision", "recall", "vetoed"):
        table.add_column(column, no_wrap=True)
    for manifest in found:
        row = _row(manifest)
        counts = f"{row['positives']:,}, {row['negatives']:,}"
        seen, there = (f"{row[name]['k']} of {row[name]['n']}" for name in ("precision", "recall"))
        place = f"{manifest.robot_id}, {manifest.task_id}"
        cells = (str(manifest.version), _moment(manifest.wall_ns), place, counts, f"{manifest.threshold:.2f}", seen, there)
        table.add_row(*cells, str(manifest.data["vetoed_episodes"]))
    print_table(table)
    return 0


def show(command: Show) -> int:
    """Returns 0."""
    from takeover.policies.reward_store import load_reward

    workspace = existing(command.workspace)
    with refusals():
        _, manifest = load_reward(workspace.path, command.version)  # its weights are checked too
    _print_one(manifest, command.json, [])
    return 0


def score(command: Score) -> int:
    """Returns 0."""
    from takeover.policies.reward_rescore import classifier_for, rescore

    workspace = existing(command.workspace)
    robot_id, task_id, _ = robot_and_task(workspace, command.robot)
    with refusals(), shown("score") as progress:
        _, manifest = classifier_for(workspace, robot_id, task_id, command.version)
        found, problems = rescore(workspace, manifest.version, progress, over_task=command.over_task, write=not command.dry_run)
    changed = [row for row in found if row.changed]
    if command.json:
        content = {"version": manifest.version, "scored": len(found), "changed": len(changed), "episodes": found, "problems": problems}
        print_json(content | {"written": not command.dry_run})
        return 0
    table = listing(f"classifier {manifest.version}, threshold {manifest.threshold:.2f}")
    for column in ("episode", "before", "now", "highest"):
        table.add_column(column, no_wrap=True)
    for row in changed:
        table.add_row(row.episode_id, row.before, row.after, f"{row.highest:.2f}")
    print_table(table)
    print(f"{len(changed)} of {len(found)} outcomes {'would change' if command.dry_run else 'changed'}")
    for problem in problems:
        print(f"not scored: {problem}")
    return 0


def veto(command: Veto) -> int:
    """Returns 0."""
    from takeover.policies.reward_rescore import rescore
    from takeover.policies.reward_rescore import veto as set_veto
    from takeover.policies.reward_training import request_like, train_reward

    workspace = existing(command.workspace)
    robot_id, task_id, station = robot_and_task(workspace, command.robot)
    manifest: RewardManifest | None = None
    rescored = 0
    with refusals():
        event = set_veto(workspace, command.episode, command.by or station.person)
        if command.retrain:
            with shown("train") as progress:
                manifest, _ = train_reward(workspace, request_like(workspace, robot_id, task_id), progress)
            with shown("score") as progress:
                rescored = sum(row.changed for row in rescore(workspace, manifest.version, progress)[0])
    if command.json:
        print_json({"event": event, "version": manifest.version if manifest else None, "changed": rescored})
        return 0
    print(f"{command.episode}: {event.value}, no longer {event.previous}, by {event.author}")
    if manifest is not None:
        print(f"classifier {manifest.version}: {manifest.data['hard_negatives']} hard negatives; {rescored} outcomes changed")
    return 0


def _row(manifest: "RewardManifest") -> dict[str, Any]:
    """The figures of a version, with k, n and Wilson interval of each share."""
    m = {name: int(value) for name, value in manifest.metrics.items() if name not in ("threshold", "precision", "recall")}

    def share(k: int, n: int) -> dict[str, Any]:
        return {"k": k, "n": n, "interval": wilson(k, n)}

    seen, there = m["found"] + m["early"] + m["false"], m["found"] + m["early"] + m["missed"]
    return {
        "version": manifest.version,
        "parent": manifest.parent,
        "created_ns": manifest.wall_ns,
        "robot": manifest.robot_id,
        "task": manifest.task_id,
        "threshold": manifest.threshold,
        "positives": manifest.data["positives"],
        "negatives": manifest.data["negatives"],
        "precision": share(m["found"], seen),
        "recall": share(m["found"], there),
        "step_precision": share(m["true_steps"], m["true_steps"] + m["false_steps"]),
        "step_recall": share(m["true_steps"], m["positive_steps"]),
        "false_steps": share(m["false_steps"], m["negative_steps"]),
        "sha256": manifest.sha256,
    }


def _print_one(manifest: "RewardManifest", as_json: bool, problems: list[str]) -> None:
    row = _row(manifest)
    if as_json:
        print_json({"manifest": msgspec.to_builtins(manifest), "held_out": row, "problems": problems})
        return
    table = listing(f"reward classifier {manifest.version} for {manifest.robot_id}:{manifest.task_id}")
    table.add_column("")
    table.add_column("")
    inputs = [manifest.observation_names[i] for i in manifest.config["inputs"]]
    for name, value in (
        ("made (UTC), parent", f"{_moment(manifest.wall_ns)}, {manifest.parent or 'none'}"),
        ("inputs", ", ".join([*inputs, *(f"camera {camera}" for camera in manifest.config["cameras"])])),
        ("data", ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in manifest.data.items())),
        ("threshold", f"{manifest.threshold:.2f}"),
        ("precision, held-out episodes", _share(row["precision"])),
        ("recall, held-out episodes", _share(row["recall"])),
        ("precision, held-out steps", _share(row["step_precision"])),
        ("recall, held-out steps", _share(row["step_recall"])),
        ("wrong, held-out negative steps", _share(row["false_steps"])),
        ("against the version before", _against(manifest)),
        ("sha256", manifest.sha256),
    ):
        table.add_row(name, value)
    print_table(table)
    if manifest.against is not None and manifest.against.worse:
        print(f"worse than version {manifest.parent}; to go back, remove the folder rewards/{manifest.version} of the workspace")
    if manifest.data["positives"] < 200 or manifest.data["negatives"] < 1000:
        print("few examples: about 200 positives and 1,000 negatives are good")
    for problem in problems:
        print(f"not read: {problem}")


def _against(manifest: "RewardManifest") -> str:
    if manifest.against is None:
        return "not compared: it sees by other pictures" if manifest.parent else "there was none"
    return manifest.against.said()


def _share(share: dict[str, Any]) -> str:
    low, high = (100 * value for value in share["interval"])
    return f"{share['k']} of {share['n']} ({low:.0f} to {high:.0f} %)"


def _moment(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


ACTIONS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "train": (Train, train),
    "ls": (Ls, ls),
    "show": (Show, show),
    "score": (Score, score),
    "veto": (Veto, veto),
}
"""Name -> (its options, what does it)."""

DESCRIPTION = """Reward from a classifier, trained on what the task, operators' keys, marks and labels say of success.

  takeover reward train                       on the observation's numbers; --cameras front wrist: on pictures too
  takeover reward ls                          versions, with precision and recall on held-out episodes
  takeover reward show 2                      one of them
  takeover reward score --dry-run             what it says of every episode that no person has judged
  takeover reward score                       the same as labels, which replay follows at once
  takeover reward veto EPISODE --retrain      a false success: a hard negative for the next version
"""


@dataclass(frozen=True)
class Reward:
    """A reward classifier: `takeover reward train`, `ls`, `show`, `score`, `veto`."""

    arguments: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ACTION")] = ()


def reward(arguments: Sequence[str]) -> int:
    """What follows ``takeover reward``. Raises `StartupError` for what the user must change."""
    command = tyro.extras.subcommand_cli_from_dict(
        {name: kind for name, (kind, _) in ACTIONS.items()},
        prog="takeover reward",
        description=DESCRIPTION,
        args=list(arguments) or ["--help"],
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    handler = next(handler for kind, handler in ACTIONS.values() if type(command) is kind)
    return handler(command)
