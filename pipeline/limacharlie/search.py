"""Searching the past with LCQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.errors import RequestRefusedError, UnavailableError, UsageError
from pipeline.limacharlie.answers import Doc, segment, table, tables, text
from pipeline.limacharlie.hive import Hive, HiveRecord
from pipeline.limacharlie.organization import Organization
from pipeline.limacharlie.search_run import Checkpoint, Query, SearchRun, explain
from pipeline.limacharlie.times import Period, When
from pipeline.limacharlie.transport import Transport

__all__ = ["Checkpoint", "Estimate", "Query", "SavedQuery", "Search", "SearchRun"]

_TIMEOUT = 120.0
_PAGE = 200
"""The most queries that LimaCharlie lists at once."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a query would read and cost."""

    price: float | None
    currency: str
    """Like ``USD cents``."""
    stats: Doc = field(repr=False)
    """``eventsInScope``, ``bytesInScope`` …"""


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """A query that is kept under a name, in the hive ``query``."""

    name: str
    query: str
    stream: str = "event"
    start: float | None = None
    """Unix seconds, where the query has a range of its own."""
    end: float | None = None
    description: str = ""


class Search:
    """Needs ``insight.evt.get``; saved queries need ``query.get``, ``query.set`` and ``query.del``.

    A query is ``sensors | event types | filter``, like ``plat == windows | NEW_PROCESS | event/COMMAND_LINE contains "psexec"``,
    with a projection after another bar if wanted; its range of time is given beside it.

    All raise what `Transport.request` raises, and `RequestRefusedError` for a query that LimaCharlie does not understand.
    """

    def __init__(self, transport: Transport, oid: str, organization: Organization) -> None:
        self._transport = transport
        self._oid = oid
        self._organization = organization
        self._saved = Hive(transport, "query", oid)

    async def validate(self, query: str, start: When = "24h", end: When = "now", *, stream: str = "event") -> Estimate:
        """Check a query and tell what it would cost, without running it."""
        asked = self._query(query, start, end, stream)
        answer = table(
            await self._transport.request(
                "POST",
                "/search/validate",
                json=asked.body(self._oid),
                base=await self._base(),
                repeatable=True,
                reads=True,
                timeout=_TIMEOUT,
                explain=explain,
            ),
            "POST search/validate",
        )
        if problem := answer.get("error"):
            raise RequestRefusedError(
                f"LimaCharlie does not understand the query: {self._transport.scrub(str(problem))}.", where="query"
            )
        price = answer.get("estimatedPrice")
        price = price if isinstance(price, dict) else {}
        amount = price.get("value", price.get("amount"))
        stats = answer.get("stats")
        return Estimate(
            price=float(amount) if isinstance(amount, int | float) else None,
            currency=text(price, "currency"),
            stats=stats if isinstance(stats, dict) else {},
        )

    def run(self, query: str, start: When = "24h", end: When = "now", *, stream: str = "event") -> SearchRun:
        """Prepare a search; it runs within ``async with``, and is cancelled at its end in any case.

        ::

            async with account.search.run("* | NEW_PROCESS | / exists", "last 24 hours") as found:
                async for row in found.rows():
                    print(row.data, found.progress)
        """
        return SearchRun(self._transport, self._oid, self._base, self._query(query, start, end, stream))

    def resume(self, checkpoint: Checkpoint) -> SearchRun:
        """Go on with a search that was cut off, after the last page that `SearchRun.checkpoint` knew of.

        LimaCharlie keeps the place for a day at most; then the first page raises `RequestRefusedError`.
        """
        return SearchRun(self._transport, self._oid, self._base, checkpoint.query, checkpoint)

    async def run_saved(self, name: str, start: When | None = None, end: When | None = None) -> SearchRun:
        """Prepare a saved query, over its own range unless another is given; without either, over the last 24 hours."""
        saved = await self.saved(name)
        first = start if start is not None else saved.start
        last = end if end is not None else saved.end
        return self.run(
            saved.query,
            "24h" if first is None else first,
            "now" if last is None else last,
            stream=saved.stream,
        )

    async def saved(self, name: str) -> SavedQuery:
        """One saved query. Raises `NotFoundError`."""
        return _saved(await self._saved.get(name))

    async def all_saved(self) -> dict[str, SavedQuery]:
        """All saved queries by name."""
        return {name: _saved(record) for name, record in (await self._saved.list()).items()}

    async def save(self, query: SavedQuery) -> None:
        """Keep a query, or replace the one of its name."""
        data: Doc = {"query": query.query, "stream": query.stream}
        for key, when in (("start", query.start), ("end", query.end)):
            if when is not None:
                data[key] = int(when)
        if query.description:
            data["description"] = query.description
        await self._saved.put(HiveRecord(query.name, data, enabled=True))

    async def delete_saved(self, name: str) -> None:
        """Forget a saved query. Raises `NotFoundError`."""
        await self._saved.delete(name)

    async def open_queries(self, state: str = "all") -> AsyncIterator[Doc]:
        """Walk through searches that are open: ``all``, or those ``executing`` (they hold a place) or ``idle``."""
        path = f"/search/{self._oid}/queries"
        offset = 0
        seen: set[str] = set()
        while True:
            query = {"state": state, "limit": str(_PAGE), "offset": str(offset)}
            answer = await self._transport.request("GET", path, query=query, base=await self._base())
            known = len(seen)
            for doc in tables(answer, "queries", path):
                # Searches end while we read, and move the others up.
                if (query_id := text(doc, "queryId")) not in seen:
                    seen.add(query_id)
                    yield doc
            # A page without news is the last one whatever it says, or else there might be no last one.
            if answer.get("truncated") is not True or len(seen) == known:
                return
            offset += _PAGE

    async def cancel(self, query_id: str) -> None:
        """End a search; one that is over is no error to LimaCharlie."""
        path = f"/search/{segment(query_id)}"
        await self._transport.request("DELETE", path, base=await self._base(), repeatable=True)

    async def limits(self) -> Doc:
        """How many searches may run at once, for how long, and how large their pages are."""
        path = f"/search/{self._oid}/limits"
        return table(await self._transport.request("GET", path, base=await self._base()), path)

    def _query(self, query: str, start: When, end: When, stream: str) -> Query:
        if not query.strip():
            raise UsageError("The query is empty.")
        first, last = Period.of(start, end, self._transport.clock.now()).seconds()
        return Query(query, first, last, stream)

    async def _base(self) -> str:
        return f"{await self._organization.service('search')}/v1"


def _saved(record: HiveRecord) -> SavedQuery:
    data: dict[str, Any] = record.data or {}
    query = text(data, "query")
    if not query:
        raise UnavailableError("The saved query has no text.", where=record.name)
    start, end = (found if isinstance(found := data.get(key), int | float) else None for key in ("start", "end"))
    return SavedQuery(record.name, query, text(data, "stream") or "event", start, end, text(data, "description"))
