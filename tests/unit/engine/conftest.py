"""One route with its lanes on a real memory spool and real dead letters, and sinks that end their writes as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.batch import Batch, LogId
from pipeline.core.config import BatchConfig, FilterConfig, RetryConfig, SinkConfig
from pipeline.core.errors import Partial
from pipeline.core.event import Event
from pipeline.core.filter import Filter
from pipeline.core.items import Items
from pipeline.core.sink import Sink
from pipeline.core.types import RecordPath
from pipeline.engine.committer import Committer
from pipeline.engine.delivery import SinkRunner
from pipeline.engine.lane import Lane
from pipeline.engine.letters import DeadLetters
from pipeline.engine.route import Route
from pipeline.engine.status import Board
from pipeline.kit import log as logs
from pipeline.kit.clock import SystemClock
from pipeline.spool.memory import MemorySpool, MemorySpoolConfig
from pipeline.testing import context

TAP = LogId("tap")


class Ask:
    """A write that waits for its verdict."""

    def __init__(self, items: Items) -> None:
        self.items = items
        self.payloads = [item.payload for item in items]
        self.verdict: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def store(self) -> None:
        self.verdict.set_result(None)

    def fail(self, error: BaseException) -> None:
        self.verdict.set_exception(error)


class Asking(Sink[SinkConfig]):
    """Asks the test about each write, or stores everything at once; remembers what is stored."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.stored: list[bytes] = []
        self.asks: asyncio.Queue[Ask] | None = None
        self.writes: list[list[bytes]] = []
        self.changed = asyncio.Condition()
        self.wanted: Sequence[RecordPath] = ()

    @property
    def paths(self) -> Sequence[RecordPath]:
        return self.wanted

    async def write(self, items: Items) -> Any:
        payloads = [item.payload for item in items]
        self.writes.append(payloads)
        failed: Any = ()
        try:
            if self.asks is not None:
                ask = Ask(items)
                self.asks.put_nowait(ask)
                return await ask.verdict
        except Partial as partial:
            failed = partial.failures
            raise
        except BaseException:
            failed = range(len(payloads))
            raise
        finally:
            async with self.changed:
                self.stored += [payload for index, payload in enumerate(payloads) if index not in failed]
                self.changed.notify_all()

    async def until(self, count: int) -> list[bytes]:
        """All that is stored, once there are so many."""
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: len(self.stored) >= count)
        return self.stored


class Marking(Asking):
    has_marks = True


class Doing(Filter[FilterConfig]):
    """Applies a function of the test."""

    work: Callable[[Sequence[Event]], Sequence[Event]]

    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        return self.work(events)


def doing(work: Callable[[Sequence[Event]], Any], name: str = "all.0") -> Doing:
    stage = Doing(FilterConfig(type="doing"), context(name))
    stage.work = work  # type: ignore[method-assign]
    return stage


class Bench:
    """Parts of one route, connected as `build` does; its lanes run until the test ends."""

    def __init__(
        self,
        folder: Path,
        *,
        filters: Sequence[Filter[Any]] = (),
        sinks: int = 1,
        kind: type[Asking] = Asking,
        ask: bool = False,
        batch: dict[str, Any] | None = None,
        retry: dict[str, Any] | None = None,
        in_flight: int = 1,
        timeout: float = 5,
        on_full: Any = "block",
        logs_read: Sequence[LogId] = (TAP,),
        size: int = 64 << 20,
        letters: int = 1 << 20,
        paths: Sequence[RecordPath] = (),
    ) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.board = Board(self.clock)
        self.spool = MemorySpool(MemorySpoolConfig(max_size=size))
        self.letters = DeadLetters(folder, letters, self.clock.now)
        self.committer = Committer(self.spool, logs.get(component="spool"))
        self.errors: list[tuple[str, str]] = []
        self.logs = list(logs_read)
        self.sinks: list[Asking] = []
        config = SinkConfig(
            type="asking", batch=BatchConfig(**{"max_wait": 0, **(batch or {})}), in_flight=in_flight, timeout=timeout,
            retry=RetryConfig(**{"base": 0.01, "cap": 0.02, **(retry or {})}),
        )  # fmt: skip
        self.route = Route(
            "all",
            filters,
            paths,
            logs.get(component="all"),
            lambda component, code: self.errors.append((component, code)),
            lanes=sinks,
        )
        self.lanes = []
        for number in range(sinks):
            name = f"sink{number}"
            log = logs.get(component=name)
            status = self.board.add(name, "sink", "", log)
            sink = kind(config, context(name))
            sink.wanted = paths
            sink.asks = asyncio.Queue() if ask else None
            self.sinks.append(sink)
            self.lanes.append(
                Lane(
                    self.route,
                    SinkRunner(sink, config, status, log),
                    self.logs,
                    on_full,
                    self.spool,
                    self.committer,
                    self.letters.lane("all", name),
                    self.clock,
                    log,
                    lambda _batch, _payload: None,
                )
            )
        self.lane, self.sink = self.lanes[0], self.sinks[0]
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.spool.open(self.logs)
        self.spool.attach(self.lanes)
        for lane in self.lanes:
            await lane.runner.open({})
            self.tasks.append(asyncio.ensure_future(lane.run()))

    async def send(self, *records: bytes, log: LogId = TAP) -> Batch:
        batch = Batch(records, log, "event", 1_700_000_000.0)
        await self.spool.append(batch)
        return batch

    async def ask(self, sink: int = 0) -> Ask:
        """The next write that waits for its verdict."""
        asks = self.sinks[sink].asks
        assert asks is not None
        return await asyncio.wait_for(asks.get(), 5)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for what has no event of its own; the books must be right all the time."""
        async with asyncio.timeout(5):
            while not condition():
                self.check()
                await asyncio.sleep(0.001)
        self.check()

    def check(self) -> None:
        """Conservation, per lane and log."""
        for lane in self.lanes:
            for log, tally in lane.tallies.items():
                came = self.spool.stats()[log].received + tally.carried + tally.derived
                went = tally.delivered + tally.filtered + tally.rejected + sum(tally.discarded.values())
                assert came == went + lane.waiting(log)
                assert min(tally.delivered, tally.filtered, tally.rejected, tally.in_hand, lane.waiting(log)) >= 0

    async def finish(self) -> None:
        """Let the lanes write what is left and end."""
        for lane in self.lanes:
            lane.drain()
        await asyncio.wait_for(asyncio.gather(*self.tasks), 5)
        self.check()
        assert sum(lane.waiting(log) for lane in self.lanes for log in self.logs) == 0

    def buried(self) -> list[dict[str, Any]]:
        """All letters of the lanes."""
        return [
            json.loads(line) for path in sorted(self.folder.rglob("*.jsonl")) for line in path.read_text().splitlines()
        ]

    def position(self, log: LogId = TAP) -> int:
        return self.spool._logs[log].positions[self.lane.id]

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.letters.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Bench]]]:
    """Makes a bench whose lanes run."""
    made: list[Bench] = []

    async def make(**keys: Any) -> Bench:
        made.append(Bench(tmp_path / f"letters{len(made)}", **keys))
        await made[-1].start()
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def stage() -> Callable[..., Doing]:
    """Makes a filter of a function."""
    return doing


@pytest.fixture
def marking() -> type[Asking]:
    """A sink class with marks."""
    return Marking
