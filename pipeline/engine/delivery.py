"""Delivery: opens sinks and keeps trying, gives the lanes of a sink their turns, commits positions and marks together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.core.batch import LogId
from pipeline.core.config import SinkConfig
from pipeline.core.errors import Partial, PipelineError, Rejected, RetryLater, TemporaryError, UnavailableError
from pipeline.core.items import Items
from pipeline.core.sink import Sink
from pipeline.core.spool import Facts, Key, Spool
from pipeline.engine.status import Status
from pipeline.kit.backoff import Backoff
from pipeline.kit.log import Logger

SYNC_INTERVAL = 0.1
"""Seconds between commits of positions and marks, and between `Sink.sync` calls."""
FINAL_WAIT = 10.0
"""Seconds that the end of the process waits for one sink: for a write that cannot be broken off, and for its `close`."""
LONGEST_AFTER = 300.0
"""Seconds that a sink may ask us to wait at most; beyond that we look again."""


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
        self.opened = asyncio.Event()
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
                self.opened.set()
                self.worked()
                return

    async def write(self, items: Items) -> Mapping[str, Any] | None:
        """Write when it is this caller's turn. Raises what the sink raises; anything unknown as `RetryLater`."""
        await self.opened.wait()
        async with self._turns:
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
            async with asyncio.timeout(self.config.timeout):
                return await self.sink.write(items)
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


@dataclass(slots=True)
class _Noted:
    """What a sink's lanes are past, and its marks, since the last commit."""

    positions: dict[tuple[str, LogId], int] = field(default_factory=dict)
    marks: dict[str, Any] = field(default_factory=dict)


class Keeper(Protocol):
    """Keeps something that is committed together with positions and marks."""

    def take(self) -> Facts:
        """Hand over what changed since the last time."""
        ...

    def give_back(self, facts: Facts) -> None:
        """What was taken last could not be committed: hand it over again next time."""
        ...


class Committer:
    """Commits positions, marks and the facts of keepers in one step, after the sinks have synced.

    A sink that cannot sync holds up its own positions only.
    """

    def __init__(self, spool: Spool, log: Logger) -> None:
        self.keepers: Sequence[Keeper] = ()
        """Whose facts take part in each commit. What they know is never behind the positions."""
        self._sinks: Sequence[SinkRunner] = ()
        self._spool = spool
        self._log = log
        self._syncing: frozenset[str] = frozenset()
        """Sinks with a `sync` of their own: what they stored counts only after it."""
        self._noted: dict[str, _Noted] = {}
        self._under_way: dict[str, _Noted] = {}
        """What the commit that runs now will write."""
        self._commits = asyncio.Lock()
        self._writes = asyncio.Lock()

    @property
    def sinks(self) -> Sequence[SinkRunner]:
        return self._sinks

    @sinks.setter
    def sinks(self, sinks: Sequence[SinkRunner]) -> None:
        self._sinks = sinks
        self._syncing = frozenset(runner.id for runner in sinks if type(runner.sink).sync is not Sink.sync)

    async def note(self, positions: Mapping[tuple[str, LogId], int], sink: str, mark: Mapping[str, Any] | None) -> None:
        """Take part in the next commit; where a commit costs nothing and the sink has nothing to sync, it is made at once."""
        if self._spool.commit_interval == 0 and sink not in self._syncing:
            await self._spool.commit(positions, {sink: mark} if mark else {})
            return
        noted = self._noted.setdefault(sink, _Noted())
        noted.positions.update(positions)
        noted.marks.update(mark or {})

    async def commit_mark(self, sink: str, mark: Mapping[str, Any]) -> None:
        """Commit one mark now; it stands for what was noted for the same keys before. Does not wait for a `sync`."""
        async with self._writes:
            await self._spool.commit({}, {sink: mark})
            for noted in (self._under_way, self._noted):
                if sink in noted:
                    for key in mark:
                        noted[sink].marks.pop(key, None)

    async def run(self) -> None:
        """Commit in intervals, until cancelled."""
        while True:
            await asyncio.sleep(self._spool.commit_interval or SYNC_INTERVAL)
            await self.commit()

    async def commit(self) -> None:
        """Sync the sinks that were written to, then commit what was noted before."""
        async with self._commits:
            noted = self._under_way = self._noted
            self._noted = {}
            try:
                await asyncio.gather(*(self._sync(runner, noted) for runner in self._sinks))
                await self._commit(noted)
            finally:  # also when the commit was broken off: the next one takes what it left
                for sink in list(noted):
                    self._put_back(sink, noted)

    async def _commit(self, noted: dict[str, _Noted]) -> None:
        async with self._writes:
            positions = {key: position for one in noted.values() for key, position in one.positions.items()}
            marks = {sink: one.marks for sink, one in noted.items() if one.marks}
            taken = [(keeper, keeper.take()) for keeper in self.keepers]
            try:
                facts = _merged(facts for _, facts in taken)
                if positions or marks or facts:
                    await self._spool.commit(positions, marks, facts)
                noted.clear()
                taken.clear()
            except Exception as error:
                self._log.error(
                    "Positions could not be committed; records may come twice after a crash.", exc_info=error
                )
            finally:  # also when it was broken off: to commit a fact twice does no harm
                for keeper, facts in taken:
                    keeper.give_back(facts)

    async def _sync(self, runner: SinkRunner, noted: dict[str, _Noted]) -> None:
        try:
            await runner.sync()
        except Exception as error:
            runner.failed(error, "The sink could not make its writes durable; it is tried again.")
            self._put_back(runner.id, noted)

    def _put_back(self, sink: str, noted: dict[str, _Noted]) -> None:
        old, new = noted.pop(sink, _Noted()), self._noted.get(sink, _Noted())
        self._noted[sink] = _Noted(old.positions | new.positions, old.marks | new.marks)


def _merged(given: Iterable[Facts]) -> Facts:
    merged: dict[str, dict[Key, str | int | bytes | None]] = {}
    for facts in given:
        for table, rows in facts.items():
            merged.setdefault(table, {}).update(rows)
    return merged
