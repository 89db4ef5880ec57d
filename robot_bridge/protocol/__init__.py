"""Wire protocol: topic table, codec, typed sockets, control client. The only place that touches ZMQ sockets directly."""

from takeover.robot_bridge.protocol.client import ControlClient, RequestTimeout
from takeover.robot_bridge.protocol.codec import BadMessage, Codec
from takeover.robot_bridge.protocol.polling import PollSet, Wakeup
from takeover.robot_bridge.protocol.sockets import (
    Dealer,
    EndpointError,
    Endpoints,
    Publisher,
    Pull,
    Push,
    Router,
    Subscriber,
    wait,
)
from takeover.robot_bridge.protocol.topics import TOPICS, Topic, topic

__all__ = [
    "TOPICS",
    "BadMessage",
    "Codec",
    "ControlClient",
    "Dealer",
    "EndpointError",
    "Endpoints",
    "PollSet",
    "Publisher",
    "Pull",
    "Push",
    "RequestTimeout",
    "Router",
    "Subscriber",
    "Topic",
    "Wakeup",
    "topic",
    "wait",
]
