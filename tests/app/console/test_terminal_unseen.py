"""The terminal's operator while the bridge's states do not come."""

import time

from takeover.app.device_operator import DeviceOperator
from takeover.data.schema import Lease
from takeover.robot_bridge.protocol import Endpoints


def test_while_no_state_comes_nothing_is_commanded_and_the_lease_is_left_to_others(peer, until):
    with DeviceOperator(Endpoints(peer.config.sockets), kinds=()):
        until(lambda: len(peer.commands) > 5)
        peer.publishing = False
        time.sleep(0.8)
        sent = len(peer.commands), len(peer.asked(Lease))
        time.sleep(0.5)
        assert (len(peer.commands), len(peer.asked(Lease))) == sent
        peer.publishing = True
        until(lambda: len(peer.commands) > sent[0] and len(peer.asked(Lease)) > sent[1])
