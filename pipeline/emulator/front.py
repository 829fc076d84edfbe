"""The layer below HTTP: it sees how a peer closes, which a request handler cannot."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import cast

from aiohttp import web

CONFIRM_INTERVAL = 0.002
"""Seconds between two looks at what the peer has not confirmed."""

Settle = Callable[[bool], None]


class Peer(asyncio.Protocol):
    """Stands between the transport and the HTTP protocol of one connection and passes everything on.

    An ended answer is settled by the peer's orderly close (FIN, or close_notify over TLS) or by its next request.
    """

    transport: asyncio.Transport

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._settle: list[Settle] = []
        self._lost: list[Callable[[], None]] = []
        self._is_lost = False
        self._tls = False

    @property
    def is_lost(self) -> bool:
        return self._is_lost

    def settle(self, callback: Settle) -> None:
        """Call back once: with True at the next sign of an intact peer, with False when the connection breaks."""
        self._settle.append(callback)
        if self._is_lost:
            self._done(orderly=False)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call back when the peer has closed, in whatever manner."""
        self._lost.append(callback)
        if self._is_lost:
            callback()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        self._tls = transport.get_extra_info("ssl_object") is not None
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._done(orderly=True)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        self._done(orderly=True)
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        # a bare FIN shows as EOF on plain TCP, but only here under TLS
        self._done(orderly=self._tls and exc is None)
        self._inner.connection_lost(exc)
        for callback in self._lost:
            callback()
        self._lost.clear()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _done(self, *, orderly: bool) -> None:
        while self._settle:
            self._settle.pop()(orderly)


def peer_of(request: web.Request) -> Peer:
    """The connection that a request came on; raises `ConnectionResetError` when it is gone."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    if not isinstance(protocol, Peer):
        raise ConnectionResetError("the peer has left")
    return protocol


async def confirmed(transport: asyncio.WriteTransport, left: Callable[[], bool]) -> None:
    """Wait until the peer's system has all that was written; raises `ConnectionResetError` when the peer has left.

    Without it a peer that closes while the last records are still on their way would seem to have seen the end.
    """
    calm = 0
    # twice, for under TLS a buffer between us and the socket cannot be seen, but refills it at once
    while calm < 2:
        if left() or transport.is_closing():
            raise ConnectionResetError("the peer has left")
        calm = 0 if _unconfirmed(transport) else calm + 1
        await asyncio.sleep(CONFIRM_INTERVAL)


def _unconfirmed(transport: asyncio.WriteTransport) -> int:
    sock = transport.get_extra_info("socket")
    if sock.fileno() < 0:
        raise ConnectionResetError("the connection is closed")
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    return transport.get_write_buffer_size() + int(struct.unpack("i", answer)[0])


def reset(transport: asyncio.BaseTransport) -> None:
    """Close with RST instead of FIN."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    cast(asyncio.WriteTransport, transport).abort()
