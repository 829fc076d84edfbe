"""The disk spool against a plain model in memory, through any sequence of what a pipeline and a crash can do."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from pipeline.core.batch import Batch, LogId
from pipeline.kit import log as logs
from pipeline.spool import disk, writing
from pipeline.spool.disk import DiskSpool, DiskSpoolConfig
from pipeline.spool.inspection import survey, verify

LOGS = [LogId("a"), LogId("b", "acme")]
MAX_SIZE = 1 << 20
a_log = strategies.sampled_from(LOGS)
a_lane = strategies.integers(0, 1)


class ModelLane:
    """A lane, and what the model knows of it."""

    def __init__(self, name: str, on_full: str) -> None:
        self.id = name
        self.logs = LOGS
        self.on_full = on_full
        self.cursors = dict.fromkeys(LOGS, 0)
        self.noted = dict.fromkeys(LOGS, 0)
        """What it is past."""
        self.committed = dict.fromkeys(LOGS, 0)
        self.skipped: dict[LogId, set[int]] = {log: set() for log in LOGS}

    def wake(self) -> None: ...

    def hurry(self) -> None: ...

    def cursor(self, log: LogId) -> int:
        return self.cursors[log]

    def skip(self, log: LogId, end: int) -> None:
        assert self.on_full == "drop_oldest"
        assert end > self.cursors[log]
        self.skipped[log].update(range(self.cursors[log], end))
        self.cursors[log] = end


class DiskSpoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.base = Path(tempfile.mkdtemp(prefix="spool-"))
        self.path = self.base / "0"
        self.lives = 0
        self.accepted: dict[LogId, list[bytes]] = {log: [] for log in LOGS}
        self.pending: list[tuple[Batch, asyncio.Task[None]]] = []
        self.marks: dict[str, int] = {}
        self.synced: dict[int, int] = {}
        self.patches = pytest.MonkeyPatch()
        self.patches.setattr(writing, "datasync", self.sync)

    def sync(self, fd: int) -> None:
        """Stand in for fdatasync: what it saw survives a power cut."""
        found = os.fstat(fd)
        self.synced[found.st_ino] = found.st_size

    @initialize(
        sync=strategies.sampled_from(["full", "normal"]),
        policies=strategies.tuples(*[strategies.sampled_from(["block", "drop_oldest"])] * 2),
        direct=strategies.sampled_from([0, 20_000, 1 << 30]),
    )
    def begin(self, sync: str, policies: tuple[str, str], direct: int) -> None:
        """``direct`` says which writes go past the page cache: all, the larger ones, none."""
        self.patches.setattr(disk, "DIRECT_SEGMENT", 0)
        self.patches.setattr(writing, "DIRECT_FROM", direct)
        self.sync_mode = sync
        self.lanes = [ModelLane(f"r/{number}", policy) for number, policy in enumerate(policies)]
        self.runner.run(self.open())

    async def open(self) -> None:
        self.spool = DiskSpool(
            DiskSpoolConfig.model_validate({
                "type": "disk", "path": self.path, "max_size": MAX_SIZE, "sync": self.sync_mode,
            })
        )  # fmt: skip
        restored = await self.spool.open(LOGS)
        if self.lives:
            assert restored.marks.get("s", {}) == self.marks
        for lane in self.lanes:
            for log in LOGS:
                position = restored.positions.get((lane.id, log), 0)
                assert position == lane.committed[log]
                lane.cursors[log] = lane.noted[log] = position
        self.spool.attach(self.lanes)

    async def rest(self) -> None:
        """Wait until nothing is being written, and take what was accepted into the model."""
        appender = self.spool._appender
        while True:
            await asyncio.sleep(0.0005)
            # Of batches that were appended together the first ones may be in while the others wait for room.
            accepted = sorted((one for one, _ in self.pending if one.first >= 0), key=lambda one: one.first)
            self.pending = [pair for pair in self.pending if not (pair[0].first >= 0 or pair[1].done())]
            for one in accepted:
                assert one.first == len(self.accepted[one.log])
                self.accepted[one.log] += one.records
            if not (appender._writing or appender._ready):
                return

    @rule(
        log=a_log,
        count=strategies.integers(1, 8),
        size=strategies.sampled_from([2, 3000, 30_000]),
        together=strategies.integers(1, 3),
    )
    def append(self, log: LogId, count: int, size: int, together: int) -> None:
        async def work() -> None:
            number = len(self.accepted[log]) + sum(len(one.records) for one, _ in self.pending)
            content = [b"{%d %s}" % (number + offset, b"x" * size) for offset in range(count * together)]
            given = [
                Batch(content[start : start + count], log, "event", 1.0) for start in range(0, len(content), count)
            ]
            task = asyncio.create_task(self.spool.append(*given))
            self.pending += [(one, task) for one in given]
            await asyncio.sleep(0)
            await self.rest()

        self.runner.run(work())

    @rule(which=strategies.integers(0, 100))
    def give_up(self, which: int) -> None:
        """The caller of an append is cancelled."""

        async def work() -> None:
            if self.pending:
                self.pending[which % len(self.pending)][1].cancel()
            await asyncio.sleep(0.001)
            await self.rest()

        self.runner.run(work())

    @rule(which=a_lane, log=a_log, times=strategies.integers(1, 30))
    def read(self, which: int, log: LogId, times: int) -> None:
        async def work() -> None:
            lane = self.lanes[which]
            for _ in range(times):
                position = lane.cursors[log]
                batch = await self.spool.read(log, position)
                if lane.cursors[log] != position:
                    continue  # skipped meanwhile
                if batch is None:
                    assert position == len(self.accepted[log])
                    return
                assert batch.end > position
                assert set(range(position, batch.first)) <= lane.skipped[log]
                assert list(batch.records) == self.accepted[log][batch.first : batch.end]
                lane.cursors[log] = batch.end

        self.runner.run(work())

    @rule(which=a_lane, log=a_log, share=strategies.floats(0, 1))
    def settle(self, which: int, log: LogId, share: float) -> None:
        """A lane is done with a part of what it has in hand."""
        lane = self.lanes[which]
        lane.noted[log] += int((lane.cursors[log] - lane.noted[log]) * share)

    @rule(mark=strategies.one_of(strategies.none(), strategies.integers(0, 9)), key=strategies.sampled_from("xy"))
    def commit(self, mark: int | None, key: str) -> None:
        async def work() -> None:
            noted = {(lane.id, log): lane.noted[log] for lane in self.lanes for log in LOGS}
            await self.spool.commit(noted, {"s": {key: mark}})
            for lane in self.lanes:
                lane.committed = {log: noted[lane.id, log] for log in LOGS}
            self.marks[key] = mark if mark is not None else 0
            if mark is None:
                del self.marks[key]
            await asyncio.sleep(0.001)
            await self.rest()

        self.runner.run(work())

    @rule()
    def restart(self) -> None:
        async def work() -> None:
            await self.abandon()
            await self.spool.close()
            self.lives += 1
            await self.open()

        self.runner.run(work())

    async def abandon(self) -> None:
        for _, task in self.pending:
            task.cancel()
        while self.pending:
            await self.rest()

    @rule(power=strategies.booleans(), more=strategies.integers(0, 3), kept=strategies.floats(0, 1))
    def crash(self, power: bool, more: int, kept: float) -> None:
        """The process dies between two steps of its threads; with ``power`` only what was synced is left, and some of the rest."""

        async def work() -> None:
            tasks = []
            for _ in range(more):  # under way when it happens
                number = len(self.accepted[LOGS[0]]) + sum(len(one.records) for one, _ in self.pending)
                one = Batch([b"{%d}" % number], LOGS[0], "event", 1.0)
                tasks.append((one, asyncio.create_task(self.spool.append(one))))
            await asyncio.sleep(0)
            release, held = threading.Event(), []
            for worker in self.spool._workers:
                reached = threading.Event()
                stop = worker.run(lambda reached=reached: (reached.set(), release.wait()))
                held.append((asyncio.create_task(stop), reached))
            for _, reached in held:
                while not reached.is_set():
                    await asyncio.sleep(0.0005)
            try:
                self.lives += 1
                copy = self.base / str(self.lives)
                promised = {log: self.spool.stats()[log].end for log in LOGS}
                shutil.copytree(self.path, copy)
                if power:
                    for file in self.path.rglob("*.seg"):
                        size = file.stat().st_size
                        safe = min(size, self.synced[file.stat().st_ino])  # opening may have cut it
                        os.truncate(copy / file.relative_to(self.path), safe + int((size - safe) * kept))
                for file in copy.rglob("*.seg"):
                    found = file.stat()
                    self.synced[found.st_ino] = found.st_size
            finally:
                release.set()
            await asyncio.gather(*(stopped for stopped, _ in held))
            self.pending += tasks
            await self.abandon()
            await self.spool.close()
            shutil.rmtree(self.path)
            self.path = copy
            for log in LOGS:
                self.after_crash(log, promised[log], power=power)
            await self.open()

        self.runner.run(work())

    def after_crash(self, log: LogId, promised: int, *, power: bool) -> None:
        """Each record that is left is one that was given; without a power cut, or with `full`, all that was accepted is left."""
        found = survey(self.path).logs.get(log)
        assert [one for one in (verify(found) if found else ()) if not one.harmless] == []
        end = found.end if found else 0
        assert end <= len(self.accepted[log])
        if not power or self.sync_mode == "full":
            assert end >= promised
        assert end >= max(lane.committed[log] for lane in self.lanes)
        del self.accepted[log][end:]
        for lane in self.lanes:
            lane.skipped[log] = {number for number in lane.skipped[log] if number < end}

    @invariant()
    def within_bounds(self) -> None:
        if not hasattr(self, "spool"):
            return
        size = 0
        for file in self.path.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # deleted just now
                size += file.stat().st_size if file.is_file() else 0
        assert size <= MAX_SIZE
        for log, stats in self.spool.stats().items():
            assert stats.end == len(self.accepted[log])

    def teardown(self) -> None:
        async def work() -> None:
            for _ in range(500):  # every append that waits gets in as soon as lanes move on
                for lane in self.lanes:
                    for log in LOGS:
                        while (batch := await self.spool.read(log, lane.cursors[log])) is not None:
                            lane.cursors[log] = batch.end
                        lane.noted[log] = lane.cursors[log]
                await self.spool.commit({(lane.id, log): lane.noted[log] for lane in self.lanes for log in LOGS}, {})
                await asyncio.sleep(0.001)
                await self.rest()
                if not self.pending:
                    break
            assert not self.pending
            await self.spool.close()

        try:
            if hasattr(self, "spool"):
                self.runner.run(work())
                for log in survey(self.path).logs.values():
                    assert [one for one in verify(log) if not one.harmless] == []
        finally:
            self.runner.close()
            self.patches.undo()
            shutil.rmtree(self.base)


@pytest.mark.timeout(120)
def test_the_disk_spool_behaves_like_its_model() -> None:
    """Nothing accepted is lost, invented, changed or out of order, through any sequence of appends, reads, commits and crashes."""
    logs.configure("critical")
    run_state_machine_as_test(
        DiskSpoolMachine,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
