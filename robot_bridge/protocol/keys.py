"""Keys of a station: its own CURVE key pairs, the clients it admits with their roles, the bridges it trusts.

A folder of mode 0700: ``own/NAME.json`` (0600: with the secret key), ``allowed.json`` (whom this bridge admits), ``bridges.json``
(bridges whose public key is known). Public keys travel as small text files, *cards*, by whatever way people trust.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq

from takeover.data.schema import Role

NAME = re.compile(r"[a-z0-9_-]{1,64}")
_PUBLIC = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
RELOAD_S = 0.2
MAX_FILE_BYTES = 1 << 20

T = TypeVar("T")


class KeyProblem(ValueError):
    """A key that is missing, malformed, or open to others; says what to do."""


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    public_key: str  # Z85, 40 characters


class OwnKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    public_key: str
    secret_key: str


class Allowed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    public_key: str
    roles: list[Role]


Note = Callable[[Card], None]


def _nothing(card: Card) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class Client:
    """Who an admitted key belongs to and what it may do."""

    name: str
    roles: frozenset[Role]


class KeyFolder:
    """See the module's docstring. Every method raises `KeyProblem` with one line.

    ``note`` hears of a change before it is made: what it raises leaves every key as it was.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def new(self, name: str, note: Note = _nothing) -> OwnKey:
        """Make a key pair of one's own."""
        _check_name(name)
        own = self.path / "own"
        for folder in (self.path, own):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        path = own / f"{name}.json"
        if path.exists():
            raise KeyProblem(f"{path} exists already; a key is never overwritten: choose another name, or delete it")
        public, secret = zmq.curve_keypair()
        key = OwnKey(name=name, public_key=public.decode(), secret_key=secret.decode())
        note(Card(name=name, public_key=key.public_key))
        _write(path, _text(key), 0o600)
        return key

    def own_names(self) -> list[str]:
        return sorted(path.stem for path in (self.path / "own").glob("*.json"))

    def own(self, name: str = "") -> OwnKey:
        """The key pair ``name``; without a name the only one there is."""
        names = self.own_names()
        if not name:
            if len(names) != 1:
                have = (
                    f"there are several ({', '.join(names)}): say which" if names else "there is none: `takeover keys new NAME` makes one"
                )
                raise KeyProblem(f"{self.path} must have a key of one's own: {have}")
            name = names[0]
        _check_name(name)
        path = self.path / "own" / f"{name}.json"
        for item in (self.path, path):
            if item.exists() and item.stat().st_mode & 0o077:
                raise KeyProblem(f"{item} can be read by others; `chmod go-rwx {item}`, and make a new key if somebody may have read it")
        key = _read(path, OwnKey)
        _check_key(path, key.public_key)
        _check_key(path, key.secret_key)
        return key

    def card(self, name: str = "") -> str:
        """The text to give to others: no secret in it."""
        key = self.own(name)
        return _text(Card(name=key.name, public_key=key.public_key)).decode()

    def allow(self, card: Path | str, roles: list[Role], name: str = "", *, replace: bool = False, note: Note = _nothing) -> Card:
        """Admit a client by its card with ``roles``; the one who runs the bridge decides about those. ``replace``: of a name that is
        admitted already with another key. What is admitted now."""
        read = self.read_card(card)
        name = name or read.name
        _check_name(name)
        if not roles:
            raise KeyProblem(f"which role? One or more of {', '.join(role.value for role in Role)}")
        table = self._allowed()
        for other, entry in table.items():
            if entry.public_key == read.public_key and other != name:
                raise KeyProblem(f"this key is admitted already, as {other}")
        if name in table and table[name].public_key != read.public_key and not replace:
            raise KeyProblem(
                f"{name} is admitted already, with another key: --replace if this is its new one, --name if it is somebody else; "
                f"`takeover keys revoke {name}` ends what it may do"
            )
        table[name] = Allowed(public_key=read.public_key, roles=sorted(set(roles)))
        client = Card(name=name, public_key=read.public_key)
        note(client)
        self._save("allowed.json", table)
        return client

    def revoke(self, name: str, note: Note = _nothing) -> Card:
        """Admit ``name`` no more. What was admitted."""
        table = self._allowed()
        if name not in table:
            raise KeyProblem(f"{name!r} is not admitted; admitted: {', '.join(sorted(table)) or 'nobody'}")
        gone = Card(name=name, public_key=table.pop(name).public_key)
        note(gone)
        self._save("allowed.json", table)
        return gone

    def trust(self, card: Path | str, *, replace: bool = False, note: Note = _nothing) -> Card:
        """Remember a bridge's public key. ``replace``: of one that is known already with another."""
        read = self.read_card(card)
        _check_name(read.name)
        table = self._bridges()
        if read.name in table and table[read.name].public_key != read.public_key and not replace:
            raise KeyProblem(
                f"the bridge {read.name} is known already, with another key: --replace if whoever runs it says that it has a new one; "
                "another bridge needs a card with another name"
            )
        table[read.name] = read
        note(read)
        self._save("bridges.json", table)
        return read

    def bridge(self, name: str = "") -> Card:
        """The public key of the bridge ``name``; without a name the only one known."""
        table = self._bridges()
        if name in table:
            return table[name]
        if not name and len(table) == 1:
            return next(iter(table.values()))
        known = ", ".join(sorted(table)) or "none"
        raise KeyProblem(f"the bridge's public key is needed: `takeover keys trust CARD` with the bridge's card (known: {known})")

    def allowed(self) -> dict[str, Client]:
        """Public key -> client."""
        return {entry.public_key: Client(name, frozenset(entry.roles)) for name, entry in self._allowed().items()}

    def bridges(self) -> list[str]:
        return sorted(self._bridges())

    def read_card(self, path: Path | str) -> Card:
        card = _read(Path(path), Card)
        _check_key(Path(path), card.public_key)
        return card

    def _allowed(self) -> dict[str, Allowed]:
        path = self.path / "allowed.json"
        return _read(path, dict[str, Allowed]) if path.exists() else {}

    def _bridges(self) -> dict[str, Card]:
        path = self.path / "bridges.json"
        return _read(path, dict[str, Card]) if path.exists() else {}

    def _save(self, file: str, table: object) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(self.path / file, _text(table), 0o600)


class AllowList:
    """`KeyFolder.allowed` for a running bridge: read again when the file has changed. A file that cannot be read admits nobody."""

    def __init__(self, folder: KeyFolder) -> None:
        self._folder = folder
        self._path = folder.path / "allowed.json"
        self._stamp: tuple[int, int] | None = None
        self._looked_s = -1.0
        self._table: dict[str, Client] = {}
        self.narrowed = 0  # how often somebody lost a role, or all of them
        self.problem = ""

    def client(self, public_key: str) -> Client | None:
        self.refresh()
        return self._table.get(public_key)

    def refresh(self) -> None:
        before = self._table
        self._read()
        if any(key not in self._table or client.roles - self._table[key].roles for key, client in before.items()):
            self.narrowed += 1

    def _read(self) -> None:
        now = time.monotonic()
        if now - self._looked_s < RELOAD_S:
            return
        self._looked_s = now
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            self._stamp, self._table = None, {}
            return
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._table, self.problem = self._folder.allowed(), ""
        except KeyProblem as error:
            self._table, self.problem = {}, str(error)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise KeyProblem(f"name {name!r}: 1 to 64 of a-z, 0-9, '-' and '_'")


def _check_key(path: Path, key: str) -> None:
    if not _PUBLIC.fullmatch(key):
        raise KeyProblem(f"{path}: a key has 40 characters of Z85; this one is {key!r:.60}")


def _text(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value)) + b"\n"


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes()[:MAX_FILE_BYTES], type=kind)
    except OSError as error:
        raise KeyProblem(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KeyProblem(f"{path}: not a key file: {error}") from error


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, with ``mode`` from the beginning."""
    temporary = path.with_suffix(".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(fd)
    temporary.replace(path)
