"""What a lane gives up because a disk spool is full is in the gap ledger, whenever the process ends."""

import asyncio
import json
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest

from pipeline.core.batch import Batch, LogId
from pipeline.core.config import BatchConfig, RetryConfig, SinkConfig
from pipeline.engine.committer import Committer
from pipeline.engine.delivery import SinkRunner
from pipeline.engine.gaps import GapLedger
from pipeline.engine.lane import Lane
from pipeline.engine.letters import DeadLetters
from pipeline.engine.route import Route
from pipeline.engine.status import Board
from pipeline.engine.watch import Watch
from pipeline.kit import log as logs
from pipeline.kit.clock import SystemClock
from pipeline.spool.disk import DiskSpool, DiskSpoolConfig
from pipeline.testing import context

from .conftest import Asking

TAP = LogId("tap")
RECORDS = [b'{"n":%04d,"x":"%s"}' % (number, b"x" * 10_000) for number in range(400)]

IN_HAND = 10
"""Records of a segment at most."""


class Line:
    """A disk spool of 1 MiB and a lane with `drop_oldest`; nothing is committed in intervals."""

    def __init__(self, folder):
        log = logs.get(component="test")
        self.spool = DiskSpool(DiskSpoolConfig(type="disk", path=folder / "spool", max_size=1 << 20))
        self.ledger = GapLedger(SystemClock())
        self.committer = Committer(self.spool, log)
        self.committer.keepers = [self.ledger]
        config = SinkConfig(type="asking", batch=BatchConfig(max_events=1, max_wait=0), retry=RetryConfig())
        self.sink = Asking(config, context("sink"))
        self.sink.asks = asyncio.Queue()
        runner = SinkRunner(self.sink, config, Board(SystemClock()).add("sink", "sink", "", log), log)
        self.watch = Watch(self.ledger, SystemClock(), log)
        self.watch.sheds([TAP])
        self.lane = Lane(
            Route("all", [], [], log, lambda *_: None, lanes=1), runner, [TAP], "drop_oldest", self.spool, self.committer,
            DeadLetters(folder / "letters", 1 << 20, SystemClock().now).lane("all", "sink"), SystemClock(), log,
            lambda *_: None, self.watch.shed,
        )  # fmt: skip

    async def send(self, record):
        batch = Batch([record], TAP, "event", 1_700_000_000.0)
        await asyncio.wait_for(self.spool.append(batch), 5)
        self.watch.arrived(batch)


@asynccontextmanager
async def running(folder):
    line = Line(folder)
    restored = await line.spool.open([TAP])
    line.ledger.restore(restored.facts, ())
    line.lane.start_at(TAP, restored.positions.get((line.lane.id, TAP), 0), line.spool.stats()[TAP].end)
    line.spool.attach([line.lane], line.committer.commit_facts)
    await line.lane.runner.open({})
    task = asyncio.ensure_future(line.lane.run())
    try:
        yield line
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await line.spool.close()


def told(folder):
    """Records that the database has as dropped, and those that its gap ledger has."""
    with closing(sqlite3.connect(folder / "spool" / "state.db")) as db:
        dropped = db.execute('SELECT first, "end" FROM dropped').fetchall()
        gaps = db.execute("SELECT facts FROM gaps").fetchall()
    return sum(end - int(first) for first, end in dropped), sum(json.loads(text)["records"] for (text,) in gaps)


async def test_the_ledger_is_never_behind(tmp_path):
    """The database learns in one step that records were dropped and that they are missing."""
    async with running(tmp_path) as line:
        for number, record in enumerate(RECORDS):
            await line.send(record)
            if number % 20 == 0:
                dropped, missing = told(tmp_path)
                # The lane also skips what is left of the segment that it has a record of in hand; a crash brings that back.
                assert dropped <= missing <= dropped + IN_HAND
        assert dropped > 200


async def test_a_crash_tells_it_once(tmp_path):
    """What was given up before a crash is counted as that afterwards, not as damage, and not a second time in the ledger."""
    async with running(tmp_path) as line:
        for record in RECORDS:
            await line.send(record)
        shutil.copytree(tmp_path / "spool", tmp_path / "crashed" / "spool")
    dropped, missing = told(tmp_path / "crashed")
    async with running(tmp_path / "crashed") as line:
        line.sink.asks = None
        stored = await line.sink.until(len(RECORDS) - dropped)
        assert sorted(stored) == stored
        assert line.lane.tallies[TAP].discarded == {"given_up_before": dropped}
        assert sum(gap.records for gap in line.ledger) == missing >= dropped
        async with asyncio.timeout(5):
            while line.lane.waiting(TAP):
                await asyncio.sleep(0)
        await line.committer.commit()
        await line.spool.commit({}, {})  # the lane is past them
        assert told(tmp_path / "crashed") == (0, missing)


async def test_a_database_that_fails(tmp_path):
    """While the database cannot be told of it, what lanes skipped stays on the disk; then it is told."""
    async with running(tmp_path) as line:
        commit, refused = line.spool._room.commit, asyncio.Event()

        async def refuse(facts):
            refused.set()
            raise sqlite3.OperationalError("database or disk is full")

        line.spool._room.commit = refuse
        sending = asyncio.ensure_future(_all(line))
        await asyncio.wait_for(refused.wait(), 10)
        assert told(tmp_path) == (0, 0)
        assert (tmp_path / "spool" / "logs" / "tap" / "00000000000000000000.seg").exists()
        line.spool._room.commit = commit
        await asyncio.wait_for(sending, 10)
        dropped, missing = told(tmp_path)
        assert 200 < dropped <= missing <= dropped + IN_HAND


async def _all(line):
    for record in RECORDS:
        await line.send(record)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level("CRITICAL")
