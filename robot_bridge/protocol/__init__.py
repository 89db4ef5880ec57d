"""Wire protocol: topic table, codec, typed sockets, control client. The only place that touches ZMQ sockets directly."""

from takeover.robot_bridge.protocol.asking import Dealer, PeerGone, Router
from takeover.robot_bridge.protocol.client import SAY_HELLO, ClockOffset, ControlClient, KeyRefused, RequestTimeout, greet_bridge
from takeover.robot_bridge.protocol.codec import BadMessage, Codec
from takeover.robot_bridge.protocol.endpoints import EndpointError, Endpoints
from takeover.robot_bridge.protocol.keys import KeyFolder, KeyProblem
from takeover.robot_bridge.protocol.link import LinkProblem, check_link
from takeover.robot_bridge.protocol.polling import PollSet, Wakeup, turn, wait
from takeover.robot_bridge.protocol.sockets import Publisher, Pull, Push, Subscriber
from takeover.robot_bridge.protocol.topics import TOPICS, Topic, topic
from takeover.robot_bridge.protocol.watched_push import WatchedPush

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
    "WatchedPush",
    "check_link",
    "greet_bridge",
    "topic",
    "turn",
    "wait",
]
