"""One running search: its pages, how far it is, and how to go on after a cut."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import orjson
import structlog

from pipeline.core.errors import (
    NotFoundError,
    PipelineError,
    RateLimitedError,
    RequestRefusedError,
    TemporaryError,
    UnavailableError,
)
from pipeline.kit.backoff import Backoff
from pipeline.limacharlie import records
from pipeline.limacharlie.answers import Doc, segment, table, tables, text
from pipeline.limacharlie.transport import Transport

PAGE_TIME = 900.0
"""Seconds that LimaCharlie may work on one page; it ends its longest queries after 9 minutes."""
_TIMEOUT = 120.0
_CANCEL_TIME = 10.0
_POLL = (0.5, 30.0)
"""Seconds between two polls: at least, and at most."""
_RESUMES = 3
"""Times that one run goes on by itself after it was cut off, before a page comes."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for, and in which whole Unix seconds."""

    text: str
    start: int
    end: int
    stream: str = "event"

    def body(self, oid: str) -> Doc:
        # The seconds travel as text here.
        return {
            "oid": oid,
            "query": self.text,
            "startTime": str(self.start),
            "endTime": str(self.end),
            "stream": self.stream,
        }


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a search was: all pages before ``page`` were handed out. Made of plain values, to be kept as one likes."""

    query: Query
    token: str
    """Names the next page; "" for the first one."""
    page: int = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search is. Numbers are None where LimaCharlie does not tell."""

    pages: int = 0
    """Pages that came."""
    rows: int = 0
    """Rows in them."""
    fraction: float | None = None
    """From 0 to 1; a query that sorts or counts has one page, and is at 0 until it comes."""
    scanned: int | None = None
    """Events read."""
    billed: int | None = None
    """Those of them that cost money."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record that was found, or the columns of a projection."""

    data: Doc
    at: float | None
    """Unix seconds."""
    stream: str
    row_id: str
    projected: bool


@dataclass(frozen=True, slots=True)
class Page:
    number: int
    rows: Sequence[Row]
    items: Sequence[Doc] = field(repr=False)
    """As they came: of the types ``events``, ``facets``, ``timeline``."""


class SearchRun:
    """Use it with ``async with``: it holds one of an organization's few places for searches, and gives it back at the end."""

    def __init__(
        self,
        transport: Transport,
        oid: str,
        base: Callable[[], Awaitable[str]],
        query: Query,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.query = query
        self.query_id = ""
        """LimaCharlie's name for it."""
        self.progress = Progress(pages=checkpoint.page - 1 if checkpoint else 0)
        self.checkpoint: Checkpoint | None = checkpoint or Checkpoint(query, "")
        """Where to go on if this run is cut off: it moves when the page after is asked for, and is None after the last one."""
        self._transport = transport
        self._oid = oid
        self._find_base = base
        self._base = ""

    async def __aenter__(self) -> Self:
        self._base = await self._find_base()
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._cancel()

    async def rows(self) -> AsyncIterator[Row]:
        """Walk through all rows, from page to page. Raises what `pages` raises."""
        async for page in self.pages():
            for row in page.rows:
                yield row

    async def pages(self) -> AsyncIterator[Page]:
        """Walk through the pages; each comes whole or not at all, also across a cut, after which the search is started again at it.

        Raises `RequestRefusedError` where LimaCharlie gives the search up or a page takes longer than `PAGE_TIME`, and
        `UnavailableError` where it cannot be reached for longer.
        """
        while self.checkpoint is not None:
            place = self.checkpoint
            items = await self._page_through_cuts(place)
            page = Page(place.page, [row for item in items for row in _rows(item)], items)
            self.progress = _progress(self.progress, page)
            token = next((found for item in reversed(items) if (found := text(item, "nextToken"))), "")
            if token and token == place.token:
                raise UnavailableError("The search does not lead on: the same token came twice.", where=self.query_id)
            yield page
            self.checkpoint = Checkpoint(self.query, token, place.page + 1) if token else None

    async def _page_through_cuts(self, place: Checkpoint) -> Sequence[Doc]:
        backoff = Backoff(base=1.0, cap=15.0)
        while True:
            try:
                if not self.query_id:
                    await self._start()
                return await self._page(place)
            except RateLimitedError:
                raise
            except (TemporaryError, NotFoundError):
                if backoff.tries >= _RESUMES:
                    raise
            await self._cancel()
            await asyncio.sleep(backoff.next())

    async def _start(self) -> None:
        body = self.query.body(self._oid) | {"paginated": True}
        answer = table(
            await self._transport.request(
                "POST", "/search", json=body, base=self._base, timeout=_TIMEOUT, explain=explain
            ),
            "POST search",
        )
        self._raise_error(answer)
        self.query_id = text(answer, "queryId") or text(answer, "query_id")
        if not self.query_id:
            raise UnavailableError("LimaCharlie did not name the search that it started.", where="POST search")

    async def _page(self, place: Checkpoint) -> Sequence[Doc]:
        """Poll until a page is whole. What a reply before that holds comes again, so it is kept once, by its id or content."""
        path = f"/search/{segment(self.query_id)}"
        query = {"token": place.token} if place.token else None
        items: dict[str, Doc] = {}
        deadline = self._transport.clock.monotonic() + PAGE_TIME
        while True:
            answer = table(
                await self._transport.request("GET", path, query=query, base=self._base, timeout=_TIMEOUT), path
            )
            self._raise_error(answer)
            for item in tables(answer, "results", path):
                items[text(item, "searchResultId") or _digest(item)] = item
            if answer.get("completed") is True:
                return list(items.values())
            if self._transport.clock.monotonic() > deadline:
                raise RequestRefusedError(
                    "LimaCharlie did not finish a page of the search in time.", where=path, fix="Narrow the range."
                )
            wait = answer.get("nextPollInMs")
            await asyncio.sleep(min(max(wait / 1000 if isinstance(wait, int | float) else 1.0, _POLL[0]), _POLL[1]))

    async def _cancel(self) -> None:
        """Give the place back. A failure here is not the caller's: the search ends by itself, only later."""
        query_id, self.query_id = self.query_id, ""
        if not query_id:
            return
        try:
            async with asyncio.timeout(_CANCEL_TIME):
                await self._transport.request("DELETE", f"/search/{segment(query_id)}", base=self._base)
        except (PipelineError, TimeoutError) as error:
            structlog.get_logger(__name__).warning(
                "A search could not be cancelled, and holds its place until it ends.",
                query_id=query_id,
                error=str(error) or "no answer in time",
            )

    def _raise_error(self, answer: Doc) -> None:
        if problem := answer.get("error"):
            raise RequestRefusedError(
                f"LimaCharlie gave the search up: {self._transport.scrub(str(problem))}.",
                where=self.query_id or "search",
            )


def explain(_status: int, error: PipelineError) -> PipelineError:
    """Take a 500 that says that the query is wrong for what it is."""
    if isinstance(error, UnavailableError) and "transcode" in error.what:
        return RequestRefusedError(error.what, where="query", fix="Correct the query.")
    return error


def _rows(item: Doc) -> list[Row]:
    if item.get("type", "events") != "events":
        return []
    found = item.get("rows")
    rows = []
    for row in found if isinstance(found, list) else []:
        if not isinstance(row, dict):
            continue
        mtd = row.get("mtd")
        mtd = mtd if isinstance(mtd, dict) else {}
        at = records.parse_time(mtd.get("ts"))
        data = row.get("data")
        rows.append(
            Row(
                data=data if isinstance(data, dict) else {},
                at=None if at is None else at / 1000,
                stream=text(mtd, "stream"),
                row_id=text(mtd, "id"),
                projected=mtd.get("projection") is True,
            )
        )
    return rows


def _progress(before: Progress, page: Page) -> Progress:
    stats: dict[str, Any] = {}
    for item in page.items:
        found = item.get("stats")
        if isinstance(found, dict):
            total = found.get("cumulativeStats")
            stats |= total if isinstance(total, dict) else {}
    done, scope = _count(stats, "batchesCompleted"), _count(stats, "batchesInScope")
    return Progress(
        pages=page.number,
        rows=before.rows + len(page.rows),
        fraction=min(1.0, done / scope) if done is not None and scope else before.fraction,
        scanned=_count(stats, "eventsScanned", before.scanned),
        billed=_count(stats, "billedEvents", before.billed),
    )


def _count(stats: Doc, key: str, otherwise: int | None = None) -> int | None:
    found = stats.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else otherwise


def _digest(item: Doc) -> str:
    return hashlib.blake2b(orjson.dumps(item), digest_size=16).hexdigest()
