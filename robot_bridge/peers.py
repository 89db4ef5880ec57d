"""Who said hello on which connection of ``control``: bounded, so that nobody fills the memory, nor throws out who is at work."""

from dataclasses import dataclass

from takeover.data.schema import Role

MAX_PEERS = 256
MAX_ALIKE = 32  # connections of one key, or on one computer of one role: who comes back keeps its own at most


@dataclass(frozen=True)
class Peer:
    """What a connection said of itself. ``user``: the public key it came with; "": one computer."""

    sender: str = ""  # "": nobody said hello
    role: Role = Role.OBSERVER
    user: str = ""

    @property
    def kind(self) -> str:
        """Whose connections are counted together."""
        return self.user or self.role


class Peers:
    """Connections by identity, who spoke longest ago first. I/O thread only."""

    def __init__(self) -> None:
        self._known: dict[bytes, Peer] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._known

    def at(self, identity: bytes) -> Peer:
        """Who said hello there; a `Peer` without a name where nobody did."""
        return self._known.get(identity, Peer())

    def heard(self, identity: bytes) -> None:
        """That connection is in use."""
        if identity in self._known:
            self._known[identity] = self._known.pop(identity)

    def greet(self, identity: bytes, peer: Peer, kept: bytes) -> None:
        """Note a hello; when there are too many, of its kind or in all, who spoke longest ago must say it again, but never ``kept``."""
        self._known.pop(identity, None)
        alike = [known for known, other in self._known.items() if other.kind == peer.kind and known != kept]
        self._drop(alike[: max(0, len(alike) + 1 - MAX_ALIKE)])
        rest = [known for known in self._known if known != kept]
        self._drop(rest[: max(0, len(self._known) + 1 - MAX_PEERS)])
        self._known[identity] = peer

    def _drop(self, identities: list[bytes]) -> None:
        for identity in identities:
            del self._known[identity]
