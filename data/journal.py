"""The append-only journal: an MCAP file per running episode. What `JournalWriter.sync` returned for survives a SIGKILL.

MCAP's own writer cannot be asked to finish a chunk, nor to roll a half-written one back when the disk is full, so chunks are put
together here from the library's record classes; the file opens in any MCAP reader. A message is one MessagePack record of
`takeover.data.schema.records` on a topic named after its type (``step``, ``camera/front``, ...).
"""

import contextlib
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from mcap.data_stream import RecordBuilder
from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, DataEnd, Footer, Header, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk

from takeover.data.schema import AnyRecord, CameraFrame
from takeover.data.workspace import fsync_folder

MAX_CHUNK_BYTES = 64 * 1024
MAX_RECORD_BYTES = 64 * 1024**2
_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA_ID = 1


class JournalError(OSError):
    """The journal could not be written (disk full, I/O error). What was not synced is still held and can be tried again."""


def topic_of(record: AnyRecord) -> str:
    """MCAP topic of a record: its wire tag, pictures by camera."""
    tag = str(record.__struct_config__.tag)
    return f"camera/{record.camera}" if isinstance(record, CameraFrame) else tag


def _log_time(record: AnyRecord) -> int:
    for name in ("t_source_ns", "t_observation_ns", "t_ns", "wall_ns"):
        if hasattr(record, name):
            return max(0, int(getattr(record, name)))
    return 0


class JournalWriter:
    """Writes one journal file. One thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._encoder = msgspec.msgpack.Encoder()
        self._channels: dict[str, int] = {}
        self._pending: list[bytes] = []  # finished chunks that are not yet durable
        self._records = RecordBuilder()
        self._times: list[int] = []
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(error.errno, f"cannot create journal {path}: {error.strerror}") from error
        head = RecordBuilder()
        Header(profile="takeover", library="takeover").write(head)
        Schema(id=_SCHEMA_ID, name="takeover.data.schema.AnyRecord", encoding="", data=b"").write(head)
        self._pending.append(_MAGIC + head.end())
        self._size = 0  # durable bytes
        self._new = True
        self._ended = False

    def add(self, record: AnyRecord) -> int:
        """Take ``record`` into the running chunk; returns its encoded size. Durable only after `sync`."""
        data = self._encoder.encode(record)
        topic = topic_of(record)
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._channels[topic] = len(self._channels) + 1
            Channel(id=channel, topic=topic, message_encoding="msgpack", metadata={}, schema_id=_SCHEMA_ID).write(self._records)
        time_ns = _log_time(record)
        sequence = record.rec_seq & 0xFFFFFFFF
        Message(channel_id=channel, log_time=time_ns, data=data, publish_time=time_ns, sequence=sequence).write(self._records)
        self._times.append(time_ns)
        if self._records.count >= MAX_CHUNK_BYTES:
            self._finish_chunk()
        return len(data)

    def _finish_chunk(self) -> None:
        if not self._times:
            return
        data = self._records.end()
        out = RecordBuilder()
        Chunk(
            compression="",
            data=data,
            message_start_time=min(self._times),
            message_end_time=max(self._times),
            uncompressed_crc=zlib.crc32(data),
            uncompressed_size=len(data),
        ).write(out)
        self._pending.append(out.end())
        self._times = []

    @property
    def dirty(self) -> bool:
        """Whether something was added since the last successful `sync`."""
        return bool(self._pending or self._times)

    def sync(self) -> None:
        """Write what was added and make it durable. Raises `JournalError`; then nothing is lost and `sync` may be tried again."""
        self._finish_chunk()
        if not self._pending:
            return
        data = b"".join(self._pending)
        try:
            view = memoryview(data)
            while view:
                view = view[os.pwrite(self._fd, view, self._size + len(data) - len(view)) :]
            os.fdatasync(self._fd)
            if self._new:
                fsync_folder(self.path.parent)
        except OSError as error:
            # a half-written chunk would hide everything after it; the next try writes the same bytes at the same place
            with contextlib.suppress(OSError):  # a disk that has become read-only refuses this too
                os.ftruncate(self._fd, self._size)
            raise JournalError(error.errno, f"cannot write journal {self.path}: {error.strerror}") from error
        self._size += len(data)
        self._pending = []
        self._new = False

    def close(self) -> None:
        """Sync and end the file properly. Raises `JournalError`."""
        if self._fd < 0:
            return
        if not self._ended:  # a second try after an error has it already
            tail = RecordBuilder()
            self._finish_chunk()
            DataEnd(data_section_crc=0).write(tail)
            Footer(summary_start=0, summary_offset_start=0, summary_crc=0).write(tail)
            self._pending.append(tail.end() + _MAGIC)
            self._ended = True
        self.sync()
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is; what was synced stays readable."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass
class JournalContents:
    """What a journal holds. ``problem`` is empty when the file is whole, else what ended or damaged it."""

    records: list[AnyRecord] = field(default_factory=list)
    problem: str = ""


def read_journal(path: Path) -> JournalContents:
    """Every record up to the last whole chunk, for a file cut off at any byte; a damaged chunk is left out and named.

    Raises `OSError` when the file cannot be read at all.
    """
    decoder: msgspec.msgpack.Decoder[AnyRecord] = msgspec.msgpack.Decoder(AnyRecord)
    contents = JournalContents()
    with path.open("rb") as stream:
        reader = StreamReader(stream, emit_chunks=True, record_size_limit=MAX_RECORD_BYTES * 2)
        try:
            for index, record in enumerate(reader.records):
                if not isinstance(record, Chunk):
                    continue
                if len(record.data) != record.uncompressed_size or zlib.crc32(record.data) != record.uncompressed_crc:
                    contents.problem = f"record {index} is damaged or cut off"
                    continue
                for message in breakup_chunk(record):
                    if isinstance(message, Message):
                        contents.records.append(decoder.decode(message.data))
        except (McapError, struct.error, UnicodeDecodeError, msgspec.DecodeError) as error:
            contents.problem += ("; " if contents.problem else "") + f"ends early ({type(error).__name__}: {error})"
    return contents
