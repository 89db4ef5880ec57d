"""Under which name a peer's doings are recorded: over a network its key says who it is, what it calls itself is only added."""

import re

from takeover.robot_bridge.protocol.link import Gatekeeper

MAX_AUTHOR = 64  # characters: as long as the catalog keeps an author
MAX_SENDER = 72  # characters: a console is `console-PERSON`, and a person has 64 at most
_SENDER = re.compile(rf"[0-9A-Za-z_.-]{{1,{MAX_SENDER}}}")  # no slash: that comes after the name of a key
LOCAL = "local"
NO_HELLO = " (no hello)"


def sender_limit(name: str) -> str:
    """What is allowed as a sender's name; "" when ``name`` is one."""
    return "" if _SENDER.fullmatch(name) else f"1 to {MAX_SENDER} letters, digits, '-', '_' or '.'"


def claimed(name: str) -> str:
    """The name of somebody who never said hello: to be told as that, also when it is cut."""
    return f"{'somebody' if sender_limit(name) else name[: MAX_AUTHOR - len(NO_HELLO)]}{NO_HELLO}"


def author(gatekeeper: Gatekeeper | None, public_key: str, name: str) -> str:
    """``KEY/NAME``, KEY being the name that the allow-list gives ``public_key``; on one computer NAME alone. At most 64 characters."""
    known = gatekeeper.client(public_key) if gatekeeper is not None else None
    signed = f"{known.name}/{name}" if known is not None else name
    return signed[:MAX_AUTHOR]


def source(gatekeeper: Gatekeeper | None, public_key: str, name: str) -> str:
    """Of an event that a peer sent: as `author`, with ``local/`` on one computer, so that none passes for the bridge's own."""
    known = gatekeeper.client(public_key) if gatekeeper is not None else None
    return f"{known.name if known is not None else LOCAL}/{name}"
