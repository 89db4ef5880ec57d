"""`takeover keys`: who may reach this bridge over a network. `takeover audit`: who changed what."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from takeover.app.processes.common import StartupError
from takeover.data import audit
from takeover.data.schema import Role
from takeover.data.workspace import Workspace
from takeover.robot_bridge.protocol import KeyFolder, KeyProblem
from takeover.robot_bridge.protocol.keys import Card

WorkspaceOption = Annotated[str, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
NameArgument = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
FileArgument = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True)
class New:
    """Make a key pair of this computer's own; its card is printed, to be given to others."""

    name: NameArgument
    workspace: WorkspaceOption = ""


@dataclass(frozen=True)
class Ls:
    """Own keys, admitted clients with their roles, known bridges."""

    workspace: WorkspaceOption = ""


@dataclass(frozen=True)
class Show:
    """Print the card of an own key: no secret in it."""

    name: NameArgument = ""
    workspace: WorkspaceOption = ""


@dataclass(frozen=True)
class Allow:
    """On the bridge's computer: admit a client by its card."""

    card: FileArgument
    role: tuple[Literal["observer", "labeler", "operator", "learner"], ...]
    """What it may do; several are possible. A whole station at the other end needs `operator learner`."""
    name: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = ""
    """Another name than the card's."""
    replace: bool = False
    """Where the name is admitted already with another key: this one instead, from now on."""
    workspace: WorkspaceOption = ""


@dataclass(frozen=True)
class Revoke:
    """On the bridge's computer: admit a client no more, also while it is connected."""

    name: NameArgument
    workspace: WorkspaceOption = ""


@dataclass(frozen=True)
class Trust:
    """On the other computers: remember a bridge by its card."""

    card: FileArgument
    replace: bool = False
    """Where a bridge of that name is known already with another key: this one instead."""
    workspace: WorkspaceOption = ""


@dataclass(frozen=True)
class Keys:
    """Keys for a bridge that is reached over a network (docs/remote.md)."""

    command: New | Ls | Show | Allow | Revoke | Trust


@dataclass(frozen=True)
class Audit:
    """Print the audit log: limits and line of sight changed, STOP cleared, keys admitted, revoked and trusted, unattended practice,
    policies promoted, refused and rolled back."""

    workspace: WorkspaceOption = ""
    json: bool = False
    """As the JSON lines of the file."""


def keys_folder(workspace: str) -> KeyFolder:
    """The keys of a workspace."""
    return KeyFolder((Path(workspace) if workspace else Workspace.default().path).absolute() / "keys")


def keys(command: Keys) -> int:
    """Raises `StartupError` with one line. No key changes without its line in the audit log, which is written first."""
    what = command.command
    folder = keys_folder(what.workspace)
    workspace = folder.path.parent

    def noted(change: str, **details: Any) -> Callable[[Card], None]:
        return lambda card: audit.append(workspace, "keys", change, name=card.name, **details, public_key=card.public_key)

    try:
        workspace.mkdir(parents=True, exist_ok=True)
        if isinstance(what, New):
            folder.new(what.name, noted("key_made"))
            print(folder.card(what.name), end="")
        elif isinstance(what, Show):
            print(folder.card(what.name), end="")
        elif isinstance(what, Allow):
            roles = sorted(set(what.role))
            wanted = [Role(role) for role in roles]
            client = folder.allow(what.card, wanted, what.name, replace=what.replace, note=noted("key_allowed", roles=roles))
            print(f"{client.name} is admitted as {', '.join(roles)}")
        elif isinstance(what, Revoke):
            folder.revoke(what.name, noted("key_revoked"))
            print(f"{what.name} is admitted no more")
        elif isinstance(what, Trust):
            bridge = folder.trust(what.card, replace=what.replace, note=noted("bridge_trusted"))
            print(f"the bridge {bridge.name} is known")
        else:
            _print_all(folder)
    except KeyProblem as error:
        raise StartupError(str(error)) from error
    except OSError as error:
        raise StartupError(f"{error.filename or folder.path}: {error.strerror}") from error
    return 0


def _print_all(folder: KeyFolder) -> None:
    print(f"own keys:  {', '.join(folder.own_names()) or '-'}")
    print(f"bridges:   {', '.join(folder.bridges()) or '-'}")
    clients = sorted(folder.allowed().items(), key=lambda item: item[1].name)
    print("admitted:" if clients else "admitted:  -")
    for key, client in clients:
        print(f"  {client.name:<24} {', '.join(sorted(client.roles)):<32} {key}")


def print_audit(command: Audit) -> int:
    """Oldest first."""
    workspace = Path(command.workspace) if command.workspace else Workspace.default().path
    if command.json:
        path = workspace / audit.FILE
        print(path.read_text(encoding="utf-8", errors="replace") if path.exists() else "", end="")
        return 0
    for entry in audit.entries(workspace):
        when = datetime.datetime.fromtimestamp(entry.get("wall_ns", 0) / 1e9, datetime.UTC)
        details = {name: value for name, value in entry.items() if name not in ("wall_ns", "who", "what", "limits")}
        shown = ", ".join(f"{name} {value}" for name, value in details.items())
        print(f"{when:%Y-%m-%d %H:%M:%S}Z  {entry.get('who', ''):<16} {entry.get('what', ''):<18} {shown}")
    return 0
