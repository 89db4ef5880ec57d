"""Whose answers may drive: one actor's at a time, and within an episode one policy under the number of a version."""

from collections.abc import Callable

from takeover.data.schema import PolicyAction
from takeover.robot_bridge.inbox import Inbox
from takeover.robot_bridge.refusals import Refusal

ACTOR_LIFE_NS = 2_000_000_000  # another actor is let in when the present one's answers have not counted for so long
MAX_HASHES = 64  # versions of an episode whose hash is remembered


class AnswerSource:
    """Real time, I/O side only. Actors are told apart by their keys; on one computer by what they say of their policy alone."""

    def __init__(self, inbox: Inbox) -> None:
        self.driven: Callable[[], tuple[str, bool]] = lambda: ("", True)  # the running episode, and whether the robot is held in it
        self._inbox = inbox
        self._user = ""  # public key of whose answers count
        self._who = ""
        self._episode = ""
        self._hashes: dict[int, str] = {}  # of the versions that answered in this episode

    def refusal(self, answer: PolicyAction, user: str, who: str, now_ns: int) -> Refusal | None:
        """Why an answer that came with the key ``user`` does not count."""
        episode, held = self.driven()
        newest = self._inbox.chunk
        if newest is not None and user != self._user:
            silent = now_ns - newest.arrival_ns > ACTOR_LIFE_NS
            if not silent or (episode and not held):
                limit = f"{self._who} answers; another actor may when that one is silent for 2 s, in an episode when the robot is held too"
                return Refusal(who, "answer", limit)
        if episode != self._episode:
            self._episode, self._hashes = episode, {}
            if newest is not None:  # the episode's record names it
                self._hashes[newest.answer.policy_version] = newest.answer.policy_sha256
        version = answer.policy_version
        if episode and answer.policy_sha256 != self._hashes.get(version, answer.policy_sha256):
            limit = f"another policy than version {version} of this episode, whose hash is {self._hashes[version]!r}"
            return Refusal(who, "policy_sha256 of the answer", limit, answer.policy_sha256)
        return None

    def took(self, answer: PolicyAction, user: str, who: str) -> str:
        """That answer counts. What to record when another actor has answered so far, "" otherwise."""
        other = bool(self._who) and user != self._user
        self._user, self._who = user, who
        self._hashes.setdefault(answer.policy_version, answer.policy_sha256)
        if len(self._hashes) > MAX_HASHES:
            self._hashes.pop(next(iter(self._hashes)))
        return f"{who}: version {answer.policy_version} {answer.policy_sha256}".rstrip() if other else ""
