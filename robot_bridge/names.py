"""Under which name a peer's doings are recorded: over a network its key says who it is, what it calls itself is only added."""

from takeover.robot_bridge.protocol.link import Gatekeeper

MAX_AUTHOR = 64  # characters: as long as the catalog keeps an author
LOCAL = "local"


def author(gatekeeper: Gatekeeper | None, public_key: str, name: str) -> str:
    """``KEY/NAME``, KEY being the name that the allow-list gives ``public_key``; on one computer NAME alone. At most 64 characters."""
    known = gatekeeper.client(public_key) if gatekeeper is not None else None
    signed = f"{known.name}/{name}" if known is not None else name
    return signed[:MAX_AUTHOR]


def source(gatekeeper: Gatekeeper | None, public_key: str, name: str) -> str:
    """Of an event that a peer sent: as `author`, with ``local/`` on one computer, so that none passes for the bridge's own."""
    known = gatekeeper.client(public_key) if gatekeeper is not None else None
    return f"{known.name if known is not None else LOCAL}/{name}"
