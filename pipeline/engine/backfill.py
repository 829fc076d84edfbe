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
from pipeline.core.errors import PermanentError, PipelineError, RequestRefusedError, TemporaryError
from pipeline.core.source import Source
from pipeline.engine.dedupe import Dedupe
from pipeline.engine.gaps import SHED, Gap, GapLedger
from pipeline.engine.intake import Intake
from pipeline.kit.backoff import Backoff
from pipeline.kit.log import Logger
from pipeline.limacharlie.backfill import backfill_config

LOOK = 1.0
"""Seconds between two looks at the ledger."""
AT_ONCE = 2
"""Gaps that are filled at the same time, of different logs."""
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
                for gap in self._due():
                    if len(self._running) >= AT_ONCE:
                        break
                    if gap.log not in self._running:
                        self._running[gap.log] = group.create_task(self._fill(gap))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await stopping.wait()
            for task in self._running.values():
                task.cancel()

    def want(self, numbers: Iterable[int] | None) -> list[Gap]:
        """Fill these gaps, or all that are not, as soon as that makes sense; returns them.

        Raises `RequestRefusedError` where one cannot be filled, and then asks for none.
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
            gap.wanted, gap.attempts, gap.text = True, 0, ""
            if gap.state != "filling":
                gap.state = "closed"
            self._not_before.pop(gap.number, None)
            self._gaps.changed(gap)
        return asked

    def _known(self, number: int) -> Gap:
        gap = self._gaps.get(number)
        if gap is None:
            raise RequestRefusedError(f"there is no gap {number}", fix="`lc-pipeline gaps` lists them.")
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

    def _due(self) -> list[Gap]:
        now = self._clock.now()
        return [gap for gap in self._gaps if gap.state == "closed" and self._is_due(gap, now)]

    def _is_due(self, gap: Gap, now: float) -> bool:
        place = self.places.get(gap.log)
        if place is None or gap.end is None or now < self._not_before.get(gap.number, 0.0):
            return False
        if not gap.wanted and not (place.automatic and gap.reason not in BY_REQUEST):
            return False
        config = backfill_config(getattr(place.source.config, "backfill", False))
        return gap.wanted or now >= gap.end + max(config.delay, config.margin)

    async def _fill(self, gap: Gap) -> None:
        if refusal := self._refusal(gap):  # asked for while we were not there to say so
            self._failed(gap, RequestRefusedError(refusal))
            self._gaps.changed(gap)
            return
        gap.state = "filling"
        gap.attempts += 1
        if not gap.progress:
            gap.counted = [0, 0, 0]
        gap.fetched, gap.known, gap.added = gap.counted
        self._gaps.changed(gap)
        try:
            await self._fetch(gap, self.places[gap.log])
        except asyncio.CancelledError:
            gap.state = "closed"
            raise
        except Exception as error:
            self._failed(gap, error)
        else:
            gap.state, gap.text, gap.progress, gap.wanted = "filled", "", "", False
            self._log.info(
                "A gap is filled.",
                gap=gap.number, log=str(gap.log), fetched=gap.fetched, known=gap.known, added=gap.added, distinct=True,
            )  # fmt: skip
        finally:
            self._gaps.changed(gap)

    async def _fetch(self, gap: Gap, place: Filling) -> None:
        config = backfill_config(getattr(place.source.config, "backfill", False))
        assert gap.end is not None
        start = gap.start - config.margin
        end = max(min(gap.end + config.margin, self._clock.now()), start + 1.0)
        pieces = place.source.history(place.org, start, end, gap.progress)
        async for piece in pieces:
            gap.fetched += len(piece.records)
            fresh = self._fresh(gap.log, place, piece.records)
            gap.known += len(piece.records) - len(fresh)
            if fresh:
                receipt = await place.intake.send(fresh, org=place.org.name, origin="backfill")
                gap.added += receipt.count
            if piece.progress:
                gap.progress = piece.progress
                gap.counted = [gap.fetched, gap.known, gap.added]
            self._gaps.changed(gap)

    def _fresh(self, log: LogId, place: Filling, records: Sequence[bytes]) -> list[bytes]:
        """Those that a route does not know; the step of each route decides again."""
        batch = Batch((), log, place.source.config.stream, 0.0, "backfill", 0)
        known = [dedupe.knows(batch, records) for dedupe in place.dedupes if dedupe is not None]
        return [raw for index, raw in enumerate(records) if not all(one[index] for one in known)]

    def _failed(self, gap: Gap, error: Exception) -> None:
        gap.text = str(error) or type(error).__name__
        known = isinstance(error, PipelineError)
        if isinstance(error, PermanentError) or gap.attempts >= TRIES:
            gap.state, gap.wanted = "given_up", False
            self._log.error(
                "A gap could not be filled and is given up.", gap=gap.number, log=str(gap.log), error=gap.text,
                fix=f"Once that is changed: lc-pipeline gaps fill SPOOL {gap.number}", exc_info=None if known else error,
                distinct=True,
            )  # fmt: skip
            return
        gap.state = "closed"
        wait = self._waits.setdefault(gap.number, Backoff(10.0, 1800.0)).next()
        if isinstance(error, TemporaryError) and error.after is not None:
            wait = max(wait, error.after)
        self._not_before[gap.number] = self._clock.now() + wait
        self._log.warning(
            "A gap could not be filled yet; it is tried again.", gap=gap.number, log=str(gap.log), error=gap.text,
            exc_info=None if known else error,
        )  # fmt: skip
