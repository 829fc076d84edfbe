"""The receiving end of a connection, with TLS or without, that loses nothing of what the peer sent before it closed.

TLS is done here on memory BIOs over a plain transport: event loops' own TLS may drop the end of a stream when the peer closes while
reading is paused, and allocates much more for each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ssl
import struct
import termios
from typing import Literal, cast

End = Literal["closed", "cut", "silent", "handshake", "broken"]
"""closed: in order. cut: the stream ended below TLS, or was reset. silent: not one byte came. handshake: there was no agreement.
broken: what came is not the TLS it was before."""

READ_SIZE = 256 << 10
_PIECE = 16 << 10
"""Ciphertext is fed in pieces: the BIO of a connection keeps the room of the largest piece it ever had."""

_LARGE = 8 << 10
"""Bytes of a record after which it is cheaper to look at the next one's header than to be told that it is not whole."""
_HEADER = 5


class Buffers:
    """What all connections of one event loop read and decrypt into; a callback is done with them when it returns."""

    def __init__(self, size: int = READ_SIZE) -> None:
        self.raw = memoryview(bytearray(size))
        # A record that began in an earlier read may come on top.
        self.plain = memoryview(bytearray(size + 2 * _PIECE))


class Receiver(asyncio.BufferedProtocol):
    """Override `opened`, `received` and `ended`. Everything is called by the event loop and must not raise."""

    def __init__(self, buffers: Buffers, context: ssl.SSLContext | None, handshake_timeout: float) -> None:
        """Without ``context`` the connection is plain TCP."""
        self._buffers = buffers
        self._handshake_timeout = handshake_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._ssl: ssl.SSLObject | None = None
        if context is not None:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.secured = context is None
        """Whether the connection can carry data."""
        self._heard = False
        self._over = False
        self._paused = False
        self._closing = False
        self._silent = False
        """Whether we said that nothing more comes from us."""
        self.lost = False
        """Whether the transport is gone."""

    # What a subclass overrides.

    def opened(self) -> None:
        """The connection can carry data: TCP is up, and TLS agreed."""

    def received(self, data: bytes) -> None:
        """The plain bytes of one read."""

    def ended(self, end: End, error: BaseException | None) -> None:
        """Called once; nothing is received after it. The transport stays open for `close`, unless `lost`."""

    # What a subclass calls.

    @property
    def peer(self) -> str:
        """The address of the other side, for logs."""
        name = self._transport.get_extra_info("peername")
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else ""

    @property
    def unread(self) -> int:
        """Bytes that the kernel holds for us."""
        sock = self._transport.get_extra_info("socket")
        if self.lost or sock is None or sock.fileno() < 0:
            return 0
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0\0\0\0"))[0])

    def pause(self) -> None:
        """Read no more for now."""
        self._paused = True
        self._hold()
        # Some event loops forget a pause while a connection is being made.
        self._loop.call_soon(self._hold)

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        if not self.lost and not self._closing:
            self._transport.resume_reading()

    def finish(self) -> None:
        """Tell the peer that we want no more, and go on reading."""
        if self._closing or self.lost or self._over:
            return
        self._say_goodbye()
        if self._transport.can_write_eof():
            self._silent = True
            with contextlib.suppress(OSError):  # the peer broke off, and we hear of it when we read on
                self._transport.write_eof()

    def close(self) -> None:
        """Close in order: everything that came was taken."""
        if self._closing or self.lost:
            return
        self._say_goodbye()
        self._closing = True
        self._transport.close()
        # Whoever does not take our last bytes does not keep the connection.
        self._timer = self._loop.call_later(self._handshake_timeout, self._transport.abort)

    def abort(self) -> None:
        """Drop the connection with all that was not read."""
        self._closing = True
        if not self.lost:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        if self.secured:
            self.opened()
        else:
            self._timer = self._loop.call_later(self._handshake_timeout, self._too_slow)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._buffers.raw

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = True
        if self._over:
            return
        if self._ssl is None:
            self.received(bytes(self._buffers.raw[:nbytes]))
        else:
            self._decrypt(self._ssl, nbytes)
        if self._paused:
            # Data came in spite of a pause: ask as long as it comes.
            self._loop.call_soon(self._hold)

    def eof_received(self) -> bool:
        self._end("closed" if self._ssl is None and self._heard else "cut" if self.secured else "handshake")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._end("cut" if self.secured else "handshake", exc)
        if self._timer is not None:
            self._timer.cancel()

    def _decrypt(self, tls: ssl.SSLObject, nbytes: int) -> None:
        raw, plain = self._buffers.raw, self._buffers.plain
        filled = 0
        end: End | None = None
        error: ssl.SSLError | None = None
        for start in range(0, nbytes, _PIECE):
            stop = min(start + _PIECE, nbytes)
            self._incoming.write(raw[start:stop])
            try:
                if not self.secured:
                    tls.do_handshake()
                    self._secure()
                while size := cast(int, tls.read(len(plain), plain[filled:])):
                    filled += size
                    if size >= _LARGE and not self._more(stop):
                        break
                else:
                    end = "closed"
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLZeroReturnError:
                end = "closed"
            except ssl.SSLError as problem:
                end, error = "broken" if self.secured else "handshake", problem
            if end is not None:
                break
        self._flush()
        if filled:
            self.received(bytes(plain[:filled]))
        if end is not None:
            self._end(end, error)

    def _more(self, stop: int) -> bool:
        """Whether what TLS has not read yet may have a whole record; it ends at ``stop`` in the buffer."""
        left = self._incoming.pending
        at, raw = stop - left, self._buffers.raw
        return at < 0 or (left >= _HEADER and left >= _HEADER + (raw[at + 3] << 8 | raw[at + 4]))

    def _secure(self) -> None:
        self.secured = True
        if self._timer is not None:
            self._timer.cancel()
        self.opened()

    def _too_slow(self) -> None:
        self._end("handshake", TimeoutError("the handshake took too long"))

    def _end(self, end: End, error: BaseException | None = None) -> None:
        if self._over:
            return
        self._over = True
        if not self.secured and self._timer is not None:
            self._timer.cancel()
        self.ended("silent" if not self._heard else end, error)

    def _hold(self) -> None:
        if self._paused and not self.lost and not self._closing:
            self._transport.pause_reading()

    def _flush(self) -> None:
        """Send what TLS has to say: its side of the handshake, alerts, answers to key updates."""
        if self._outgoing.pending and not self.lost:
            answer = self._outgoing.read()
            if not self._silent:  # else there may still be something to read, and the transport does not take an answer
                self._transport.write(answer)

    def _say_goodbye(self) -> None:
        if self._ssl is None or not self.secured:
            return
        # It raises where the peer's own goodbye has not come yet; ours is on its way.
        with contextlib.suppress(ssl.SSLError):
            self._ssl.unwrap()
        self._flush()
