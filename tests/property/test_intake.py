"""Intake judges many records at once as it would judge each alone, and cuts without losing one."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.batch import MAX_BYTES, MAX_RECORDS, LogId
from pipeline.core.config import SourceConfig
from pipeline.core.lines import Lines
from pipeline.engine.intake import Intake
from pipeline.engine.letters import DeadLetters
from pipeline.kit.clock import SystemClock
from pipeline.spool.memory import MemorySpool, MemorySpoolConfig

pieces = st.sampled_from([b"{", b"}", b"\n", b"a", b'"', "é".encode(), b"\xc3", b"\xa9", b"\xff", b"\0", b"[", b" "])
records = st.one_of(
    st.lists(pieces, max_size=6).map(b"".join),
    st.lists(pieces, max_size=6).map(lambda parts: b"{" + b"".join(parts) + b"}"),
    st.sampled_from([b"{}", b'{"a":1}', b"{" + b"x" * 30 + b"}"]),
    st.integers(1, 700_000).map(lambda size: b"{" + b"x" * size + b"}"),
)


class Keeping(MemorySpool):
    def __init__(self):
        super().__init__(MemorySpoolConfig())
        self.batches = []

    async def append(self, *batches):
        for batch in batches:
            await super().append(batch)
            self.batches.append(batch)


def judge(raw, form, max_record):
    """Whether a record is good; None where there is none."""
    if not raw:
        return None
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    braces = form == "text" or (raw[:1] == b"{" and raw[-1:] == b"}")
    return braces and b"\n" not in raw and len(raw) <= max_record


@settings(deadline=None, max_examples=200)
@given(
    st.lists(records, max_size=12),
    st.sampled_from(["json", "text"]),
    st.sampled_from([20, 1 << 20]),
    st.booleans(),
    st.booleans(),
)
def test_judged_as_one_by_one(raws, form, max_record, many, as_block):
    """What is accepted and what is refused is what a slow judge of single records says, in order, in a block or in a list."""
    raws = raws * 50 if many and sum(map(len, raws)) < 10_000 else raws

    async def play(folder):
        spool, log = Keeping(), LogId("tap")
        await spool.open([log])
        letters = DeadLetters(Path(folder), 1 << 30, SystemClock().now)
        config = SourceConfig(type="tap", format=form, max_record=max_record)
        intake = Intake("tap", config, {"": log}, spool, letters.source("tap"), SystemClock())
        block = not any(b"\n" in raw for raw in raws)
        receipt = await intake.send(Lines.of(raws) if as_block and block else raws)
        verdicts = [judge(raw, form, max_record) for raw in raws]
        good = [raw for raw, verdict in zip(raws, verdicts, strict=True) if verdict]
        assert [raw for batch in spool.batches for raw in batch.records] == good
        assert (receipt.count, receipt.refused) == (len(good), verdicts.count(False))
        assert sum(letters.sources["tap"].counts.values()) == verdicts.count(False)
        assert intake.received[log] == (len(good), sum(map(len, good)))
        for batch in spool.batches:
            assert len(batch.records) <= MAX_RECORDS
            assert batch.size <= MAX_BYTES or len(batch.records) == 1

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(folder))
