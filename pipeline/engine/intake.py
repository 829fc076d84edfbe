"""Intake: judges the form of what a source brings, cuts it into batches and appends them to the spool."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from pipeline.core.batch import MAX_RECORDS, Batch, LogId, Origin, Receipt
from pipeline.core.clock import Clock
from pipeline.core.config import SourceConfig
from pipeline.core.errors import PipelineError
from pipeline.core.lines import Blocks, Lines
from pipeline.core.spool import Spool
from pipeline.engine.letters import SHUTDOWN, SourceLetters
from pipeline.kit.utf8 import is_utf8

_OPEN, _CLOSE = frozenset(b"{"), frozenset(b"}")
_LF = 10


class Intake:
    """Implements `pipeline.core.source.Outlet` for one instance of a source."""

    def __init__(
        self,
        source: str,
        config: SourceConfig,
        orgs: Mapping[str, LogId],
        spool: Spool,
        letters: SourceLetters,
        clock: Clock,
        accepted: Callable[[Batch], None] | None = None,
    ) -> None:
        """``accepted`` is told of each batch that the spool has."""
        self.received: dict[LogId, tuple[int, int]] = dict.fromkeys(orgs.values(), (0, 0))
        """Log -> records and bytes that were accepted."""
        self._source = source
        self._config = config
        self._orgs = orgs
        self._default = next(iter(orgs.values()))
        self._spool = spool
        self._letters = letters
        self._clock = clock
        self._accepted = accepted
        self._waiting = 0
        self._waited_until = 0.0

    @property
    def waiting(self) -> bool:
        return self._waiting > 0 or self._clock.monotonic() - self._waited_until < 1.0

    def refuse(self, raw: bytes, reason: str, org: str | None = None) -> None:
        self._letters.put(
            (raw,), reason, self._default.org if org is None else org, self._config.stream, whole=reason == SHUTDOWN
        )

    async def send(
        self, raws: Sequence[bytes], stream: str | None = None, org: str | None = None, origin: Origin = "live"
    ) -> Receipt:
        log = self._default if org is None else self._orgs.get(org)
        if log is None:
            raise PipelineError(
                f"the source sent records of the organization {org!r}, which it does not serve", where=self._source
            )
        stream = stream or self._config.stream
        now = self._clock.now()
        batches: list[Batch] = []
        receipt = Receipt()
        for part in raws.parts if isinstance(raws, Blocks) else (raws,):
            good = Lines.of(part)
            if not self._well_formed(good):
                good = Lines.of(self._sort(part, log, stream))
                receipt.refused += sum(map(bool, part)) - len(good)
            receipt.count += len(good)
            if good:
                batches += (Batch(run, log, stream, now, origin) for run in _cut(good, self._spool.max_batch))
        if not batches:
            await self._letters.room()
            return receipt
        await self._append(log, batches)
        receipt.wait_for(self._spool, log, batches[-1].end)
        if receipt.refused:
            await self._letters.room()
        return receipt

    async def _append(self, log: LogId, batches: Sequence[Batch]) -> None:
        self._waiting += 1
        started = self._clock.monotonic()
        try:
            await self._spool.append(*batches)
        except asyncio.CancelledError:
            # The stop timeout is over: what found no place in the spool is at least kept and counted; a back-fill is made again.
            for batch in batches:
                if batch.first < 0 and batch.origin == "live":
                    self._letters.put(batch.records, SHUTDOWN, log.org, batch.stream, whole=True)
            raise
        finally:
            self._waiting -= 1
            ended = self._clock.monotonic()
            if ended - started > 0.05:
                self._waited_until = ended
            for batch in batches:
                if batch.first >= 0:
                    count, total = self.received[log]
                    self.received[log] = (count + len(batch.records), total + batch.size)
                    if self._accepted is not None:
                        self._accepted(batch)

    def _well_formed(self, block: Lines) -> bool:
        """Judge all records; False means that at least one may be bad. Quicker than `fault` on each of them."""
        # One that holds an LF makes more lines than there are records.
        lines, firsts, lasts, longest = block.edges
        if lines != len(block) or longest > self._config.max_record:
            return False
        if self._config.format != "json":
            if _LF in firsts:
                return False
        elif firsts != _OPEN or lasts != _CLOSE:
            return False
        return is_utf8(block.block)

    def _sort(self, raws: Sequence[bytes], log: LogId, stream: str) -> list[bytes]:
        """Keep the good records; the others go to the source's dead letter with what is wrong with them."""
        good: list[bytes] = []
        for raw in raws:
            if not raw:
                continue
            reason = fault(raw, self._config)
            if reason:
                self._letters.put((raw,), reason, log.org, stream, whole=reason != "oversize")
            else:
                good.append(raw)
        return good


def fault(raw: bytes, config: SourceConfig) -> str:
    """Why a source's intake refuses a record for its form; "" where it does not."""
    if len(raw) > config.max_record:
        return "oversize"
    if b"\n" in raw:
        return "line_break"
    if config.format == "json" and not (raw.startswith(b"{") and raw.endswith(b"}")):
        return "not_an_object"
    try:
        raw.decode()
    except UnicodeDecodeError:
        return "not_utf8"
    return ""


def _cut(block: Lines, max_bytes: int) -> list[Lines]:
    """Cut into runs that fit a batch of so many bytes."""
    if len(block) <= MAX_RECORDS and block.size <= max_bytes:
        # Without the edges, which take 500 bytes: nobody counts them while it waits.
        return [Lines(block.block, len(block))]
    lines = block.ended()
    runs: list[Lines] = []
    start = at = 0
    while start < len(lines):
        sizes = list(map(len, lines[start : start + MAX_RECORDS]))
        if (size := sum(sizes)) - len(sizes) > max_bytes:
            fitting = bisect_right(list(accumulate(one - 1 for one in sizes)), max_bytes)
            sizes = sizes[: max(1, fitting)]
            size = sum(sizes)
        runs.append(Lines(block.block[at : at + size], len(sizes)))
        start, at = start + len(sizes), at + size
    return runs
