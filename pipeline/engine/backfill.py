"""Back-fill: fetches what was missed in a gap and lets it take the way of all records, once.

A gap is filled when all that the history has of it, with a margin on both sides, is known or in the spool. What a crash breaks off
is done again: the routes' dedupes drop what they know, so repeating is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.batch import Batch, LogId
from pipeline.core.clock import Clock
from pipeline.core.component import Org
from pipeline.core.errors import NotFoundError, PermanentError, PipelineError, RequestRefusedError, TemporaryError
from pipeline.core.source import Source
from pipeline.engine.bounds import bounded
from pipeline.engine.dedupe import Dedupe
from pipeline.engine.gaps import SHED, Gap, GapLedger
from pipeline.engine.intake import Intake
from pipeline.engine.rate import Rate
from pipeline.kit.backoff import Backoff
from pipeline.kit.log import Logger
from pipeline.limacharlie.backfill import BackfillConfig, backfill_config

LOOK = 1.0
"""Seconds between two looks at the ledger."""
AT_ONCE = 2
"""Logs of one organization whose gaps are filled at the same time."""
PATIENCE = 12
"""For so many times the delay a gap waits for later ones that touch its window, to be filled together with them."""
LONGEST = 6 * 3600.0
"""Seconds from the first to the last of the gaps that are filled together."""
TRIES = 10
"""Failures after which a gap is given up, until somebody asks for it."""
BY_REQUEST = frozenset({SHED})
"""Reasons of gaps that are filled only by request: what was given up for lack of room would make it scarce again."""


@dataclass(slots=True)
class Filling:
    """Where the records of a log come from, and who decides whether they are known."""

    source: Source[Any]
    org: Org
    intake: Intake
    dedupes: Sequence[Dedupe | None]
    """Of each route that reads the log."""

    @property
    def automatic(self) -> bool:
        return getattr(self.source.config, "backfill", False) is not False


class Filler:
    """Runs beside the sources, which must have a durable spool."""

    def __init__(self, gaps: GapLedger, clock: Clock, log: Logger) -> None:
        self.places: dict[LogId, Filling] = {}
        self._gaps = gaps
        self._clock = clock
        self._log = log
        self._not_before: dict[int, float] = {}
        self._waits: dict[int, Backoff] = {}
        self._running: dict[LogId, asyncio.Task[None]] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Fill what is due until ``stopping``."""
        async with asyncio.TaskGroup() as group:
            while not stopping.is_set():
                self._running = {log: task for log, task in self._running.items() if not task.done()}
                for chain in self._chains():
                    log = chain[0].log
                    busy = sum(other.org == log.org for other in self._running)
                    if log not in self._running and busy < AT_ONCE:
                        self._running[log] = group.create_task(self._fill(chain))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await stopping.wait()
            for task in self._running.values():
                task.cancel()

    def want(self, numbers: Iterable[int] | None, rate: float | None = None) -> list[Gap]:
        """Fill these gaps, or all that are not, as soon as that makes sense, at this rate at most; returns them.

        Raises `NotFoundError` where there is no such gap, `RequestRefusedError` where one cannot be filled, and then asks for none.
        """
        asked: list[Gap] = []
        for gap in [self._known(number) for number in numbers] if numbers is not None else list(self._gaps):
            if gap.state == "filled" and numbers is None:
                continue  # by its number it may be filled again: what is known is left out
            refusal = self._refusal(gap)
            if refusal and numbers is not None:
                raise RequestRefusedError(f"gap {gap.number}: {refusal}")
            if not refusal:
                asked.append(gap)
        for gap in asked:
            gap.wanted, gap.rate, gap.attempts, gap.text = True, rate, 0, ""
            if gap.state != "filling":
                gap.state = "closed"
            self._not_before.pop(gap.number, None)
            self._gaps.changed(gap)
        return asked

    def _known(self, number: int) -> Gap:
        gap = self._gaps.get(number)
        if gap is None:
            raise NotFoundError(f"there is no gap {number}", fix="`lc-pipeline gaps` lists them.")
        return gap

    def _refusal(self, gap: Gap) -> str:
        """Why a gap cannot be filled; "" where it can."""
        place = self.places.get(gap.log)
        if place is None:
            return f"the configuration has no source of {gap.log}"
        if gap.end is None:
            return "it still lasts"
        if not place.dedupes or None in place.dedupes:
            return "a route of its source has no `dedupe`, so records would come twice"
        return ""

    def _chains(self) -> list[list[Gap]]:
        """What is due, the oldest first: gaps of one log whose windows touch are filled together, with the requests of one.

        A connection that flaps makes many gaps; each alone would ask for nearly the same.
        """
        now = self._clock.now()
        chains: list[list[Gap]] = []
        last: dict[tuple[LogId, bool], list[Gap]] = {}
        for gap in sorted((gap for gap in self._gaps if self._is_ours(gap, now)), key=lambda gap: gap.start):
            key = (gap.log, gap.wanted)
            if key in last and self._touch(last[key], gap):
                last[key].append(gap)
            else:
                last[key] = [gap]
                chains.append(last[key])
        return [due for chain in chains if (due := self._due(chain, now))]

    def _is_ours(self, gap: Gap, now: float) -> bool:
        """Whether a gap is, or will be, to be filled without being asked for again."""
        place = self.places.get(gap.log)
        if place is None or gap.state not in ("open", "closed") or now < self._not_before.get(gap.number, 0.0):
            return False
        return gap.wanted or (place.automatic and gap.reason not in BY_REQUEST)

    def _touch(self, chain: Sequence[Gap], gap: Gap) -> bool:
        """Whether a gap may be filled with these. What was begun goes on alone: its progress is that of its own window."""
        ends = [one.end for one in chain if one.end is not None]
        if gap.progress or chain[0].progress or len(ends) < len(chain) or gap.start - chain[0].start > LONGEST:
            return False
        return gap.start - max(ends) <= 2 * self._config(gap).margin

    def _due(self, chain: Sequence[Gap], now: float) -> list[Gap]:
        """Those of a chain that are to be filled now: all together, or after some patience those that have waited long enough."""
        config = self._config(chain[0])
        delay = 0.0 if chain[0].wanted else max(config.delay, config.margin)
        due = [gap for gap in chain if gap.end is not None and now >= gap.end + delay]
        if len(due) == len(chain) or (chain[0].end is not None and now >= chain[0].end + PATIENCE * delay):
            return due
        return []

    def _config(self, gap: Gap) -> BackfillConfig:
        return backfill_config(getattr(self.places[gap.log].source.config, "backfill", False))

    async def _fill(self, chain: Sequence[Gap]) -> None:
        """Fill gaps whose windows touch; the first one keeps the counts."""
        first = chain[0]
        if refusal := self._refusal(first):  # asked for while we were not there to say so
            self._failed(chain, RequestRefusedError(refusal))
            return
        for gap in chain:
            gap.state = "filling"
            gap.attempts += 1
            self._gaps.changed(gap)
        if not first.progress:
            first.counted = [0, 0, 0]
        first.fetched, first.known, first.added = first.counted
        try:
            await self._fetch(first, max(gap.end or gap.start for gap in chain))
        except asyncio.CancelledError:
            for gap in chain:
                gap.state = "closed"
            raise
        except Exception as error:
            self._failed(chain, error)
        else:
            self._filled(chain)
        finally:
            for gap in chain:
                self._gaps.changed(gap)

    def _filled(self, chain: Sequence[Gap]) -> None:
        first = chain[0]
        for gap in chain:
            gap.state, gap.progress, gap.wanted, gap.rate = "filled", "", False, None
            gap.text = "" if gap is first else f"together with gap {first.number}"
        self._log.info(
            "A gap is filled." if len(chain) == 1 else "Gaps are filled.",
            gap=first.number, gaps=len(chain), log=str(first.log), fetched=first.fetched, known=first.known, added=first.added,
            distinct=True,
        )  # fmt: skip

    async def _fetch(self, gap: Gap, end: float) -> None:
        """Fetch from the beginning of a gap to ``end``, with the margins."""
        place, margin = self.places[gap.log], self._config(gap).margin
        start = gap.start - margin
        end = max(min(end + margin, self._clock.now()), start + 1.0)
        rate = Rate(gap.rate)
        pieces = place.source.history(place.org, start, end, gap.progress)
        async for piece in bounded(pieces, end - start):
            gap.fetched += len(piece.records)
            fresh = self._fresh(gap.log, place, piece.records)
            gap.known += len(piece.records) - len(fresh)
            runs: list[Sequence[bytes]] = rate.runs(fresh) if gap.rate or not fresh else [fresh]
            for run in runs:
                await rate.wait(len(run))
                receipt = await place.intake.send(run, org=place.org.name, origin="backfill")
                gap.added += receipt.count
            if piece.progress:
                gap.progress = piece.progress
                gap.counted = [gap.fetched, gap.known, gap.added]
            self._gaps.changed(gap)

    def _fresh(self, log: LogId, place: Filling, records: Sequence[bytes]) -> list[bytes]:
        """Those that a route does not know; the step of each route decides again."""
        batch = Batch((), log, place.source.config.stream, 0.0, "backfill")
        known = [dedupe.knows(batch, records) for dedupe in place.dedupes if dedupe is not None]
        return [raw for index, raw in enumerate(records) if not all(one[index] for one in known)]

    def _failed(self, chain: Sequence[Gap], error: Exception) -> None:
        first = chain[0]
        text = str(error) or type(error).__name__
        given_up = isinstance(error, PermanentError) or first.attempts >= TRIES
        for gap in chain:
            gap.text, gap.state = text, "given_up" if given_up else "closed"
            gap.wanted = gap.wanted and not given_up
            self._gaps.changed(gap)
        unexpected = None if isinstance(error, PipelineError) else error
        if given_up:
            fix = f"Once that is changed: lc-pipeline gaps fill SPOOL {first.number}"
            sentence = "A gap could not be filled and is given up."
            self._log.error(
                sentence, gap=first.number, gaps=len(chain), log=str(first.log), error=text, fix=fix, exc_info=unexpected,
                distinct=True,
            )  # fmt: skip
            return
        wait = self._waits.setdefault(first.number, Backoff(10.0, 1800.0)).next()
        if isinstance(error, TemporaryError) and error.after is not None:
            wait = max(wait, error.after)
        for gap in chain:
            self._not_before[gap.number] = self._clock.now() + wait
        self._log.warning(
            "A gap could not be filled yet; it is tried again.", gap=first.number, gaps=len(chain), log=str(first.log),
            error=text, exc_info=unexpected,
        )  # fmt: skip
