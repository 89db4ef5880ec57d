"""A small TCP proxy that makes a network bad: delay, stalls, outages, a narrow link, dropped connections.

TCP hides loss and reordering from whoever uses it: they show as stalls, which is what this proxy makes.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterable

BUFFER_BYTES = 16 * 1024  # a network that kept megabytes would show old pictures for ever


class FaultProxy:
    """Forwards ``host:port + offset`` to ``target:target_port + offset`` for every offset. Attributes may change at any time."""

    def __init__(self, host: str, port: int, target: str, target_port: int, offsets: Iterable[int]) -> None:
        self.delay_s = 0.0  # of every piece, one way
        self.bytes_per_s = 0.0  # of all connections together, per direction; 0: unlimited
        self.cut = False  # nothing passes, connections stay: an outage
        self._host, self._port, self._target, self._target_port = host, port, target, target_port
        self._offsets = list(offsets)
        self._writers: set[asyncio.StreamWriter] = set()
        self._forgotten: frozenset[asyncio.StreamWriter] = frozenset()
        self._free_s = {"up": 0.0, "down": 0.0}  # when the narrow link is free again
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(5.0)

    def drop_connections(self) -> None:
        """Reset every connection; clients connect again."""

        def drop() -> None:
            for writer in list(self._writers):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(drop)

    def forget_connections(self) -> None:
        """As a NAT whose time is out: every connection stays open and nothing passes on it any more; new ones work."""
        self._forgotten = frozenset(self._writers)

    def close(self) -> None:
        self.cut = False
        self._forgotten = frozenset()
        self.drop_connections()
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(5.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        servers = [
            await asyncio.start_server(lambda r, w, o=offset: self._connected(r, w, o), self._host, self._port + offset, limit=BUFFER_BYTES)
            for offset in self._offsets
        ]
        self._ready.set()
        await self._closing.wait()
        for server in servers:
            server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, offset: int) -> None:
        try:
            out = socket.socket()
            out.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)  # before connecting: it decides the window
            out.setblocking(False)
            await self._loop.sock_connect(out, (self._target, self._target_port + offset))
            out_reader, out_writer = await asyncio.open_connection(sock=out, limit=BUFFER_BYTES)
        except OSError:
            out.close()
            writer.transport.abort()
            return
        both = {writer, out_writer}
        self._writers |= both
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(self._pump(reader, out_writer, "up"), self._pump(out_reader, writer, "down"))
        self._writers -= both
        for each in both:
            each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        """Pieces leave in order, each ``delay_s`` after it came, as fast as the narrow link lets them."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=8 if self.bytes_per_s else 4096)

        async def deliver() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                while self.cut or writer in self._forgotten:
                    await asyncio.sleep(0.01)
                writer.write(data)
                await writer.drain()

        task = asyncio.ensure_future(deliver())
        try:
            while data := await reader.read(4096 if self.bytes_per_s else 65536):
                now = time.monotonic()
                if self.bytes_per_s:
                    self._free_s[way] = max(now, self._free_s[way]) + len(data) / self.bytes_per_s
                    await asyncio.sleep(max(0.0, self._free_s[way] - now))
                await queue.put((time.monotonic() + self.delay_s, data))
        finally:
            task.cancel()
            writer.transport.abort()
