"""Holds the stream of one investigation open, and hands on what comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from pipeline.core.errors import (
    AuthenticationError,
    PermanentError,
    PermissionDeniedError,
    PipelineError,
    TemporaryError,
    UnavailableError,
    UsageError,
)
from pipeline.kit.backoff import Backoff
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.feed import Feed, Subscription
from pipeline.limacharlie.stream import SpoutParser
from pipeline.limacharlie.token import Token

MAX_RECORD = 16 << 20
"""The largest answer."""
READY_TIMEOUT = 20.0
"""Seconds that the stream may take to come about: two tries."""
_HIDDEN = "__"
"""LimaCharlie keeps the answers of investigations that begin so out of every stream."""

Hear = Callable[[bytes], Awaitable[None]]


class Listener:
    """Opens the event stream of an investigation, and again when it is lost, for as long as it is entered (``async with``).

    ``hear`` gets each record; while it waits nothing more is read. Raises `UsageError` for an investigation that no stream shows.
    """

    def __init__(self, account: LimaCharlie, inv_id: str, hear: Hear, *, ended: Callable[[], None]) -> None:
        """``ended`` is called when the stream is refused for good; `check` then raises why."""
        if inv_id.startswith(_HIDDEN):
            raise UsageError(f"No stream shows the answers of an investigation that begins with {_HIDDEN}.")
        self.live = asyncio.Event()
        """There is a stream at the moment, or there will be none: see `check`."""
        self.gaps = 0
        """How often something may have been missed."""
        self._account = account
        # A stream knows an investigation by the part before the slash.
        self._subscription = Subscription("event", options={"inv_id": inv_id.partition("/")[0]})
        self._hear = hear
        self._tell = ended
        self._trouble: BaseException | None = None
        """Why there is no stream at the moment."""
        self._failed = False
        self._task: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Wait until answers would be heard. Raises what the stream is refused with, and `UnavailableError` after a while."""
        if self._task is None:
            raise UsageError("Nobody listens to the answers.", fix="Use it as `async with`.")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_TIMEOUT):
                await self.live.wait()
        if not self.live.is_set() or self._failed:
            raise self._trouble or UnavailableError("The stream of answers does not come about.")

    def check(self) -> None:
        """Raise what the stream was refused with, if it was for good."""
        if self._failed and self._trouble is not None:
            raise self._trouble

    async def _run(self) -> None:
        """Hold a stream until cancelled; raises when it is refused for good."""
        backoff = Backoff(0.2, 10.0)
        refusal: tuple[Token, str] | None = None
        while True:
            feed = self._account.subscribe(self._subscription, refusal=refusal)
            try:
                error = await self._attend(feed)
            finally:
                feed.close()
            self._trouble = error
            if self.live.is_set():
                self.live.clear()
                self.gaps += 1
                refusal = None
                backoff.reset()
            if isinstance(error, AuthenticationError | PermissionDeniedError) and feed.token and refusal is None:
                # The token may be old: another one is tried, once.
                refusal = feed.token, error.what
            elif isinstance(error, PermanentError):
                raise error
            after = error.after if isinstance(error, TemporaryError) else None
            await asyncio.sleep(backoff.next() + (after or 0.0))

    async def _attend(self, feed: Feed) -> PipelineError:
        """Listen to one stream; return why it is over."""
        async with asyncio.TaskGroup() as group:
            pump: asyncio.Task[None] | None = None
            try:
                await feed.open()
                pump = group.create_task(feed.pump())
                return await self._receive(feed)
            except PipelineError as failure:
                return failure
            finally:
                if pump is not None:
                    pump.cancel()

    async def _receive(self, feed: Feed) -> PipelineError:
        parser = SpoutParser(MAX_RECORD, scrub=self._account.transport.scrub)
        confirmed_by = asyncio.get_running_loop().time() + self._subscription.connect_timeout
        while parser.error is None:
            try:
                async with asyncio.timeout_at(None if parser.live else confirmed_by):
                    chunks = await feed.chunks()
            except TimeoutError:
                return UnavailableError("The stream of answers was not confirmed in time.")
            for chunk in chunks:
                for record in parser.feed(chunk):
                    await self._hear(record)
            if not chunks:
                return UnavailableError(f"The stream of answers is over ({feed.ending.reason if feed.ending else ''}).")
            self.gaps += parser.dropped + len(parser.oversize)
            parser.dropped = 0
            parser.oversize.clear()
            if parser.live:
                self.live.set()
        return parser.error

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._trouble, self._failed = task.exception(), True
            self.live.set()
            self._tell()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
