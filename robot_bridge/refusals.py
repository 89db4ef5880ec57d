"""What the bridge did not accept: counted one by one, and told to people with who sent it, which field, its value and what is allowed."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec import to_builtins

NOTE_NS = 1_000_000_000  # between two events about the same sender, field and reason
MAX_KNOWN = 256  # of these are told apart
MAX_NOTES = 20  # events a second, whoever sends what: strangers shall not fill the disk
MAX_SENDER = 64
MAX_VALUE = 80
MAX_LIMIT = 300
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True)
class Refusal:
    """One of them. ``field``: of which message, ``seq of the command``; ``value``: as sent, cut; ``limit``: what is allowed, or why not."""

    sender: str
    field: str
    limit: str
    value: object = None

    def __str__(self) -> str:
        value = "" if self.value is None else f" {shown(self.value)}"
        return f"{self.sender[:MAX_SENDER]}: {self.field}{value}: {self.limit[:MAX_LIMIT]}"


def shown(value: object) -> str:
    """A value in a line, cut to 80 characters."""
    try:
        text = repr(value)
    except RecursionError:  # it could just be decoded, and must not end what tells of it
        text = "(too deep to be shown)"
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 3]}..."


def asked(request: Any) -> dict[str, Any] | None:
    """The fields of a control request but its sender: what was asked for, as a `Refusal`'s value; None when there are none."""
    return {name: value for name, value in to_builtins(request).items() if name not in ("type", "sender")} or None


class Refusals:
    """Tells of refusals by events: at most one a second for each sender, field and reason, with how many there were since the one
    before, and at most `MAX_NOTES` a second in all. Any thread."""

    def __init__(self, event: Callable[..., None]) -> None:
        """``event(kind, text, value=number)`` records one."""
        self._event = event
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, str, str, str], int] = {}  # when the newest event was
        self._since: dict[tuple[str, str, str, str], int] = {}  # refused since then
        self._second = 0
        self._notes = 0
        self.last = ""  # the newest refusal, in words
        self.last_ns = 0  # and when

    def note(self, kind: str, refusal: Refusal, now_ns: int) -> None:
        """``kind`` of the event: command_refused, request_refused, bad_message or client_refused."""
        reason = _DIGITS.sub("", refusal.limit)[:MAX_VALUE]  # the same one, whatever the numbers
        key = (kind, refusal.sender[:MAX_SENDER], _DIGITS.sub("", refusal.field), reason)
        text = str(refusal)
        with self._lock:
            self.last, self.last_ns = text, now_ns
            if len(self._since) >= MAX_KNOWN and key not in self._since:
                self._noted.clear()
                self._since.clear()
            self._since[key] = self._since.get(key, 0) + 1
            if now_ns - self._noted.get(key, -NOTE_NS) < NOTE_NS or not self._room(now_ns):
                return
            self._noted[key] = now_ns
            count, self._since[key] = self._since[key], 0
        self._event(kind, text, value=float(count))

    def _room(self, now_ns: int) -> bool:
        """Whether there may be one more event in this second."""
        if now_ns // NOTE_NS != self._second:
            self._second, self._notes = now_ns // NOTE_NS, 0
        self._notes += 1
        return self._notes <= MAX_NOTES
