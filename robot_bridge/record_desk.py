"""The recorder's side of the bridge: records to one recorder, and what it says is on disk. On a network the first key keeps the record."""

import time
from collections.abc import Callable

from takeover.data.schema import AnyRecord, RecorderHello, RecorderMessage
from takeover.robot_bridge import names
from takeover.robot_bridge.inbox import Inbox
from takeover.robot_bridge.protocol import PeerGone, Router, turn
from takeover.robot_bridge.protocol.link import Gatekeeper
from takeover.robot_bridge.record_log import RecordLog
from takeover.robot_bridge.refusals import Refusal

REWIND_NS = 100_000_000  # a recorder may ask for everything again ten times a second, not more
TURN_NS = 2_000_000_000  # after its first record of a session a recorder has so long to speak of that session


class RecordDesk:
    """The part of `takeover.robot_bridge.io.BridgeIO` that serves ``record``; that class makes everything named here."""

    session: str
    inbox: Inbox
    records: RecordLog
    _gatekeeper: Gatekeeper | None
    _record: Router[RecorderMessage, AnyRecord]
    _recorder: bytes | None
    _recorder_user: str
    _record_key: str | None  # public key of the recorder that has this session's record; None: none yet
    _rewound_ns: int
    _served_ns: int  # since when the present connection of the recorder has had records; 0: none yet
    _refuse: Callable[[Refusal, int], None]
    event: Callable[..., None]

    def _send_records(self) -> None:
        """As many as the recorder takes; what it does not take now waits here, where its size is watched."""
        if self._gatekeeper is not None and not self._gatekeeper.permits(self._recorder_user, self._record.name):
            return  # revoked since, or none yet
        while self._recorder is not None and (frames := self.records.unsent()):
            sent = 0
            try:
                while sent < len(frames) and self._record.send_encoded(self._recorder, frames[sent]):
                    sent += 1
            except PeerGone:
                self._recorder = None  # whoever comes back says how far it got
            self.records.give_back(len(frames) - sent)
            if sent and not self._served_ns:
                self._served_ns = time.monotonic_ns()
            if sent < len(frames):
                return

    def _on_record(self) -> None:
        for peer, message in turn(self._record.receive):
            now, ours, hello = time.monotonic_ns(), message.session == self.session, isinstance(message, RecorderHello)
            if refusal := self._record_refusal(peer, message, now):
                self._refuse(refusal, now)
                continue
            self._recorder_user = self._record.user
            self.records.heard_ns = now
            if peer != self._recorder or (hello and now - self._rewound_ns > REWIND_NS):
                if peer != self._recorder:
                    self._served_ns = 0
                self._recorder, self._rewound_ns = peer, now
                self.records.rewind(message.acked_rec_seq if ours else -1)
            if not isinstance(message, RecorderHello):
                self.records.disk_free_bytes = message.disk_free_bytes
                self.records.error = message.error
                if message.notice != self.records.notice:
                    self.records.notice = message.notice
                    self.event("recorder_notice", message.notice, source="recorder")
        self.inbox.notify()

    def _record_refusal(self, peer: bytes, message: RecorderMessage, now_ns: int) -> Refusal | None:
        """Take note of what is on disk; or why a recorder's message does not count, not as a sign of life either.

        After a restart of the bridge a recorder still has the session before, in its hello and in what was under way: until it had time to
        look at a record of this one that is no mistake.
        """

        def refused(field: str, limit: str, value: object = None) -> Refusal:
            return Refusal(names.author(self._gatekeeper, self._record.user, "recorder"), field, limit, value)

        if self._record_key not in (None, self._record.user):  # an episode in two workspaces would be one in neither
            limit = f"{self.records.owner} has the record of this session: start that recorder again, or restart the bridge"
            return refused("record", limit)
        if message.session != self.session:
            knows = peer == self._recorder and 0 < self._served_ns < now_ns - TURN_NS
            if knows and not isinstance(message, RecorderHello):
                return refused("session of the recorder", f"records of {self.session} were sent to it", message.session)
        elif not self.records.acknowledge(message.acked_rec_seq):
            limit = f"nothing above {self.records.sent - 1}, the newest record that was sent"
            return refused("acked_rec_seq of the recorder", limit, message.acked_rec_seq)
        elif self._record_key is None and message.acked_rec_seq >= 0:  # what it has is kept nowhere else from now on
            self._record_key = self._record.user
            self.records.owner = names.author(self._gatekeeper, self._record.user, "recorder")
        return None
