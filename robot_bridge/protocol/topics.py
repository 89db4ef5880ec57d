"""The one table of streams: who binds, which pattern, how often, when stale, how long the queue, lossless or latest."""

from dataclasses import dataclass
from enum import StrEnum

from takeover.data.schema import Role

KIB = 1024
MIB = 1024 * KIB


class Pattern(StrEnum):
    PUB = "pub"  # binder publishes
    PULL = "pull"  # binder receives
    ROUTER = "router"  # binder answers


@dataclass(frozen=True)
class Topic:
    """A stream with a socket of its own. ``rate_hz`` 0: on change."""

    name: str
    binder: str
    pattern: Pattern
    rate_hz: float
    stale_after_s: float
    queue: int
    lossless: bool
    # a byte of MessagePack becomes up to 32 of Python objects
    max_bytes: int = 64 * KIB  # of one message towards the binder of a PULL or ROUTER, else towards its subscribers
    roles: frozenset[Role] = frozenset(Role)  # over a network: whose keys may connect


_ROBOT_SIDE = frozenset({Role.LEARNER})  # machines: actor, recorder, learner
_DRIVES = frozenset({Role.OPERATOR})
_TRUTH = frozenset({Role.LEARNER, Role.OPERATOR})
_SPEAKS = frozenset({Role.LEARNER, Role.OPERATOR, Role.LABELER})

_TABLE = (
    Topic("state", "bridge", Pattern.PUB, 50.0, 0.5, 1, False, MIB),
    Topic("observation", "bridge", Pattern.PUB, 20.0, 0.2, 1, False, 16 * MIB, _TRUTH),
    Topic("privileged", "bridge", Pattern.PUB, 20.0, 0.2, 1, False, MIB, _TRUTH),
    Topic("policy_action", "bridge", Pattern.PULL, 20.0, 0.1, 16, False, roles=_ROBOT_SIDE),
    Topic("command", "bridge", Pattern.PULL, 50.0, 0.2, 16, False, roles=_DRIVES),
    Topic("control", "bridge", Pattern.ROUTER, 0.0, 1.0, 64, False),
    Topic("event", "bridge", Pattern.PULL, 0.0, 1.0, 256, False, roles=_SPEAKS),
    Topic("record", "bridge", Pattern.ROUTER, 20.0, 0.5, 0, True, roles=_ROBOT_SIDE),
    Topic("committed", "recorder", Pattern.PUB, 20.0, 1.0, 0, True, 64 * MIB),
    Topic("learner_status", "learner", Pattern.PUB, 2.0, 3.0, 1, False, MIB),
    Topic("actor_status", "actor", Pattern.PUB, 2.0, 3.0, 1, False),
    Topic("evaluator_status", "evaluator", Pattern.PUB, 2.0, 3.0, 1, False, MIB),
    Topic("evaluate", "evaluator", Pattern.ROUTER, 0.0, 600.0, 16, False),
    Topic("launcher", "launcher", Pattern.ROUTER, 0.0, 5.0, 16, False),
    Topic("process_status", "launcher", Pattern.PUB, 2.0, 3.0, 1, False, MIB),
)

TOPICS: dict[str, Topic] = {topic.name: topic for topic in _TABLE}


def topic(name: str) -> Topic:
    """The entry for ``name``. ``camera/<name>`` streams each have a socket of their own, bound by the bridge."""
    if name.startswith("camera/"):
        return Topic(name, "bridge", Pattern.PUB, 20.0, 0.3, 1, False, 16 * MIB)
    try:
        return TOPICS[name]
    except KeyError:
        raise KeyError(f"unknown topic {name!r}; known: {', '.join(sorted(TOPICS))}, camera/<name>") from None
