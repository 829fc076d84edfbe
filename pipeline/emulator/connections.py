"""One stream connection, whoever dialled: it takes from a feed, notes in the ledger, and writes to a wire."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Protocol

import orjson
from pydantic import BaseModel, ConfigDict

from pipeline.emulator.ledger import Entry
from pipeline.emulator.live import Feed
from pipeline.emulator.shape import Framer, Shape

Close = Literal["clean", "abort", "midline"]


class Wire(Protocol):
    """The transport of one connection."""

    async def write(self, data: bytes) -> None:
        """Hand bytes over, waiting while the peer is slow; raises `ConnectionError` when it has left."""
        ...

    async def end(self, settle: Callable[[bool], None]) -> None:
        """End orderly; `settle` is told whether the peer then closed orderly too, at once or later."""
        ...

    def cut(self) -> None:
        """Close below the protocol, after what was written."""
        ...

    def abort(self) -> None:
        """Reset: what was not sent yet is lost."""
        ...


class Scope(BaseModel):
    """Which connections are meant; what is not given does not matter."""

    model_config = ConfigDict(extra="forbid")

    oid: str | None = None
    """Organization."""
    via: Literal["spout", "ws", "firehose"] | None = None
    """How the records travel."""
    stream: str | None = None
    """Stream, as event or detect."""
    name: str | None = None
    """Name of the output."""

    def matches(self, *, oid: str, via: str, stream: str, name: str) -> bool:
        mine = (self.oid, self.via, self.stream, self.name)
        return all(want is None or want == have for want, have in zip(mine, (oid, via, stream, name), strict=True))


class Shapes:
    """The shapes that are in force; the newest that matches a connection counts."""

    def __init__(self) -> None:
        self._rules: list[tuple[Scope, Shape]] = []
        self._default = Shape()

    def set(self, scope: Scope, shape: Shape) -> None:
        self._rules = [(scope, shape), *(rule for rule in self._rules if rule[0] != scope)]

    def clear(self) -> None:
        self._rules.clear()

    def of(self, connection: Connection) -> Shape:
        for scope, shape in self._rules:
            if connection.within(scope):
                return shape
        return self._default


class Connection:
    """Hands over records until it is told to end or the peer leaves."""

    def __init__(
        self,
        *,
        via: Literal["spout", "ws", "firehose"],
        oid: str,
        stream: str,
        name: str,
        feed: Feed,
        entry: Entry,
        framer: Framer,
        shapes: Shapes,
        wire: Wire,
        keepalive: float | None,
    ) -> None:
        self.via = via
        self.oid = oid
        self.stream = stream
        self.name = name
        self.feed = feed
        self.sent = 0
        self._entry = entry
        self._framer = framer
        self._shapes = shapes
        self._wire = wire
        self._keepalive = keepalive
        """Seconds; None for a transport that carries records only, no traces."""
        self._sayings: deque[bytes] = deque()
        self._close: Close | None = None
        self._gone = False
        self._silent_until = 0.0

    def within(self, scope: Scope) -> bool:
        return scope.matches(oid=self.oid, via=self.via, stream=self.stream, name=self.name)

    @property
    def closing(self) -> bool:
        """It was told to end."""
        return self._close is not None

    def leave(self) -> None:
        """The peer has closed."""
        self._gone = True
        self.feed.wake.set()

    def close(self, how: Close) -> None:
        self._close = how
        self._silent_until = 0.0
        if how == "abort":
            self._gone = True
            self._wire.abort()
        self.feed.wake.set()

    def say(self, line: bytes) -> None:
        """Send a line that is no record."""
        self._sayings.append(line)
        self.feed.wake.set()

    def stall(self, seconds: float) -> None:
        """Send nothing at all for so long, keep-alives included."""
        self._silent_until = time.monotonic() + seconds
        self.feed.wake.set()

    async def serve(self) -> None:
        """Work until the end; never raises for what the peer does."""
        clean = False
        try:
            clean = await self._pump()
            if clean:
                await self._wire.end(lambda orderly: self._entry.end(clean=orderly))
        except OSError:
            clean = False
        finally:
            if not clean:
                self._entry.end(clean=False)

    async def _pump(self) -> bool:
        heard = time.monotonic()
        while not self._gone:
            self.feed.wake.clear()
            now = time.monotonic()
            if self._close == "midline":
                await self._break_off()
                return False
            if self._close is not None:
                return True
            if now < self._silent_until:
                await self._rest(self._silent_until - now)
                continue
            if await self._hand_over():
                heard = time.monotonic()
            elif self._keepalive is not None and now - heard >= self._keepalive:
                await self._wire.write(b'{"__trace":"keepalive"}\n')
                heard = now
            elif self.feed.idle:
                await self._rest(None if self._keepalive is None else heard + self._keepalive - now)
                continue
            # a socket that takes everything never waits, and others want to run
            await asyncio.sleep(0)
        return False

    async def _rest(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.feed.wake.wait()

    async def _hand_over(self) -> bool:
        """Send what there is; says whether it was anything."""
        traced = False
        while self._sayings:
            await self._wire.write(self._sayings.popleft() + b"\n")
            traced = True
        shape = self._shapes.of(self)
        lines = self._framer.arrange(self.feed.take(), shape)
        if self.feed.dropped and self._keepalive is not None:
            trace = {"__trace": "dropped", "n": self.feed.dropped}
            self.feed.dropped = 0
            await self._wire.write(orjson.dumps(trace) + b"\n")
            traced = True
        if not lines:
            return traced
        self._entry.write(lines)
        self.sent += len(lines)
        for piece in self._framer.pieces(lines, shape):
            await self._wire.write(piece)
            if shape.pause:
                await asyncio.sleep(shape.pause)
        return True

    async def _break_off(self) -> None:
        """Close in the middle of a record, which therefore is not in the ledger."""
        line = next(iter(self.feed.take()), b'{"routing":{"event_type":"CUT_OFF"},"event":{}}')
        await self._wire.write(line[: len(line) // 2])
        self._wire.cut()
