"""`takeover policy promote` and `rollback`: a person decides. Weights that could not act are refused before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from takeover.app.commands.data_options import existing, print_json
from takeover.app.commands.policy_options import (
    Deciding,
    Version,
    author_of,
    check_policy,
    config_of,
    decision_rows,
    decisions_of,
    manifests,
    runnable,
)
from takeover.app.commands.policy_rate import station_hz, unnoted_rate
from takeover.app.processes.common import StartupError
from takeover.data.schema import RunConfig

if TYPE_CHECKING:
    from takeover.policies.decisions import Kind, Standing
    from takeover.policies.manifest import Manifest

MAX_REASON = 500
UNTRUSTED = (
    "no version is trusted: the next one that the gate looks at is trusted without a comparison;"
    " `takeover policy promote` one that was tried, so that others are compared with it"
)


@dataclass(frozen=True)
class Promote(Deciding):
    """Trust a version: candidates are compared with it from now on, and a rollback leads to it. Ends the pin of an earlier rollback."""

    version: Version = tyro.MISSING
    """Its number in `takeover policy ls`."""


@dataclass(frozen=True)
class Rollback(Deciding):
    """Let one earlier version act, and hold the actor to it until a version is promoted or the rollback is released."""

    version: Annotated[int, tyro.conf.Positional, tyro.conf.arg(metavar="VERSION", help_behavior_hint="")] = 0
    """Default: the trusted one; the one trusted before it where the trusted one acts already."""
    release: bool = False
    """End a rollback instead: the newest version that was not refused acts again."""


def promote(command: Promote) -> int:
    """Returns 0."""
    workspace = existing(command.workspace)
    manifest = runnable(workspace, command.version)
    config = config_of(workspace, command.robot)
    loaded = check_policy(manifest, config)
    now = _standing(command, manifest)
    if now.trusted == manifest.version and now.trusted_sha256 == manifest.sha256 and not now.pinned:
        raise StartupError(f"version {manifest.version} is trusted already")
    return _decide(command, config, "promoted", loaded.manifest, now, f"version {manifest.version} is trusted")


def rollback(command: Rollback) -> int:
    """Returns 0."""
    workspace = existing(command.workspace)
    config = config_of(workspace, command.robot)
    known = [manifest for manifest in manifests(workspace)[0] if (manifest.robot_id, manifest.task_id) == _robot(config)]
    if not known:
        raise StartupError(f"no policy for {':'.join(_robot(config))} in {workspace.path}; name another robot with --robot")
    now = _standing(command, known[0])
    if command.release:
        if command.version:
            raise StartupError("--release takes no version: the newest one acts then")
        if not now.pinned:
            raise StartupError("no rollback holds: the newest version acts")
        pinned = next((manifest for manifest in known if manifest.version == now.pinned), None)
        if pinned is None:
            raise StartupError(f"version {now.pinned}, which is pinned, is not there; promote another one")
        return _decide(command, config, "released", pinned, now, "the newest version acts again", [] if now.trusted else [UNTRUSTED])
    acting = now.may_act([manifest.version for manifest in known])
    version = command.version or (now.trusted if now.trusted != acting else now.before)
    if not version:
        why = f"version {now.trusted} is trusted and acts, and none was trusted before it" if now.trusted else "no version is trusted"
        raise StartupError(f"{why}; name the version to go back to")
    loaded = check_policy(runnable(workspace, version), config)
    if version == now.pinned:
        raise StartupError(f"version {version} is what the robot is held to already")
    return _decide(
        command, config, "rolled_back", loaded.manifest, now, f"version {version} acts, until one is promoted or the rollback released"
    )


def _robot(config: RunConfig) -> tuple[str, str]:
    return "sim", config.task  # every simulated robot gives this name to the policies, also the one in a process of its own


def _standing(command: Deciding, manifest: "Manifest") -> "Standing":
    from takeover.policies.decisions import standing

    return standing(decisions_of(existing(command.workspace)), manifest.robot_id, manifest.task_id)


def _decide(
    command: Deciding, config: RunConfig, kind: "Kind", manifest: "Manifest", now: "Standing", said: str, more: Sequence[str] = ()
) -> int:
    """``said``: what holds then; ``more``: what there is to know beside it."""
    from takeover.policies.decisions import DecisionError, decide

    if len(command.reason) > MAX_REASON:
        raise StartupError(f"--reason has {len(command.reason)} characters; at most {MAX_REASON}")
    evidence: dict[str, Any] = {"trusted": now.trusted, "pinned": now.pinned}
    author = author_of(command.by, config.person)
    try:
        made = decide(config.workspace, [(kind, manifest)], author=author, reason=command.reason, evidence=evidence, after=now.last)
    except DecisionError as error:
        raise StartupError(str(error)) from error
    hz = station_hz(existing(command.workspace), manifest.robot_id, manifest.task_id)
    notes = [*more, *([] if kind == "released" else unnoted_rate(manifest, hz))]  # after a release it is not this version that acts
    if command.json:
        print_json(decision_rows(made)[0] | {"notes": notes})
    else:
        for note in notes:
            print(note)
        print(f"{said} (decision {made[0].number}, by {author})")
    return 0
