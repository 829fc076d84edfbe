"""The spool in memory."""

import asyncio

import pytest

from pipeline.core.batch import Batch, LogId, Receipt
from pipeline.spool.memory import MemorySpool, MemorySpoolConfig

MIB = 1 << 20
A, B = LogId("a"), LogId("b")


class Port:
    """A lane that reads when told."""

    def __init__(self, name, logs, on_full="block"):
        self.id, self.logs, self.on_full = name, logs, on_full
        self.at = dict.fromkeys(logs, 0)
        self.skipped = dict.fromkeys(logs, 0)
        self.woken = self.hurried = 0

    def wake(self):
        self.woken += 1

    def hurry(self):
        self.hurried += 1

    def cursor(self, log):
        return self.at[log]

    def skip(self, log, end):
        self.skipped[log] += end - self.at[log]
        self.at[log] = end

    async def take(self, spool, log):
        batch = await spool.read(log, self.at[log])
        if batch is not None:
            self.at[log] = batch.end
        return batch

    async def commit(self, spool, log):
        await spool.commit({(self.id, log): self.at[log]}, {})


def batch(log, size, name=b"x"):
    return Batch([name.ljust(size, b".")], log, "event", 0.0)


async def opened(*ports, logs=(A, B), size=2 * MIB):
    spool = MemorySpool(MemorySpoolConfig(max_size=size))
    await spool.open(logs)
    spool.attach(ports)
    return spool


async def waiting(spool, *batches):
    """Start appends that have to wait."""
    tasks = [asyncio.ensure_future(spool.append(one)) for one in batches]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def test_order_and_numbers():
    """Records of a log are numbered without a hole, and are read in that order."""
    port = Port("lane", [A])
    spool = await opened(port)
    for name in (b"1", b"2", b"3"):
        await spool.append(Batch([name, name], A, "event", 0.0))
    read = [await port.take(spool, A) for _ in range(4)]
    assert [(one.first, one.records[0]) for one in read[:3]] == [(0, b"1"), (2, b"2"), (4, b"3")]
    assert read[3] is None


async def test_a_log_that_no_lane_reads_keeps_nothing():
    """Records that nobody will read are counted and let go."""
    spool = await opened(Port("lane", [A]))
    await spool.append(batch(B, 100))
    assert (spool.stats()[B].received, spool.stats()[B].bytes) == (1, 0)


async def test_a_batch_stays_until_all_lanes_are_past():
    """Room is freed when the last lane has committed."""
    one, two = Port("one", [A]), Port("two", [A])
    spool = await opened(one, two)
    await spool.append(batch(A, 1000))
    await one.take(spool, A)
    await one.commit(spool, A)
    assert spool.stats()[A].bytes > 1000
    await two.take(spool, A)
    assert spool.stats()[A].bytes > 1000
    await two.commit(spool, A)
    assert spool.stats()[A].bytes == 0


async def test_full_makes_appends_wait():
    """A full spool makes the append wait and its lanes hurry, until a lane is past."""
    port = Port("lane", [A])
    spool = await opened(port, logs=[A])
    for _ in range(7):
        await spool.append(batch(A, MIB // 4))
    before = port.hurried
    (task,) = await waiting(spool, batch(A, MIB // 2))
    assert port.hurried > before
    for _ in range(3):
        await port.take(spool, A)
    await port.commit(spool, A)
    await asyncio.wait_for(task, 1)


async def test_a_share_is_always_free():
    """A log that floods cannot keep another from its share."""
    spool = await opened(Port("lane", [A, B]))
    for _ in range(5):
        await spool.append(batch(A, MIB // 4))
    tasks = await waiting(spool, batch(A, MIB // 2))
    await asyncio.wait_for(spool.append(batch(B, MIB // 4)), 1)
    tasks[0].cancel()


async def test_waiting_appends_get_in_in_their_order():
    """Of appends that wait, the first that came gets in first, whatever its log; small ones do not overtake a large one."""
    port = Port("lane", [A, B])
    spool = await opened(port)
    for log in (A, A, A, A, A, B):
        await spool.append(batch(log, MIB // 4))
    got = []

    async def append(name, log, size):
        await spool.append(batch(log, size))
        got.append(name)

    async with asyncio.TaskGroup() as group:
        for name, log, size in (("large", A, MIB // 2), ("small", B, MIB // 3), ("later", A, 1000)):
            group.create_task(append(name, log, size))
        await asyncio.sleep(0)
        for _ in range(5):
            await port.take(spool, A)
            await port.commit(spool, A)
            await asyncio.sleep(0)
    assert got == ["large", "small", "later"]


async def test_a_cancelled_append_frees_those_behind_it():
    """When an append that waits is given up, what fits behind it gets in."""
    port = Port("lane", [A])
    spool = await opened(port, logs=[A])
    for _ in range(7):
        await spool.append(batch(A, MIB // 4))
    large, small = await waiting(spool, batch(A, MIB), batch(A, 1000))
    large.cancel()
    await asyncio.wait_for(small, 1)
    assert spool.stats()[A].received == 8


async def test_a_cancelled_append_is_in_or_out():
    """An append that is cancelled in the moment of its turn is in, and its batch says so."""
    port = Port("lane", [A])
    spool = await opened(port, logs=[A])
    for _ in range(7):
        await spool.append(batch(A, MIB // 4))
    late = batch(A, MIB // 2)
    (task,) = await waiting(spool, late)
    while await port.take(spool, A):
        pass
    await port.commit(spool, A)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (late.first, spool.stats()[A].received) == (7, 8)


async def test_drop_oldest_gives_up_the_oldest():
    """Where all lanes allow it, the oldest batches go, each lane counts them, and the append does not wait."""
    port = Port("lane", [A], "drop_oldest")
    spool = await opened(port, logs=[A])
    for number in range(12):
        await asyncio.wait_for(spool.append(batch(A, MIB // 4, b"%d" % number)), 1)
    assert port.skipped[A] > 0
    first = await port.take(spool, A)
    assert first.first == port.skipped[A]
    assert spool.stats()[A].bytes <= 2 * MIB


async def test_one_lane_that_blocks_protects_all():
    """If one of the lanes at the oldest batch is `block`, nobody drops."""
    ports = Port("one", [A], "drop_oldest"), Port("two", [A])
    spool = await opened(*ports, logs=[A])
    for _ in range(7):
        await spool.append(batch(A, MIB // 4))
    (task,) = await waiting(spool, batch(A, MIB // 2))
    assert [port.skipped[A] for port in ports] == [0, 0]
    task.cancel()


async def test_a_batch_in_hand_is_not_dropped():
    """What a lane is writing is not taken from under it."""
    port = Port("lane", [A], "drop_oldest")
    spool = await opened(port, logs=[A])
    await spool.append(batch(A, MIB // 4))
    held = await port.take(spool, A)
    for _ in range(12):
        await asyncio.wait_for(spool.append(batch(A, MIB // 4)), 1)
    assert await spool.read(A, 0) is held


async def test_a_batch_in_one_lanes_hand_still_counts():
    """A batch that one lane is writing holds its room, though another lane would give it up."""
    busy, idle = Port("busy", [A], "drop_oldest"), Port("idle", [A], "drop_oldest")
    spool = await opened(busy, idle, logs=[A])
    await spool.append(batch(A, MIB // 4))
    held = await busy.take(spool, A)
    for _ in range(12):
        await asyncio.wait_for(spool.append(batch(A, MIB // 4)), 1)
    assert await spool.read(A, 0) is held
    assert idle.skipped[A] > 1


async def test_settled():
    """A receipt settles when every lane is past its records."""
    one, two = Port("one", [A]), Port("two", [A])
    spool = await opened(one, two)
    await spool.append(batch(A, 10))
    receipt = Receipt(1)
    receipt.wait_for(spool, A, 1)
    task = asyncio.ensure_future(receipt.settled())
    await one.take(spool, A)
    await one.commit(spool, A)
    await asyncio.sleep(0)
    assert not task.done()
    await two.take(spool, A)
    await two.commit(spool, A)
    await asyncio.wait_for(task, 1)
