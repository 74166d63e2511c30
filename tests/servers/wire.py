"""A proxy that counts round trips: how often the client spoke and the server then answered."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Wire:
    """What went over it so far."""

    def __init__(self) -> None:
        self.port = 0
        self.trips = 0
        self.connections = 0
        self._clients_turn = True
        self._losing = False
        self._writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Break every connection, without a goodbye."""
        for writer in self._writers:
            if not writer.transport.is_closing():  # asyncio's TLS cannot abort what is closed
                writer.transport.abort()
        self._writers.clear()

    def lose_next_answer(self) -> None:
        """Break every connection when the server answers next, and keep the answer."""
        self._losing = True

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool
    ) -> None:
        try:
            while data := await reader.read(1 << 16):
                if client and self._clients_turn:
                    self.trips += 1
                self._clients_turn = not client
                if self._losing and not client:
                    self._losing = False
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def wire_to(
    port: int, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Wire]:
    """A wire to this server, at ``wire.port``, there with TLS if so wished. Trips are counted right
    for one caller at a time."""
    wire = Wire()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.connections += 1
        there, out = await asyncio.open_connection(host, port)
        wire._writers += [writer, out]
        both = [
            asyncio.ensure_future(wire._forward(reader, out, client=True)),
            asyncio.ensure_future(wire._forward(there, writer, client=False)),
        ]
        tasks.update(both)

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        wire.cut()
        await asyncio.gather(*tasks, return_exceptions=True)
