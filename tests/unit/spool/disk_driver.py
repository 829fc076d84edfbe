"""Drives a disk spool in tests: lanes that are moved by hand, and a look at the files."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.batch import Batch, LogId
from pipeline.core.spool import OnFull
from pipeline.spool.disk import DiskSpool, DiskSpoolConfig
from pipeline.spool.inspection import survey, verify

A, B = LogId("a"), LogId("b", "acme")
MIB = 1 << 20


class FakeLane:
    """Implements `pipeline.core.spool.LanePort`; a test moves its cursor and position."""

    def __init__(self, name: str = "r/s", logs: Sequence[LogId] = (A,), on_full: OnFull = "block") -> None:
        self.id = name
        self.logs = list(logs)
        self.on_full: OnFull = on_full
        self.cursors = dict.fromkeys(logs, 0)
        self.skipped: list[tuple[LogId, int, int]] = []
        self.woken = asyncio.Event()
        self.hurried = 0

    def wake(self) -> None:
        self.woken.set()

    def hurry(self) -> None:
        self.hurried += 1

    def cursor(self, log: LogId) -> int:
        return self.cursors[log]

    def skip(self, log: LogId, end: int) -> None:
        self.skipped.append((log, self.cursors[log], end))
        self.cursors[log] = end

    async def take(self, spool: DiskSpool, log: LogId = A) -> Batch | None:
        """Read on, as a lane of the engine does."""
        batch = await spool.read(log, self.cursors[log])
        if batch is not None:
            self.cursors[log] = max(self.cursors[log], batch.end)
        return batch

    async def drain(self, spool: DiskSpool, log: LogId = A) -> list[tuple[int, bytes]]:
        """All that is left, each record with its number."""
        found: list[tuple[int, bytes]] = []
        while True:
            position = self.cursors[log]
            batch = await self.take(spool, log)
            if batch is None:
                return found
            found += [(number, raw) for number, raw in enumerate(batch.records, batch.first) if number >= position]

    async def settle(self, spool: DiskSpool, log: LogId = A) -> None:
        """Commit that all it read is done."""
        await spool.commit({(self.id, log): self.cursors[log]}, {})


def records(count: int, start: int = 0, size: int = 40) -> list[bytes]:
    """Records that tell their number."""
    return [b'{"n":%d,"x":"%s"}' % (number, b"x" * size) for number in range(start, start + count)]


def batch(count: int, start: int = 0, size: int = 40, log: LogId = A) -> Batch:
    return Batch(records(count, start, size), log, "event", 1700000000.25)


def config(path: Path, max_size: int = 4 * MIB, sync: str = "full") -> DiskSpoolConfig:
    return DiskSpoolConfig.model_validate({"type": "disk", "path": path, "max_size": max_size, "sync": sync})


@asynccontextmanager
async def spooling(
    path: Path, *lanes: FakeLane, logs: Sequence[LogId] = (A,), max_size: int = 4 * MIB, sync: str = "full"
) -> AsyncIterator[DiskSpool]:
    """An open spool with lanes, each at its restored position or at the oldest record."""
    spool = DiskSpool(config(path, max_size, sync))
    try:
        restored = await spool.open(logs)
        for lane in lanes:
            for log in lane.logs:
                lane.cursors[log] = restored.positions.get((lane.id, log), spool.oldest(log))
        spool.attach(lanes)
        yield spool
    finally:
        await spool.close()


async def fill(spool: DiskSpool, log: LogId = A, *, count: int = 10_000, size: int = 1000, each: int = 16) -> int:
    """Append batches until one has to wait, at most ``count``; returns how many records were accepted."""
    start = spool.stats()[log].end
    for number in range(count):
        try:
            async with asyncio.timeout(0.3):
                await spool.append(batch(each, start + number * each, size, log))
        except TimeoutError:
            break
    return spool.stats()[log].end - start


def total_size(path: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def segments(path: Path, log: str = "a") -> list[Path]:
    return sorted((path / "logs" / log).glob("*.seg"))


def findings(path: Path) -> list[tuple[str, int, bool]]:
    """What `verify` says of all logs."""
    return [(one.text, one.lost, one.harmless) for log in survey(path).logs.values() for one in verify(log)]


@dataclass
class Promises:
    """What `disk_victim.py` was promised until its end."""

    accepted: int = 0
    """Where the log ended at the latest append that returned."""
    committing: int = 0
    committed: int = 0
    skipped: set[int] = field(default_factory=set)

    def hear(self, lines: Iterable[str]) -> None:
        for line in lines:
            word, *numbers = line.split()
            if word == "skipped":
                self.skipped.update(range(int(numbers[0]), int(numbers[1])))
            else:
                setattr(self, word, int(numbers[0]))

    async def check(self, path: Path, *, durable: bool = True) -> None:
        """The spool is whole, no position is ahead of what was committed, all that was accepted (if ``durable``) is there."""
        assert [text for text, _, harmless in findings(path) if not harmless] == []
        spool = DiskSpool(config(path, 1 << 20))
        restored = await spool.open([A])
        await spool.close()
        position = restored.positions.get(("r/s", A), 0)
        assert self.committed <= position <= max(self.committed, self.committing)
        assert restored.marks.get("s", {"at": 0})["at"] == position

        lane = FakeLane()
        async with spooling(path, lane, max_size=1 << 20) as spool:
            end = spool.stats()[A].end
            found = await lane.drain(spool)
        assert position <= end <= self.accepted + 8
        if durable:
            assert end >= self.accepted
        missing = set(range(position, end)) - {number for number, _ in found}
        assert missing <= self.skipped
        assert found == [
            (number, raw)
            for number, raw in enumerate(records(end - position, position, 2000), position)
            if number not in missing
        ]
        assert findings(path) == []
