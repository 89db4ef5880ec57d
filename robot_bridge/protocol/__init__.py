"""Wire protocol: topic table, codec, typed sockets, control client. The only place that touches ZMQ sockets directly."""

from takeover.robot_bridge.protocol.client import SAY_HELLO, ClockOffset, ControlClient, KeyRefused, RequestTimeout, greet_bridge
from takeover.robot_bridge.protocol.codec import BadMessage, Codec
from takeover.robot_bridge.protocol.keys import KeyFolder, KeyProblem
from takeover.robot_bridge.protocol.link import LinkProblem, check_link
from takeover.robot_bridge.protocol.polling import PollSet, Wakeup
from takeover.robot_bridge.protocol.sockets import (
    Dealer,
    EndpointError,
    Endpoints,
    PeerGone,
    Publisher,
    Pull,
    Push,
    Router,
    Subscriber,
    wait,
)
from takeover.robot_bridge.protocol.topics import TOPICS, Topic, topic

__all__ = [
    "SAY_HELLO",
    "TOPICS",
    "BadMessage",
    "ClockOffset",
    "Codec",
    "ControlClient",
    "Dealer",
    "EndpointError",
    "Endpoints",
    "KeyFolder",
    "KeyProblem",
    "KeyRefused",
    "LinkProblem",
    "PeerGone",
    "PollSet",
    "Publisher",
    "Pull",
    "Push",
    "RequestTimeout",
    "Router",
    "Subscriber",
    "Topic",
    "Wakeup",
    "check_link",
    "greet_bridge",
    "topic",
    "wait",
]
