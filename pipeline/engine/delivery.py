"""Delivery: opens sinks and keeps trying, gives the lanes of a sink their turns, and tells how it goes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

from pipeline.core.config import SinkConfig
from pipeline.core.errors import Partial, PipelineError, Rejected, RetryLater, TemporaryError, UnavailableError
from pipeline.core.items import Items
from pipeline.core.sink import Sink
from pipeline.engine.status import Status
from pipeline.kit.backoff import Backoff
from pipeline.kit.log import Logger

FINAL_WAIT = 10.0
"""Seconds that the end of the process waits for one sink: for a write that cannot be broken off, and for its `close`."""
FAREWELL = 2.0
"""Seconds that a sink that does not work has for the writes in its hands once the lanes leave."""
LONGEST_AFTER = 300.0
"""Seconds that a sink may ask us to wait at most; beyond that we look again."""


class Left(Exception):  # noqa: N818 - no error: the records stay in the spool
    """The lanes are told to leave, so what was waited for is not begun any more."""


class _Unexpected(RetryLater):
    """An exception that a sink did not mean to raise."""

    code = "internal"


class SinkRunner:
    """One sink with its open state and its turns."""

    def __init__(self, sink: Sink[Any], config: SinkConfig, status: Status, log: Logger) -> None:
        self.sink = sink
        self.config = config
        self.status = status
        self.log = log
        self.id = sink.id
        self.sent_records = 0
        self.sent_bytes = 0
        self.dirty = False
        """Whether something was written since the last `sync`."""
        self._leaving = asyncio.Event()
        self._may_begin = asyncio.Event()
        """Set when the sink is open, or when nobody is to wait for that any more."""
        self._limits: set[asyncio.Timeout] = set()
        """Of the writes that are in the sink's hands and may be broken off."""
        self._turns = asyncio.Semaphore(1 if sink.has_marks else config.in_flight)
        self._writing = 0
        self._since = 0.0
        self._busy = 0.0
        self._failing = False

    @property
    def busy(self) -> float:
        """Seconds with at least one write under way."""
        return self._busy + (time.monotonic() - self._since if self._writing else 0.0)

    async def open(self, marks: Mapping[str, Any]) -> None:
        """Open the sink, trying until it works."""
        backoff = Backoff(self.config.retry.base, self.config.retry.cap)
        while True:
            try:
                async with asyncio.timeout(self.config.timeout):
                    await self.sink.open(marks)
            except Exception as error:
                self.failed(error, "The sink cannot be opened; it is tried again.")
                await asyncio.sleep(self.wait(error, backoff))
            else:
                self._may_begin.set()
                self.worked()
                return

    async def write(self, items: Items) -> Mapping[str, Any] | None:
        """Write when it is this caller's turn.

        Raises what the sink raises, anything unknown as `RetryLater`, and `Left` when the lanes leave before the sink has it.
        """
        await self._may_begin.wait()
        async with self._turns:
            if self._leaving.is_set():
                raise Left
            if self._writing == 0:
                self._since = time.monotonic()
            self._writing += 1
            try:
                mark = await self._write(items)
            except (RetryLater, Rejected, Partial):
                raise
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # It is not us who is cancelled, but something that the sink waited for.
                raise _Unexpected("what the sink waited for was cancelled", where=self.id) from error
            except TimeoutError as error:
                if self._leaving.is_set():
                    raise Left from error
                raise RetryLater(f"a write took longer than {self.config.timeout:g} s", where=self.id) from error
            except PipelineError as error:
                after = error.after if isinstance(error, TemporaryError) else None
                raise RetryLater(error.what, where=error.where or self.id, fix=error.fix, after=after) from error
            except Exception as error:
                raise _Unexpected(f"{type(error).__name__}: {error}", where=self.id) from error
            finally:
                self._writing -= 1
                if self._writing == 0:
                    self._busy += time.monotonic() - self._since
        self.dirty = True
        return mark

    async def _write(self, items: Items) -> Mapping[str, Any] | None:
        if not self.sink.has_marks:
            async with asyncio.timeout(self.config.timeout) as limit:
                self._limits.add(limit)
                try:
                    return await self.sink.write(items)
                finally:
                    self._limits.discard(limit)
        # What a late write of a sink with marks did can only be known by waiting for it, even when we are being cancelled.
        task = asyncio.ensure_future(self.sink.write(items))
        try:
            while not (await asyncio.wait([task], timeout=self.config.timeout))[0]:
                late = UnavailableError(f"a write takes longer than {self.config.timeout:g} s", where=self.id)
                self.failed(late, "A write is late; it cannot be broken off, so it is waited for.")
        except asyncio.CancelledError:
            await asyncio.wait([task], timeout=FINAL_WAIT)
            if not task.done() or task.cancelled() or task.exception() is not None:
                task.cancel()
                raise
            # It is stored: the caller counts it, and has nothing left to wait for.
        return task.result()

    def leave(self) -> None:
        """Begin no write any more, and wait for none to be tried again. A sink that works finishes what it has in hand."""
        self._leaving.set()
        self._may_begin.set()
        self.hurry()

    def hurry(self) -> None:
        """Where the lanes leave and the sink does not work, break off what it has in hand before long."""
        if self._leaving.is_set() and self.status.current == "degraded":
            end = asyncio.get_running_loop().time() + FAREWELL
            for limit in [limit for limit in self._limits if not limit.expired()]:
                limit.reschedule(min(end, limit.when() or end))

    async def pause(self, seconds: float) -> None:
        """Wait. Raises `Left` as soon as the lanes leave."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._leaving.wait()
                raise Left

    def wait(self, error: BaseException, backoff: Backoff) -> float:
        """Seconds until the next try: what the other side asked for within reason, else by back-off."""
        if isinstance(error, TemporaryError) and error.after is not None:
            return min(max(error.after, backoff.base * 0.1), LONGEST_AFTER)
        return backoff.next()

    def failed(self, error: BaseException, sentence: str) -> None:
        """Tell that the sink does not work now; a pipe whose reader has gone is no fault and ends the lane."""
        if self.status.code == "closed_pipe":
            return
        known = error.__cause__ if isinstance(error.__cause__, PipelineError) else error
        code = known.code if isinstance(known, PipelineError) else "internal"
        text = str(error) or type(error).__name__
        self.status.error(code)
        self.status.state("degraded", text, code)
        unexpected = isinstance(error, _Unexpected) or not isinstance(error, PipelineError | TimeoutError)
        self.log.warning(sentence, error=text, exc_info=error if unexpected and not self._failing else None)
        self._failing = True

    def worked(self) -> None:
        """Tell that the sink works."""
        if self._failing:
            self.log.info("The sink works again.")
            self._failing = False
        self.status.state("ok")

    async def sync(self) -> None:
        """Make durable what was written since the last time. Raises what the sink raises, and is to be called again then."""
        if not self.dirty:
            return
        self.dirty = False
        try:
            async with asyncio.timeout(self.config.timeout):
                await self.sink.sync()
        except BaseException:
            self.dirty = True
            raise

    async def close(self) -> None:
        try:
            async with asyncio.timeout(FINAL_WAIT):
                await self.sink.close()
        except Exception as error:
            self.log.warning("The sink did not close cleanly.", error=str(error) or type(error).__name__)
