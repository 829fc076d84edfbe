"""One stream connection, over HTTPS or a WebSocket: it reads ahead of its receiver and knows why it ended."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.core.errors import UnavailableError
from pipeline.kit.http import FAULTS, describe
from pipeline.limacharlie.endpoints import StreamHost
from pipeline.limacharlie.token import Token
from pipeline.limacharlie.transport import Transport

INBOX = 1 << 20
"""Bytes that are read ahead while the receiver is busy. Only then is the response left alone: see `Feed.pump`."""
CAUSE = "POST stream"
"""What a refused stream is remembered as (`Tokens.after_refusal`)."""
_SLACK = 0.1
"""Seconds by which the watchdog may be late, so that not every read sets it anew."""
_DRAIN_QUIET = 0.05
_DRAIN_TIME = 1.0
_DRAIN_BYTES = 16 << 20

StreamTransport = Literal["https", "websocket"]
Reason = Literal["ended", "broken", "silent", "stopped"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """What to stream."""

    stream: str
    host: StreamHost = "stream-tmp"
    options: Mapping[str, str] = field(default_factory=dict)
    """``tag``, ``cat``, ``sid``, ``inv_id`` and any other option of an Output, as on the wire."""
    connect_timeout: float = 10.0
    """Seconds until the answer must begin."""
    idle_timeout: float = 121.0
    """Seconds without a byte after which the connection is dead: two keep-alives and one second."""
    transport: StreamTransport = "https"
    max_message: int = 64 << 20
    """Bytes of the largest message of a WebSocket; a larger one ends the connection."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why there are no more bytes."""

    reason: Reason
    text: str = ""

    @property
    def orderly(self) -> bool:
        """Whether all that was sent has come."""
        return self.reason == "ended"


class Feed:
    """Base of both: what a connection is opened with and read from is theirs.

    `open`, then `pump` in a task of its own beside a loop over `chunks`, then `close`. ``refusal`` is the token that the connection
    before was refused with, and the text: then another token is used, or the refusal raised where another one cannot help.
    """

    def __init__(
        self, transport: Transport, url: str, subscription: Subscription, *, refusal: tuple[Token, str] | None = None
    ) -> None:
        clock = transport.clock
        self.token: Token | None = None
        """The token that the connection was asked for with."""
        self.last_byte = clock.now()
        """When the last bytes came (Unix seconds)."""
        self.held_until = -math.inf
        """When reading was last held up by a full inbox (monotonic seconds)."""
        self.ending: Ending | None = None
        self.ended_at = 0.0
        """When it ended (Unix seconds)."""
        self._transport = transport
        self._url = url
        self._subscription = subscription
        self._refusal = refusal
        self._clock = clock
        self._limit: asyncio.Timeout | None = None
        self._stopped = False
        self._chunks: list[bytes] = []
        self._size = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def open(self) -> None:
        """Send the request and wait for the answer to begin. That alone does not mean that the subscription is in force.

        Raises the errors of `Transport.request`, without trying again; `UnavailableError` when `stop` was called.
        """
        problem = ""
        try:
            async with asyncio.timeout(self._subscription.connect_timeout) as self._limit:
                if self._stopped:
                    self._limit.reschedule(asyncio.get_running_loop().time())
                self.token = await self._get_token()
                await self._connect(self.token)
        except FAULTS as fault:
            problem = describe(fault)
        finally:
            self._limit = None
        if problem:
            raise UnavailableError(f"The stream cannot be opened: {problem}.", where=self._url)
        self.last_byte = self._clock.now()

    async def _get_token(self) -> Token:
        if self._refusal is None:
            return await self._transport.tokens.get()
        refused, text = self._refusal
        token = await self._transport.tokens.after_refusal(refused, CAUSE, text)
        if token is None:
            raise self._transport.denied(text, where=self._url)
        return token

    def _request(self, token: Token) -> dict[str, str]:
        """The fields that both forms ask with."""
        fields = {**self._subscription.options, "type": self._subscription.stream, "jwt": token.text}
        if self._transport.credentials.uid:
            fields["uid"] = self._transport.credentials.uid
        return fields

    async def _connect(self, token: Token) -> None:
        """Ask for the stream; raises what aiohttp raises, and the error of a refusal."""
        raise NotImplementedError

    async def _read(self) -> bytes | Ending:
        """The next bytes, b"" for a sign of life without any, or why there are no more; raises what aiohttp raises."""
        raise NotImplementedError

    async def _leave(self) -> None:
        """Take leave of the other side, within bounds, where the form has a way to."""

    async def pump(self) -> None:
        """Read until the connection ends, is silent for too long, or `stop` was called; `ending` then says which.

        aiohttp throws away what it holds when a connection breaks while nobody reads. So this reads whenever there is something,
        and pauses only when the receiver is a whole inbox behind; the time limit stands still then.
        """
        now = asyncio.get_running_loop().time
        watched = -math.inf
        try:
            async with asyncio.timeout(None) as self._limit:
                while not self._stopped:
                    if self._size >= INBOX:
                        await self._wait_for_room(self._limit)
                        watched = -math.inf
                        continue
                    if now() - watched >= _SLACK:
                        watched = now()
                        self._limit.reschedule(watched + self._subscription.idle_timeout + _SLACK)
                    if not await self._take():
                        return
        except TimeoutError:
            if not self._stopped:
                self._end(Ending("silent", f"nothing came for {self._subscription.idle_timeout:g} seconds"))
                return
        finally:
            self._limit = None
        await self._drain()

    async def _wait_for_room(self, limit: asyncio.Timeout) -> None:
        limit.reschedule(None)
        while self._size >= INBOX and not self._stopped:
            self._room.clear()
            await self._room.wait()
            self.held_until = self._clock.monotonic()

    async def _take(self) -> bool:
        """Move what is there into the inbox; False at the end."""
        try:
            found = await self._read()
        except (*FAULTS, RuntimeError) as fault:
            found = Ending("broken", describe(fault))
        if isinstance(found, Ending):
            self._end(found)
            return False
        self.last_byte = self._clock.now()
        if found:
            self._put(found)
        return True

    def _put(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        self._news.set()

    async def _drain(self) -> None:
        """Read what the kernel already holds: until nothing comes for a moment, within bounds."""
        loop = asyncio.get_running_loop()
        end, most = loop.time() + _DRAIN_TIME, self._size + _DRAIN_BYTES
        try:
            while loop.time() < end and self._size < most:
                async with asyncio.timeout(_DRAIN_QUIET):
                    if not await self._take():
                        return
        except TimeoutError:
            pass
        self._end(Ending("stopped"))
        await self._leave()

    def _end(self, ending: Ending) -> None:
        self.ending = ending
        self.ended_at = self._clock.now()
        self._news.set()

    async def chunks(self) -> list[bytes]:
        """Return what has come since the last call, at least one chunk; [] at the end."""
        while not self._chunks and self.ending is None:
            self._news.clear()
            await self._news.wait()
        chunks, self._chunks, self._size = self._chunks, [], 0
        self._room.set()
        return chunks

    def stop(self) -> None:
        """Make `open` fail, or `pump` read what the kernel holds and end."""
        self._stopped = True
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

    def close(self) -> None:
        """Close the connection. Safe to call twice and without `open`."""
        raise NotImplementedError
