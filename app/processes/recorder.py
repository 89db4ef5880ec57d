"""The recorder process: bridge's record stream in, acknowledgements back, committed records out."""

import logging
import sys
import time

from takeover.app.processes.common import ProcessContext, StartupError, run_process
from takeover.data.catalog import CatalogError
from takeover.data.journal import JournalError
from takeover.data.labels import LabelError
from takeover.data.recorder import MIN_FREE_BYTES, Accepted, Recorder, Synced, episode_memory_bytes
from takeover.data.schema import AnyRecord, Committed, RecorderMessage
from takeover.data.workspace import Workspace, WorkspaceError
from takeover.robot_bridge.protocol import Dealer, EndpointError, Endpoints, Publisher

REALTIME_SYNC_S = 0.1
ACK_EVERY_S = 0.1
HELLO_EVERY_S = 0.5
POSITION_EVERY_S = 1.0
BATCH = 256
GAP_PATIENCE_S = 3.0
LAST_RECORDS_S = 0.3  # at a stop: wait this long for the bridge's last records
log = logging.getLogger("recorder")


class RecorderLoop:
    """One thread: receive, journal, sync, acknowledge, announce."""

    def __init__(self, recorder: Recorder, endpoints: Endpoints, sync_every_s: float) -> None:
        self.recorder = recorder
        self.sync_every_s = sync_every_s
        self.committed: Publisher[Committed] = Publisher(endpoints, "committed", Committed, queue=0)
        self.dealer: Dealer[RecorderMessage, AnyRecord] = Dealer(endpoints, "record", RecorderMessage, AnyRecord)
        self._bad = 0
        now = time.monotonic()
        self._last_sync = self._last_ack = self._last_hello = self._last_position = self._last_heard = now
        self._gap_since = 0.0
        self._newest = -1  # number of the record that came last
        self._began_again = False  # the bridge has sent a second time since the last gap was looked at
        self._begins_at = -1  # where it began after the gap when it last did
        self._dirty = False
        self._hello()

    def close(self) -> None:
        self.dealer.close()
        self.committed.close()

    def _hello(self) -> None:
        self.dealer.send(self.recorder.hello())
        self._last_hello = time.monotonic()

    def turn(self) -> bool:
        """Receive what is there (waiting a little), then do what is due. Returns whether anything came."""
        record = self.dealer.receive(self._patience())
        count = 0
        while record is not None:
            self._accept(record)
            count += 1
            record = self.dealer.receive(0.0) if count < BATCH else None
        now = time.monotonic()
        if count:
            self._last_heard = now
        if self.dealer.bad_messages > self._bad:
            self._bad = self.dealer.bad_messages
            log.error("%d messages on the record socket could not be decoded", self._bad)
        if self._dirty and now - self._last_sync >= self.sync_every_s:
            self.sync()
        self._beat(now)
        return count > 0

    def _patience(self) -> float:
        due = self._last_ack + ACK_EVERY_S
        if self._dirty:
            due = min(due, self._last_sync + self.sync_every_s)
        return max(0.0, due - time.monotonic())

    def _accept(self, record: AnyRecord) -> None:
        session = self.recorder.session
        self._began_again |= record.rec_seq <= self._newest
        self._newest = record.rec_seq
        try:
            result = self.recorder.accept(record)
            if result is Accepted.GAP:
                result = self._gap(record)
        except JournalError as error:
            log.error("%s", error)  # not taken: the gap that follows asks for it again
            return
        if self.recorder.session != session:
            self._hello()
        if result is Accepted.TAKEN:
            self._gap_since, self._began_again, self._begins_at = 0.0, False, -1
            self._dirty = True

    def _gap(self, record: AnyRecord) -> Accepted:
        """Ask for what is missing; go on without it once the bridge has answered twice from the same record on, later than what is missing.

        Time alone says nothing: on a busy machine what was sent before the question can take longer to come than any patience, and the
        bridge keeps what nobody acknowledged.
        """
        now = time.monotonic()
        self._gap_since = self._gap_since or now
        if self._began_again:
            self._began_again = False
            again, self._begins_at = self._begins_at == record.rec_seq, record.rec_seq
            if again and now - self._gap_since > GAP_PATIENCE_S and not self.recorder.error():
                self.recorder.skip_to(record.rec_seq)
                return self.recorder.accept(record)
        if now - self._last_hello > HELLO_EVERY_S:
            self._hello()
        return Accepted.GAP

    def sync(self) -> None:
        self._announce(self.recorder.sync())
        self._last_sync = time.monotonic()
        self._dirty = False

    def _announce(self, synced: Synced) -> None:
        # acknowledged first: the bridge waits for this, learners for the other
        self.dealer.send(self.recorder.ack())
        self._last_ack = time.monotonic()
        if synced.committed is not None:
            self.committed.send(synced.committed)
        for closed in synced.closed:
            self.committed.send(closed)
        if synced.error:
            log.error("%s", synced.error)

    def _beat(self, now: float) -> None:
        if now - self._last_ack >= ACK_EVERY_S:
            self._announce(self.recorder.sync())  # tries again what a full disk refused
        if now - self._last_heard > HELLO_EVERY_S and now - self._last_hello > HELLO_EVERY_S:
            self._hello()  # a bridge that was started anew does not know of us
        if now - self._last_position > POSITION_EVERY_S:
            self._last_position = now
            self.committed.send(self.recorder.position())


def main(context: ProcessContext) -> None:
    """Record until told to stop; then take the last records, close finished episodes, rebuild the index."""
    config = context.config
    sys.setswitchinterval(0.001)  # the worker that closes episodes must not delay acknowledgements
    workspace = Workspace(config.workspace)
    try:
        # the launcher asks for more before a station starts; a recorder that is restarted has to go on with less
        workspace.prepare().require_space(2 * MIN_FREE_BYTES)
        recorder = Recorder(workspace, max_episode_bytes=episode_memory_bytes())
    except (WorkspaceError, CatalogError, LabelError) as error:
        raise StartupError(str(error)) from error
    endpoints = Endpoints.of(config)
    try:
        endpoints.prepare()
        loop = RecorderLoop(recorder, endpoints, 0.0 if config.clock == "lockstep" else REALTIME_SYNC_S)
    except EndpointError as error:
        recorder.close()
        raise StartupError(str(error)) from error
    context.ready()
    while not context.stop.is_set():
        loop.turn()
    quiet_since = time.monotonic()
    deadline = quiet_since + 1.5
    while time.monotonic() < min(deadline, quiet_since + LAST_RECORDS_S):
        if loop.turn():
            quiet_since = time.monotonic()
    loop.sync()
    synced = recorder.close()
    for closed in synced.closed:
        loop.committed.send(closed)
    time.sleep(0.05)  # sockets do not linger: let the last announcements leave
    loop.close()


if __name__ == "__main__":
    raise SystemExit(run_process("recorder", main))
