"""What an episode's file can hold of what others send. Anything else is refused on arrival, before it drives or reaches the recorder.

What is accepted is on record for ever, and the file is made when the episode is over: too late to ask for another value.
"""

import math

from takeover.data.schema import Command, Event, PolicyAction
from takeover.robot_bridge.chunks import MAX_ROWS
from takeover.robot_bridge.protocol import topic
from takeover.robot_bridge.refusals import Refusal

MAX_VERSION = 2**31 - 1  # files and a catalog on a server keep versions in 32 bits
MAX_HASH = 128  # characters, twice those of a SHA-256
MAX_SCORES = 64
MAX_SCORE_NAME = 64  # characters
OTHER_FIELDS_BYTES = 1024  # of an answer, all names included: 300 are needed
MAX_DEVICE_ID = 256  # characters: a file has the longest one's room for every step


def answer_bytes(action_size: int) -> int:
    """How many bytes an answer may have: the stream's limit, or where actions are larger what the longest chunk of them needs."""
    scores = MAX_SCORES * (2 + 4 * MAX_SCORE_NAME + 9)  # a character has up to 4 bytes, a number 9
    rows = MAX_ROWS * (3 + 9 * action_size)
    return max(topic("policy_action").max_bytes, rows + scores + 4 * MAX_HASH + OTHER_FIELDS_BYTES)


def answer_refusal(answer: PolicyAction, who: str) -> Refusal | None:
    """Why an answer cannot be recorded; None when it can."""

    def refused(field: str, limit: str, value: object) -> Refusal:
        return Refusal(who, f"{field} of the answer", f"cannot be recorded: {limit}", value)

    for field in ("policy_version", "reward_version"):
        if not 0 <= (version := getattr(answer, field)) <= MAX_VERSION:
            return refused(field, f"0 to {MAX_VERSION}", version)
    if len(answer.policy_sha256) > MAX_HASH or "\0" in answer.policy_sha256:
        return refused("policy_sha256", f"at most {MAX_HASH} characters, none of them NUL", answer.policy_sha256)
    if not math.isfinite(answer.spread):
        return refused("spread", "a finite number", answer.spread)
    if len(answer.scores) > MAX_SCORES:
        return refused("scores", f"at most {MAX_SCORES}", len(answer.scores))
    for name, value in answer.scores.items():
        # a score's name is that of a dataset
        if not 0 < len(name) <= MAX_SCORE_NAME or name in (".", "..") or "/" in name or "\0" in name:
            return refused("name in scores", f"1 to {MAX_SCORE_NAME} characters, no '/' or NUL, not '.' or '..'", name)
        if not math.isfinite(value):
            return refused("scores", "finite numbers", {name: value})
    return None


def device_limit(command: Command) -> str:
    """What is allowed, where the name of a command's device cannot be recorded; "" where it can."""
    if len(command.device_id) > MAX_DEVICE_ID or "\0" in command.device_id:
        return f"cannot be recorded: at most {MAX_DEVICE_ID} characters, none of them NUL"
    return ""


def event_refusal(event: Event, who: str) -> Refusal | None:
    """Why another process' event cannot be recorded; None when it can. Long texts are cut, not refused."""
    if not math.isfinite(event.value):
        return Refusal(who, "value of the event", "cannot be recorded: a finite number", event.value)
    return None
