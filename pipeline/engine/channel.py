"""What the supervisor and a worker say to each other: JSON messages over one socket, accepted connections over another."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from io import RawIOBase
from typing import Any, NoReturn, cast

import orjson

from pipeline.core.handover import Presence
from pipeline.core.types import Listen

MAX_MESSAGE = 64 << 20
"""Bytes of a message at most; the two ends trust each other, so this only finds a bug before the memory does."""

Message = dict[str, Any]


def receive(sock: socket.socket) -> Message:
    """Wait for one message before there is an event loop. Raises EOFError."""
    with cast("RawIOBase", sock.makefile("rb", buffering=0)) as file:
        size = int.from_bytes(_exactly(file, 4))
        message: Message = orjson.loads(_exactly(file, size))
        return message


def _exactly(file: RawIOBase, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += file.read(size - len(data)) or _gone()
    return data


def _gone() -> NoReturn:
    raise EOFError("the supervisor has gone")


class Channel:
    """One end of the socket for messages. Each has a ``kind``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        """Speak over a connected socket."""
        return cls(*await asyncio.open_connection(sock=sock))

    def send(self, kind: str, **fields: Any) -> None:
        """Send a message; what the other end does not take any more is lost with it."""
        if self._writer.is_closing():
            return
        body = orjson.dumps({"kind": kind, **fields}, option=orjson.OPT_NON_STR_KEYS)
        self._writer.write(len(body).to_bytes(4) + body)

    async def messages(self) -> AsyncIterator[Message]:
        """All messages until the other end is gone."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = int.from_bytes(await self._reader.readexactly(4))
                if size > MAX_MESSAGE:
                    raise ValueError(f"a message of {size} bytes between our own processes")
                message: Message = orjson.loads(await self._reader.readexactly(size))
                yield message

    async def close(self) -> None:
        """Safe to call twice."""
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


class HandedOver:
    """Implements `pipeline.core.handover.Handover` in a worker."""

    def __init__(self, address: Listen, *, leads: bool, tell: Callable[[Presence], None]) -> None:
        self.address = address
        self.leads = leads
        self.changed: Callable[[Presence], None] = _nobody
        self._tell = tell
        self._told: Presence = {}
        self._sockets: asyncio.Queue[socket.socket | None] = asyncio.Queue()

    async def accept(self) -> socket.socket | None:
        return await self._sockets.get()

    def tell(self, presence: Presence) -> None:
        if presence != self._told:
            self._told = dict(presence)
            self._tell(presence)

    def follow(self, changed: Callable[[Presence], None]) -> None:
        self.changed = changed

    def put(self, sock: socket.socket | None) -> None:
        """Give it a connection, or None after the last one."""
        self._sockets.put_nowait(sock)


class SocketInbox:
    """Takes the connections that the supervisor hands over, and gives each to its source."""

    def __init__(self, sock: socket.socket, doors: Sequence[HandedOver]) -> None:
        """``doors`` stand in the order of the numbers that come with the connections."""
        self._sock = sock
        self._doors = doors
        self._loop = asyncio.get_running_loop()
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock.fileno(), self._read)

    def close(self) -> None:
        """Take what is there, then no more. Safe to call twice."""
        if self._sock.fileno() < 0:
            return
        self._read()
        if self._sock.fileno() >= 0:
            self._end()

    def _read(self) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, 1, 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data, fds = b"", []
            if not data:
                self._end()
                return
            for fd in fds:
                self._doors[data[0]].put(socket.socket(fileno=fd))

    def _end(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for door in self._doors:
            door.put(None)


def presence_of(pairs: Sequence[tuple[str | None, int]]) -> Presence:
    """Read what `pairs_of` made; JSON has no key that is None."""
    return dict(pairs)


def pairs_of(presence: Mapping[str | None, int]) -> list[tuple[str | None, int]]:
    """Connections of each organization as a message carries them."""
    return list(presence.items())


def _nobody(presence: Presence) -> None:
    del presence
