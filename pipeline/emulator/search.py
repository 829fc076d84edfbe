"""Searches: queries over what was generated, in pages that are asked for one by one."""

from __future__ import annotations

import base64
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.comparisons import SelectorError
from pipeline.emulator.forms import answer, body_of, form_of, wrong
from pipeline.emulator.history import Entry, History
from pipeline.emulator.lcql import Query, QueryError, parse_query
from pipeline.emulator.sensors import UUID
from pipeline.emulator.state import Cloud, Org

STREAMS = {"event": "event", "detect": "detect", "detection": "detect", "audit": "audit"}
PAGE = 200
SCAN = 10_000
"""Records that one page looks at."""
CONCURRENT = 10
RESUMABLE = 86_400
"""Seconds from its start in which a search can be gone on with."""
KEPT = 500
"""Searches of an organization; older ones are forgotten."""
PRICED = 200_000
"""Records that cost a cent."""


@dataclass
class Search:
    """One search. Times are Unix seconds."""

    id: str
    oid: str
    text: str
    query: Query
    stream: str
    start: int
    end: int
    by: str
    agent: str
    submitted: float = field(default_factory=time.time)
    asked: int = 0
    """Times that its current page was asked for."""
    pages: int = 0
    scanned: int = 0
    rows: int = 0
    done: bool = False
    idle: bool = False

    @property
    def state(self) -> str:
        return "idle" if self.idle else "executing"

    def shown(self, scope: int) -> dict[str, Any]:
        now = time.time()
        return {
            "queryId": self.id,
            "state": self.state,
            "holdsSlot": not self.idle,
            "query": self.text,
            "stream": self.stream,
            "startTime": str(self.start),
            "endTime": str(self.end),
            "submittedBy": self.by,
            "userAgent": self.agent,
            "submittedAt": int(self.submitted * 1000),
            "runningForMs": int((now - self.submitted) * 1000),
            "pagesCompleted": self.pages,
            "hasMorePages": not self.done,
            "progressPercent": min(100, 100 * self.scanned // max(scope, 1)),
            "eventsScanned": self.scanned,
            "billedEvents": 0,
            "slotExpiresAt": int((now + 600) * 1000),
            "resumableUntil": int((self.submitted + RESUMABLE) * 1000),
        }


class SearchService:
    """What knobs turn: `page` (rows), `concurrent` and `polls`, the number of answers without a result before each page."""

    def __init__(self, cloud: Cloud, access: Access, history: History) -> None:
        self.page = PAGE
        self.concurrent = CONCURRENT
        self.polls = 1
        self._cloud = cloud
        self._access = access
        self._history = history
        self._searches: dict[str, Search] = {}

    def routes(self) -> list[web.RouteDef]:
        one = f"/v1/search/{{id:{UUID}}}"
        return [
            web.post("/v1/search/validate", self.validate),
            web.post("/v1/search", self.begin),
            web.post("/v1/search/", self.begin),
            web.get(one, self.poll),
            web.delete(one, self.cancel),
            web.get("/v1/search/{oid}/queries", self.queries),
            web.get("/v1/search/{oid}/limits", self.limits),
        ]

    async def validate(self, request: web.Request) -> web.Response:
        """What is wrong with a query is told in a 200; what is right with it is priced."""
        self._access.bearer(request)
        body = await body_of(request)
        org = self._access.named(request, str(body.get("oid", "")), "insight.evt.get")
        start, end = _times(body)
        shown = {"query": body.get("query"), "startTime": str(start), "endTime": str(end)}
        try:
            parse_query(str(body.get("query", "")))
        except QueryError as error:
            return answer({**shown, "error": f"failed to transcode query: {error}"})
        found = self._history.between(org.oid, _stream(body), start, end)
        stats = {
            "batchesInScope": -(-len(found) // SCAN),
            "eventsInScope": len(found),
            "bytesInScope": sum(len(one.record.raw) for one in found),
        }
        return answer({**shown, "stats": stats, "estimatedPrice": _price(len(found))})

    async def begin(self, request: web.Request) -> web.Response:
        self._access.bearer(request)
        body = await body_of(request)
        org = self._access.named(request, str(body.get("oid", "")), "insight.evt.get")
        start, end = _times(body)
        text = str(body.get("query", ""))
        try:
            query = parse_query(text)
        except QueryError as error:
            raise refuse(web.HTTPInternalServerError, f"failed to transcode query: {error}") from None
        if sum(not search.idle for search in self._open(org)) >= self.concurrent:
            raise refuse(web.HTTPTooManyRequests, "maximum concurrent queries reached")
        search = Search(
            id=str(uuid.uuid4()),
            oid=org.oid,
            text=text,
            query=query,
            stream=_stream(body),
            start=start,
            end=end,
            by=self._access.bearer(request).key.name,
            agent=request.headers.get("User-Agent", ""),
        )
        for old in self._open(org)[: -KEPT + 1]:
            del self._searches[old.id]
        self._searches[search.id] = search
        return answer({"queryId": search.id})

    async def poll(self, request: web.Request) -> web.Response:
        search = self._find(request)
        if search.asked < self.polls:
            search.asked, search.idle = search.asked + 1, False
            return answer({"completed": False, "nextPollInMs": 50, "results": []})
        search.asked = 0
        token = (await form_of(request)).text("token")
        try:
            item = self._run(search, _place(token) if token else (0, -1))
        except SelectorError as error:
            return answer({"completed": True, "nextPollInMs": 0, "results": [], "error": str(error)})
        search.pages, search.idle = search.pages + 1, True
        return answer({"completed": True, "nextPollInMs": 0, "results": [item]})

    async def cancel(self, request: web.Request) -> web.Response:
        del self._searches[self._find(request).id]
        return answer({"success": True})

    async def queries(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.evt.get")
        form = await form_of(request)
        wanted = form.text("state") or "all"
        limit, offset = min(form.number("limit", 50), 200), form.number("offset", 0)
        opened = self._open(org)[::-1]
        page = opened[offset : offset + limit]
        return answer(
            {
                "oid": org.oid,
                "limit": self.concurrent,
                "slotsHeld": sum(not search.idle for search in opened),
                "count": len(opened),
                "truncated": len(opened) > offset + limit,
                "queries": [
                    search.shown(len(self._history.between(org.oid, search.stream, search.start, search.end)))
                    for search in page
                    if wanted in ("all", search.state)
                ],
            }
        )

    async def limits(self, request: web.Request) -> web.Response:
        self._access.org(request, "insight.evt.get")
        return answer(
            {
                "concurrency": {"maxConcurrentQueries": self.concurrent},
                "pagination": {"resultsPerPage": self.page, "maxPageDurationSeconds": 30, "maxCursorBytes": 4096},
                "retention": {"resumableForSeconds": RESUMABLE, "pageResultsForSeconds": 900},
                "execution": {
                    "maxQueryDurationSeconds": 480,
                    "maxAggregationDurationSeconds": 540,
                    "maxResponseBytes": None,
                },
                "request": {"maxRequestBodyBytes": 102_400},
                "capabilities": {"openQueryListing": True},
            }
        )

    def _run(self, search: Search, after: tuple[int, int]) -> dict[str, Any]:
        """Look on behind a place until a page is full, or has looked at enough."""
        began = time.perf_counter()
        found = self._history.between(search.oid, search.stream, search.start, search.end)
        scope = [one for one in found if one[:2] > after]
        rows: list[dict[str, Any]] = []
        room = self.page if search.query.limit is None else min(self.page, search.query.limit - search.rows)
        size = looked = 0
        for one in scope[:SCAN]:
            if len(rows) >= room:
                break
            looked += 1
            size += len(one.record.raw)
            if (doc := self._matched(search, one)) is not None:
                projected = bool(search.query.columns)
                mtd = {"id": one.record.id, "ts": one.time_ms, "stream": search.stream, "projection": projected}
                rows.append({"mtd": mtd, "data": search.query.row(doc)})
        search.scanned += looked
        search.rows += len(rows)
        search.done = looked == len(scope) or search.rows == search.query.limit
        stats = {
            "eventsScanned": looked,
            "eventsMatched": len(rows),
            "eventsProcessed": looked,
            "rulesEvaluated": looked,
            "bytesScanned": size,
            "walltime": int((time.perf_counter() - began) * 1000),
            "billedEvents": 0,
            "freeEvents": looked,
            "batchesProcessed": 1,
            "estimatedPrice": _price(0),
        }
        batches = {"batchesInScope": -(-len(found) // SCAN), "batchesCompleted": search.pages + 1}
        item: dict[str, Any] = {
            "searchResultId": str(uuid.uuid4()),
            "created": int(time.time() * 1000),
            "type": "events",
            "rows": rows,
            "facets": None,
            "timeseries": None,
            "stats": {
                **stats,
                "cumulativeStats": {**stats, "eventsScanned": search.scanned, "eventsMatched": search.rows, **batches},
            },
        }
        if not search.done:
            item["nextToken"] = base64.urlsafe_b64encode(orjson.dumps(scope[looked - 1][:2])).decode()
        return item

    def _matched(self, search: Search, one: Entry) -> Any:
        """Return the record, decoded, if the query takes it."""
        query, record = search.query, one.record
        if (query.types and record.event_type not in query.types) or (query.sids and record.sid not in query.sids):
            return None
        if query.sensor is not None:
            station = self._cloud.orgs[search.oid].roster.stations.get(record.sid)
            if station is None or not query.sensor(station.fields()):
                return None
        doc = orjson.loads(record.raw)
        return doc if query.holds(doc) else None

    def _open(self, org: Org) -> list[Search]:
        """Return the searches of an organization that are not over, oldest first."""
        now = time.time()
        for old in [one for one in self._searches.values() if one.submitted + RESUMABLE < now]:
            del self._searches[old.id]
        return [search for search in self._searches.values() if search.oid == org.oid]

    def _find(self, request: web.Request) -> Search:
        grant = self._access.bearer(request)
        search = self._searches.get(request.match_info["id"])
        if search is None or search.oid not in grant.permissions:
            raise refuse(web.HTTPNotFound, "unknown query")
        self._access.named(request, search.oid, "insight.evt.get")
        return search


def _price(records: int) -> dict[str, Any]:
    return {"value": round(records / PRICED, 4), "currency": "USD cents"}


def _stream(body: dict[str, Any]) -> str:
    name = str(body.get("stream") or "event")
    if name not in STREAMS:
        raise wrong(f"unknown stream {name[:40]}")
    return STREAMS[name]


def _times(body: dict[str, Any]) -> tuple[int, int]:
    """Return the time asked for, in Unix seconds; they travel as texts."""
    try:
        start, end = int(float(body["startTime"])), int(float(body["endTime"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise wrong("startTime and endTime are Unix seconds") from None
    if start > end or end > 1 << 36:
        raise wrong("startTime is after endTime, or they are not in seconds")
    return start, end


def _place(token: str) -> tuple[int, int]:
    try:
        time_ms, number = orjson.loads(base64.urlsafe_b64decode(token))
        return int(time_ms), int(number)
    except (ValueError, TypeError):
        raise wrong("invalid token") from None
