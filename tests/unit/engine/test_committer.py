"""Positions and marks are committed together, after the sinks have synced."""

import asyncio

import pytest

from pipeline.core.batch import LogId
from pipeline.core.config import SinkConfig
from pipeline.core.sink import Sink
from pipeline.engine.committer import Committer
from pipeline.engine.delivery import SinkRunner
from pipeline.engine.status import Board
from pipeline.kit import log as logs
from pipeline.kit.clock import SystemClock
from pipeline.spool.memory import MemorySpool, MemorySpoolConfig
from pipeline.testing import context

TAP = LogId("tap")


class Recording(MemorySpool):
    """Commits in intervals, as a spool on disk does, and remembers what; can be told to fail."""

    commit_interval = 0.01

    def __init__(self):
        super().__init__(MemorySpoolConfig())
        self.commits = []
        self.fails = False

    async def commit(self, positions, marks, facts=None):
        if self.fails:
            raise OSError("disk")
        self.facts = facts
        self.commits.append((dict(positions), {sink: dict(mark) for sink, mark in marks.items()}))


class Syncing(Sink[SinkConfig]):
    """Its `sync` fails, or waits, as told."""

    def __init__(self, *given):
        super().__init__(*given)
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.began = asyncio.Event()

    async def sync(self):
        self.began.set()
        await self.gate.wait()
        if self.fails:
            raise OSError("disk")


@pytest.fixture
def parts():
    spool = Recording()
    committer = Committer(spool, logs.get(component="spool"))
    board = Board(SystemClock())
    runners = []
    for name in ("one", "two"):
        log = logs.get(component=name)
        config = SinkConfig(type="syncing", timeout=5)
        runners.append(SinkRunner(Syncing(config, context(name)), config, board.add(name, "sink", "", log), log))
    committer.sinks = runners
    return spool, committer, *runners


async def test_together(parts):
    """A position and the mark of its write are in one commit."""
    spool, committer, *_ = parts
    await committer.note({("r/one", TAP): 5}, "one", {"f": 10})
    await committer.note({("r/one", TAP): 7}, "one", {"f": 14})
    await committer.commit()
    await committer.commit()
    assert spool.commits == [({("r/one", TAP): 7}, {"one": {"f": 14}})]


async def test_a_sink_that_cannot_sync_holds_up_only_itself(parts):
    """Positions of a sink whose `sync` fails wait until it works; others are committed."""
    spool, committer, one, two = parts
    for runner in (one, two):
        runner.dirty = True
        await committer.note({(f"r/{runner.id}", TAP): 5}, runner.id, {"f": 1})
    one.sink.fails = True
    await committer.commit()
    await committer.commit()
    assert spool.commits == [({("r/two", TAP): 5}, {"two": {"f": 1}})]
    one.sink.fails = False
    await committer.commit()
    assert spool.commits[1:] == [({("r/one", TAP): 5}, {"one": {"f": 1}})]


async def test_a_commit_that_fails_is_made_again(parts):
    """What a failing spool did not take is in the next commit, without going back behind what came since."""
    spool, committer, *_ = parts
    await committer.note({("r/one", TAP): 5}, "one", {"f": 1, "g": 1})
    spool.fails = True
    await committer.commit()
    await committer.note({("r/one", TAP): 6}, "one", {"f": 2})
    spool.fails = False
    await committer.commit()
    assert spool.commits == [({("r/one", TAP): 6}, {"one": {"f": 2, "g": 1}})]


async def test_a_commit_that_is_broken_off_loses_nothing(parts):
    """What was on its way when the commit was cancelled is in the next one."""
    spool, committer, one, _ = parts
    one.dirty = True
    one.sink.gate.clear()
    await committer.note({("r/one", TAP): 5}, "one", {"f": 1})
    task = asyncio.ensure_future(committer.commit())
    await one.sink.began.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not spool.commits
    one.sink.gate.set()
    await committer.commit()
    assert spool.commits == [({("r/one", TAP): 5}, {"one": {"f": 1}})]


async def test_only_what_was_stored_before_the_sync_is_committed(parts):
    """A position that is noted while a sink syncs waits for the next sync."""
    spool, committer, one, _ = parts
    one.dirty = True
    one.sink.gate.clear()
    await committer.note({("r/one", TAP): 5}, "one", None)
    task = asyncio.ensure_future(committer.commit())
    await one.sink.began.wait()
    await committer.note({("r/one", TAP): 6}, "one", None)
    one.sink.gate.set()
    await task
    assert spool.commits == [({("r/one", TAP): 5}, {})]


async def test_a_mark_that_is_committed_at_once(parts):
    """`commit_mark` does not wait for a sync, and an older mark of the same key does not come after it."""
    spool, committer, one, _ = parts
    one.dirty = True
    one.sink.gate.clear()
    await committer.note({("r/one", TAP): 5}, "one", {"f": None, "g": 3})
    task = asyncio.ensure_future(committer.commit())
    await one.sink.began.wait()
    await asyncio.wait_for(committer.commit_mark("one", {"f": 0}), 1)
    one.sink.gate.set()
    await task
    assert spool.commits == [({}, {"one": {"f": 0}}), ({("r/one", TAP): 5}, {"one": {"g": 3}})]


class Remembering:
    """A keeper with one fact."""

    def __init__(self):
        self.facts = {"dedupe": {("all", "tap", "", 0): b"claims"}}

    def take(self):
        facts, self.facts = self.facts, {}
        return facts

    def give_back(self, facts):
        self.facts = facts


async def test_what_a_keeper_knows_is_committed_with_the_positions(parts):
    """A keeper's facts go along with the next commit, also one without positions; where it fails, with the one after it."""
    spool, committer, *_ = parts
    keeper = Remembering()
    committer.keepers = [keeper]
    spool.fails = True
    await committer.commit()
    spool.fails = False
    await committer.commit()
    assert (spool.commits, spool.facts, keeper.facts) == ([({}, {})], Remembering().facts, {})
    await committer.commit()
    assert len(spool.commits) == 1
