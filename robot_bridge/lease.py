"""The right to command: one holder at a time, lapsing with its heartbeat."""

import secrets
from dataclasses import dataclass

LEASE_LIFE_NS = 500_000_000


class LeaseRefused(ValueError):
    """Somebody else holds the lease; says who."""


@dataclass
class LeaseTable:
    """Who may command. ``lapses`` False (lockstep): silence alone ends nothing, it only lets the next asker in."""

    lapses: bool = True
    sender: str = ""
    owner: bytes = b""  # the holder's connection: a restarted process of the same name is somebody new
    token: str = ""
    device_kind: str = ""
    heard_ns: int = 0
    grants: int = 0

    def holder(self, now_ns: int) -> str:
        """Name of the live holder, or ""."""
        if not self.sender or (self.lapses and now_ns - self.heard_ns > LEASE_LIFE_NS):
            return ""
        return self.sender

    def scripted(self, now_ns: int) -> bool:
        return bool(self.holder(now_ns)) and self.device_kind == "scripted"

    def ask(self, sender: str, owner: bytes, device_kind: str, now_ns: int) -> str:
        """Grant or renew; returns the token. Raises `LeaseRefused`."""
        heard_lately = now_ns - self.heard_ns <= LEASE_LIFE_NS
        if self.token and (sender, owner) == (self.sender, self.owner) and (heard_lately or not self.lapses):
            self.heard_ns = now_ns
            return self.token
        taken = self.sender and self.sender != sender and heard_lately
        if taken and not (self.device_kind == "scripted" and device_kind != "scripted"):
            raise LeaseRefused(f"{self.sender} holds the lease")
        self.sender, self.owner, self.device_kind = sender, owner, device_kind
        self.token, self.heard_ns = secrets.token_hex(8), now_ns
        self.grants += 1
        return self.token

    def release(self, sender: str) -> None:
        if self.sender == sender:
            self.sender = self.token = self.device_kind = ""

    def heard(self, device_kind: str, now_ns: int) -> None:
        """A valid command came from the holder."""
        self.heard_ns = now_ns
        self.device_kind = device_kind
