"""The right to command: one holder at a time, lapsing with its heartbeat."""

import secrets
from dataclasses import dataclass

from takeover.data.drivers import UNNAMED, Driver

LEASE_LIFE_NS = 500_000_000
PRESENCE_NS = 500_000_000  # without a living window for so long its person counts as gone


class LeaseRefused(ValueError):
    """Somebody else holds the lease; says who."""


def holds(holder: str, asker: str) -> str:
    """What somebody is told who asks for what ``holder`` has; two consoles of one person have the same name."""
    return f"{holder} holds the lease" if holder != asker else f"{holder} on another connection holds the lease"


@dataclass
class LeaseTable:
    """Who may command. ``lapses`` False (lockstep): silence alone ends nothing, it only lets the next asker in."""

    lapses: bool = True
    sender: str = ""
    owner: bytes = b""  # the holder's connection: a restarted process of the same name is somebody new
    token: str = ""
    device_kind: str = ""
    person: Driver = UNNAMED  # who drives, as the holder says
    heard_ns: int = 0
    present_ns: int = 0  # when the holder was last known to be at a living window; a new connection's grant counts as such
    grants: int = 0

    def holder(self, now_ns: int) -> str:
        """Name of the live holder, or ""."""
        if not self.sender or (self.lapses and now_ns - self.heard_ns > LEASE_LIFE_NS):
            return ""
        return self.sender

    def scripted(self, now_ns: int) -> bool:
        return bool(self.holder(now_ns)) and self.device_kind == "scripted"

    def ask(self, sender: str, owner: bytes, device_kind: str, now_ns: int, *, gone: bool = False, person: Driver = UNNAMED) -> str:
        """Grant or renew; returns the token. ``gone``: the holder's connection is no more. Raises `LeaseRefused`."""
        heard_lately = now_ns - self.heard_ns <= LEASE_LIFE_NS and not gone
        mine = self.is_of(sender, owner)
        if self.token and mine and person == self.person and (heard_lately or not self.lapses):
            self.heard_ns = now_ns
            return self.token
        taken = self.sender and not mine and heard_lately
        if taken and not (self.device_kind == "scripted" and device_kind != "scripted"):
            raise LeaseRefused(holds(self.sender, sender))
        if not mine:  # asked again by the same connection it shows a link that lives, not a person
            self.present_ns = now_ns
        self.sender, self.owner, self.device_kind, self.person = sender, owner, device_kind, person
        self.token, self.heard_ns = secrets.token_hex(8), now_ns
        self.grants += 1
        return self.token

    def absence(self, now_ns: int, *, scripts: bool) -> str:
        """Why the holder is nobody who could take over or stop, "" when it is somebody. ``scripts``: a script may stand for a person."""
        if self.device_kind == "scripted" and not scripts:
            return f"{self.sender} is a script, and the robot is real"
        if now_ns - self.present_ns > PRESENCE_NS:
            return f"{self.sender} holds the lease, but its window stands still or sends no commands in time"
        return ""

    def is_of(self, sender: str, owner: bytes) -> bool:
        """Whether this connection has it, alive or lapsed; the name alone says nothing."""
        return (self.sender, self.owner) == (sender, owner)

    def release(self, sender: str, owner: bytes) -> None:
        if self.is_of(sender, owner):
            self.sender = self.token = self.device_kind = ""

    def heard(self, device_kind: str, now_ns: int, *, age_s: float = 0.0, present: bool = True) -> None:
        """A valid command came from the holder, ``age_s`` old: the lease is not renewed by who has seen no state for as long as it lives.

        ``present``: from a window that lives (`Command.gui_alive`), whose person could take over.
        """
        self.device_kind = device_kind
        if age_s * 1e9 <= LEASE_LIFE_NS:
            self.heard_ns = now_ns
        if present:
            self.present_ns = now_ns
