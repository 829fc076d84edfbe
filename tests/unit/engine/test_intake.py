"""Intake: judging, cutting, counting."""

import asyncio
import json
import tracemalloc

import pytest

from pipeline.core.batch import MAX_BYTES, MAX_RECORDS, LogId
from pipeline.core.config import SourceConfig
from pipeline.core.errors import PipelineError
from pipeline.core.lines import Blocks, Lines
from pipeline.engine.intake import Intake
from pipeline.engine.letters import DeadLetters
from pipeline.kit.clock import SystemClock
from pipeline.spool.disk import DiskSpool, DiskSpoolConfig
from pipeline.spool.memory import BATCH_OVERHEAD, MemorySpool, MemorySpoolConfig

TAP = LogId("tap")


class Keeping(MemorySpool):
    """Remembers what was appended."""

    def __init__(self, size=64 << 20):
        super().__init__(MemorySpoolConfig(max_size=size))
        self.batches = []

    async def append(self, *batches):
        for batch in batches:
            await super().append(batch)
            self.batches.append(batch)


class Stalled:
    """A lane that reads nothing."""

    id, logs, on_full = "stalled", [TAP], "block"

    def wake(self): ...

    def hurry(self): ...

    def cursor(self, log):
        return 0


@pytest.fixture
async def make(tmp_path):
    """Makes an intake with its spool."""
    letters = DeadLetters(tmp_path, 1 << 30, SystemClock().now)

    async def build(orgs=None, spool=None, **config):
        orgs = orgs or {"": TAP}
        spool = spool or Keeping()
        await spool.open(list(orgs.values()))
        return Intake(
            "tap", SourceConfig(type="tap", **config), orgs, spool, letters.source("tap"), SystemClock()
        ), spool

    build.letters = letters
    yield build
    await letters.close()


async def test_what_is_accepted(make):
    """Records become a batch with the source's log and stream; the receipt counts them."""
    intake, spool = await make(stream="detect")
    receipt = await intake.send([b"{}", b'{"a":1}'])
    (batch,) = spool.batches
    assert (list(batch.records), batch.log, batch.stream, batch.origin, batch.size) == (
        [b"{}", b'{"a":1}'], TAP, "detect", "live", 9
    )  # fmt: skip
    assert (receipt.count, receipt.refused, intake.received[TAP]) == (2, 0, (2, 9))


async def test_what_waits_takes_the_memory_that_is_counted(make):
    """A batch of one small record takes what the spool counts for it, and no more: many of them wait behind a sink that is away."""
    intake, spool = await make(spool=MemorySpool(MemorySpoolConfig()))
    spool.attach([Stalled()])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3000):
            block = Lines(b'{"a":%d}\n' % number, 1)
            assert block.edges.lines == 1  # as a framer has seen to it
            await intake.send(block)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / 3000 < (BATCH_OVERHEAD + len(block.block)) * 1.1


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"[]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"{", "not_an_object"),
        (b" {}", "not_an_object"),
        (b"{}\n{}", "line_break"),
        (b'{"a":"\xff"}', "not_utf8"),
        (b'{"a":"\xed\xa0\x80"}', "not_utf8"),
        (b"{" + b"x" * 100 + b"}", "oversize"),
    ],
)
async def test_what_is_refused(make, raw, reason):
    """A record of bad form goes to the source's dead letter with its reason; its neighbours are accepted in order."""
    intake, spool = await make(max_record=100)
    receipt = await intake.send([b'{"a":1}', raw, b'{"b":1}'])
    assert [list(batch.records) for batch in spool.batches] == [[b'{"a":1}', b'{"b":1}']]
    assert (receipt.count, receipt.refused) == (2, 1)
    assert make.letters.sources["tap"].counts == {reason: 1}


async def test_several_blocks_together(make):
    """What comes in several blocks is judged and counted like one, keeps its order, and each block is a batch as it came."""
    intake, spool = await make()
    parts = [
        Lines.of([b'{"a":1}', b"{}"]),
        Lines.of([b'{"b":1}', b"[]", b'{"b":2}']),
        Lines.of([b"bad"]),
        Lines.of([b"{}"]),
    ]
    receipt = await intake.send(Blocks(parts))
    assert [list(batch.records) for batch in spool.batches] == [
        [b'{"a":1}', b"{}"], [b'{"b":1}', b'{"b":2}'], [b"{}"]
    ]  # fmt: skip
    assert spool.batches[0].records.block is parts[0].block
    assert (receipt.count, receipt.refused) == (5, 2)
    assert make.letters.sources["tap"].counts == {"not_an_object": 2}


async def test_form_only(make):
    """Intake looks at the form alone; deeper damage is for whoever decodes."""
    intake, spool = await make()
    await intake.send([b'{"broken}', b"{]}", b'{"\\u":1}'])
    assert spool.batches[0].end == 3


async def test_text(make):
    """With `format: text` any line is a record."""
    intake, spool = await make(format="text")
    await intake.send([b"plain", "büro".encode(), b"\xff", b""])
    assert list(spool.batches[0].records) == [b"plain", "büro".encode()]


async def test_blank_records_are_nothing(make):
    """An empty record is neither accepted nor refused, and a send of nothing is none."""
    intake, spool = await make()
    receipt = await intake.send([b"", b"{}", b""])
    assert (receipt.count, receipt.refused) == (1, 0)
    assert (await intake.send([])).count == (await intake.send([b""])).count == 0
    assert len(spool.batches) == 1


async def test_cut_by_number(make):
    """No batch has more than 256 records, whatever one send brings."""
    intake, spool = await make()
    records = [b'{"n":%d}' % number for number in range(1000)]
    await intake.send(records)
    assert [record for batch in spool.batches for record in batch.records] == records
    assert {len(batch.records) for batch in spool.batches} <= {MAX_RECORDS, 1000 % MAX_RECORDS}


async def test_cut_by_size(make):
    """No batch has more than 1 MiB, except that a larger record has one of its own."""
    intake, spool = await make()
    records = [b"{" + b"x" * size + b"}" for size in (600_000, 600_000, 10, 3_000_000, 10, 10)]
    await intake.send(records)
    assert [record for batch in spool.batches for record in batch.records] == records
    for batch in spool.batches:
        assert batch.size == sum(map(len, batch.records))
        assert batch.size <= MAX_BYTES or len(batch.records) == 1


@pytest.mark.parametrize("organizations", [1, 2, 40])
@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_every_batch_finds_room_in_a_small_spool(make, tmp_path, kind, organizations):
    """However much comes at once, it is cut so that each batch has room in its log, which is a part of the spool."""
    logs = {str(number): LogId("tap", str(number)) for number in range(organizations)}
    spool = MemorySpool(MemorySpoolConfig(max_size=1 << 20))
    if kind == "disk":
        spool = DiskSpool(DiskSpoolConfig(type="disk", path=tmp_path / "spool", max_size=1 << 20))
    intake, _ = await make(logs, spool, max_record=1 << 18)
    lane = Stalled()
    lane.logs = list(logs.values())
    lane.cursor = lambda log: spool.stats()[log].end
    spool.attach([lane])
    records = [b"{" + b"x" * 3000 + b"}"] * MAX_RECORDS

    async def settle():
        done = dict.fromkeys(logs.values(), 0)
        while sum(done.values()) < len(records) * 2:
            for log, stats in spool.stats().items():
                done[log] = stats.end
            await spool.commit({(lane.id, log): end for log, end in done.items()}, {})
            await asyncio.sleep(0.01)

    async with asyncio.timeout(15):
        await asyncio.gather(intake.send(records, org="0"), intake.send(records, org="0"), settle())
    await spool.close()


async def test_the_list_stays_the_callers(make):
    """A source may use its list again once `send` returned."""
    intake, spool = await make()
    records = [b'{"a":1}']
    await intake.send(records)
    records[:] = [b"gone"]
    assert list(spool.batches[0].records) == [b'{"a":1}']


async def test_organizations(make):
    """Records go to the log of their organization; one that the source does not serve is the source's mistake."""
    acme, globex = LogId("tap", "acme"), LogId("tap", "globex")
    intake, spool = await make({"acme": acme, "globex": globex})
    await intake.send([b"{}"], org="globex")
    assert spool.batches[0].log == globex
    with pytest.raises(PipelineError, match="does not serve"):
        await intake.send([b"{}"], org="stranger")


async def test_a_refusal_by_the_source(make, tmp_path):
    """What a source cannot accept is counted by its reason, and its letter keeps the beginning of a long record."""
    intake, _ = await make()
    intake.refuse(b"x" * 200_000, "stranger", "acme")
    await make.letters.sources["tap"].flush()
    (line,) = next(tmp_path.rglob("*.jsonl")).read_text().splitlines()
    letter = json.loads(line)
    assert (letter["reason"], letter["org"], len(letter["payload"])) == ("stranger", "acme", 64 << 10)
    assert "200000 bytes" in letter["detail"]


async def test_back_pressure(make):
    """While the spool is full, `send` waits and says so; a send that is broken off is counted as in or in the dead letter."""
    spool = Keeping(1 << 20)
    intake, _ = await make(spool=spool)
    spool.attach([Stalled()])
    records = [b"{" + b"x" * 300_000 + b"}"] * 5
    task = asyncio.ensure_future(intake.send(records))
    while not spool.batches:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert not task.done()
    assert intake.waiting
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    accepted = spool.stats()[TAP].received
    assert 0 < accepted == intake.received[TAP][0] < 5
    assert make.letters.sources["tap"].counts == {"shutdown": 5 - accepted}


async def test_concurrent_sends_keep_their_orders(make):
    """Sends from several tasks mix, but each keeps its own order."""
    intake, spool = await make()
    await asyncio.gather(*(
        intake.send([b'{"t":%d,"n":%d}' % (task, number) for number in range(600)]) for task in range(3)
    ))  # fmt: skip
    found = [json.loads(record) for batch in spool.batches for record in batch.records]
    for task in range(3):
        assert [one["n"] for one in found if one["t"] == task] == list(range(600))
