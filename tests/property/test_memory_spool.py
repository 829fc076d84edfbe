"""Any sequence of appends, reads, commits and drops against a model of the memory spool."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.batch import Batch, LogId
from pipeline.spool.memory import BATCH_OVERHEAD, MemorySpool, MemorySpoolConfig

SIZE = 1 << 20
LOGS = [LogId("a"), LogId("b"), LogId("c", "acme")]
LANES = [[0], [0, 1], [1, 2]]
"""The logs of each lane."""

actions = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 2), st.integers(1, 4), st.integers(0, 60_000)),
    st.tuples(st.just("read"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("commit"), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("cancel"), st.integers(0, 10)),
)


class Lane:
    """Reads a batch, holds it, commits it; remembers what it saw and what was taken from it."""

    def __init__(self, number, logs, on_full):
        self.id, self.logs, self.on_full = f"lane{number}", logs, on_full
        self.at = dict.fromkeys(logs, 0)
        self.done = dict.fromkeys(logs, 0)
        self.seen = {log: [] for log in logs}
        self.skipped = {log: [] for log in logs}

    def wake(self): ...

    def hurry(self): ...

    def cursor(self, log):
        return self.at[log]

    def skip(self, log, end):
        assert end > self.at[log]
        self.skipped[log] += range(self.at[log], end)
        self.at[log] = end

    async def read(self, spool, log):
        batch = await spool.read(log, self.at[log])
        if batch is None:
            return False
        assert batch.first == self.at[log]
        self.seen[log] += enumerate(batch.records, batch.first)
        self.at[log] = batch.end
        return True

    async def commit(self, spool, log):
        await spool.commit({(self.id, log): self.at[log]}, {})


class World:
    def __init__(self, on_full):
        self.spool = MemorySpool(MemorySpoolConfig(max_size=SIZE))
        self.lanes = [
            Lane(number, [LOGS[log] for log in logs], on_full[number])
            for number, logs in enumerate(LANES)
        ]  # fmt: skip
        self.appends = []  # (task, batch) in the order of the calls
        self.number = 0

    def waits(self, log=None):
        return [batch for task, batch in self.appends if not task.done() and log in (None, batch.log)]

    async def append(self, log, count, size):
        records = [b"%d:" % (self.number + index) + b"x" * size for index in range(count)]
        self.number += count
        batch = Batch(records, log, "event", 0.0)
        cost = batch.size + count + BATCH_OVERHEAD
        free = not self.waits(log) and self.spool.stats()[log].bytes + cost <= SIZE // 2 // len(LOGS)
        task = asyncio.ensure_future(self.spool.append(batch))
        self.appends.append((task, batch))
        await asyncio.sleep(0)
        assert task.done() or not free, "no append waits while its log is under its share"

    async def cancel(self, index):
        pending = [task for task, _ in self.appends if not task.done()]
        if index < len(pending):
            pending[index].cancel()
            await asyncio.sleep(0)

    def check(self):
        stats = self.spool.stats()
        assert sum(one.bytes for one in stats.values()) <= SIZE
        for log in LOGS:
            entered = [batch for _, batch in self.appends if batch.log == log and batch.first >= 0]
            assert [batch.first for batch in entered] == sorted(batch.first for batch in entered), (
                "first come, first in"
            )
            truth = [record for batch in entered for record in batch.records]
            assert (stats[log].received, stats[log].end) == (len(truth), len(truth))
            for lane in self.lanes:
                if log in lane.logs:
                    seen, skipped = lane.seen[log], lane.skipped[log]
                    assert all(truth[number] == record for number, record in seen), "nothing is invented or mixed up"
                    assert sorted([number for number, _ in seen] + skipped) == list(range(lane.at[log])), (
                        "nothing is lost"
                    )
                    assert lane.on_full == "drop_oldest" or not skipped, "who blocks loses nothing"

    async def drain(self):
        """Let the lanes go on until nothing is left."""
        moved = True
        while moved:
            moved = False
            for lane in self.lanes:
                for log in lane.logs:
                    moved |= await lane.read(self.spool, log)
                    await lane.commit(self.spool, log)
            await asyncio.sleep(0)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(actions, max_size=80),
    st.tuples(*[st.sampled_from(["block", "drop_oldest"])] * 3),
)
def test_nothing_is_lost_or_invented(steps, on_full):
    """Order is kept per log, the bound holds, shares are respected, and lanes that go on let every append in."""

    async def play():
        world = World(on_full)
        await world.spool.open(LOGS)
        world.spool.attach(world.lanes)
        for action, *rest in steps:
            if action == "append":
                await world.append(LOGS[rest[0]], rest[1], rest[2])
            elif action == "cancel":
                await world.cancel(*rest)
            else:
                lane = world.lanes[rest[0]]
                log = lane.logs[rest[1] % len(lane.logs)]
                await getattr(lane, action)(world.spool, log)
                await asyncio.sleep(0)
            world.check()
        await world.drain()
        world.check()
        assert not world.waits()
        assert all(one.bytes == 0 for one in world.spool.stats().values())

    asyncio.run(play())
