"""Replay: a rule, or a query, over given events or over what was generated."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from aiohttp import web

from pipeline.emulator.access import Access
from pipeline.emulator.forms import answer, body_of, wrong
from pipeline.emulator.history import History
from pipeline.emulator.hives import Hives
from pipeline.emulator.lcql import QueryError, parse_query
from pipeline.emulator.search import STREAMS
from pipeline.emulator.sensors import select
from pipeline.emulator.state import Org
from pipeline.rules.compile import compile_rule
from pipeline.rules.condition import RuleError
from pipeline.rules.paths import TooComplex

PAGE = 1000
"""Results in one answer to a query that is asked in pages."""

DAY = 86_400


class Replay:
    """Answers what is posted as JSON to the replay service."""

    def __init__(self, access: Access, hives: Hives, history: History) -> None:
        self._access = access
        self._hives = hives
        self._history = history

    async def serve(self, request: web.Request) -> web.Response:
        self._access.bearer(request)
        body = await body_of(request)
        org = self._access.named(request, str(body.get("oid", "")), "insight.evt.get")
        began = time.perf_counter()
        source = _object(body.get("event_source"))
        if body.get("query"):
            return answer(self._query(org, body, source))
        try:
            rule = self._rule(org, _object(body.get("rule_source")))
            holds = compile_rule(_condition(rule))
        except RuleError as error:
            return answer({"error": f"error parsing rule: {error}", "stats": _stats(0, 0, began), "did_match": False})
        limit = body.get("limit_event") or body.get("limit_eval") or None
        evaluated, results = 0, []
        for doc in self._events(org, source):
            if limit is not None and evaluated >= limit:
                break
            evaluated += 1
            if _applies(rule, doc) and _certainly(holds, doc):
                results.append({"action": "report", "data": doc, "rule": rule.get("name", "")})
        return answer(
            {
                "error": "",
                "stats": _stats(evaluated, len(results), began),
                "did_match": bool(results),
                "is_dry_run": bool(body.get("is_dry_run")),
                "results": [] if body.get("is_dry_run") else results,
                "traces": [] if body.get("trace") else None,
            }
        )

    def _query(self, org: Org, body: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
        began = time.perf_counter()
        try:
            query = parse_query(str(body["query"]))
        except QueryError as error:
            return {"error": f"failed to transcode query: {error}", "results": [], "stats": _stats(0, 0, began)}
        if body.get("is_validation"):
            return {"error": "", "results": [], "stats": _stats(0, 0, began), "transcoded_rule": query.rule}
        cursor = str(_object(source.get("sensor_events")).get("cursor", ""))
        stations = org.roster.stations
        matched = []
        evaluated = 0
        for entry in self._history.find(org.oid, _stream(source), lambda _: True):
            record = entry.record
            if (query.types and record.event_type not in query.types) or (query.sids and record.sid not in query.sids):
                continue
            if query.sensor and (record.sid not in stations or not query.sensor(stations[record.sid].fields())):
                continue
            evaluated += 1
            doc = orjson.loads(record.raw)
            if query.holds(doc):
                matched.append({"data": query.row(doc)})
        start = _offset(cursor)
        page = matched[start : start + PAGE] if cursor else matched[: query.limit]
        more = bool(cursor) and start + PAGE < len(matched)
        return {
            "error": "",
            "results": [] if body.get("is_dry_run") else page,
            "cursor": base64.urlsafe_b64encode(b"%d" % (start + PAGE)).decode() if more else "",
            "stats": _stats(evaluated, len(matched), began),
            "transcoded_rule": query.rule,
        }

    def _rule(self, org: Org, source: dict[str, Any]) -> dict[str, Any]:
        if source.get("rule"):
            return _object(source["rule"])
        name = str(source.get("rule_name") or "")
        for hive in ("dr-general", "dr-managed", "dr-service"):
            record = self._hives.of(hive, org.oid).find(name)
            if record is not None:
                return {**record.data, "name": name}
        raise wrong(f"unknown rule {name[:80]!r}")

    def _events(self, org: Org, source: dict[str, Any]) -> Iterable[Any]:
        given = source.get("events")
        if isinstance(given, list):
            return given
        asked = _object(source.get("sensor_events"))
        start, end = int(asked.get("start_time") or time.time() - DAY), int(asked.get("end_time") or time.time())
        wanted = {station.sid for station in select(org.roster, str(asked.get("selector") or "*"))}
        if asked.get("sid"):
            wanted &= {str(asked["sid"])}
        stream = _stream(source)
        return (
            orjson.loads(entry.record.raw)
            for entry in self._history.between(org.oid, stream, start, end)
            if entry.record.sid in wanted or stream == "audit"
        )


def _condition(rule: dict[str, Any]) -> dict[str, Any]:
    """Return the rule's condition without what says to which records it applies."""
    detect = _object(rule.get("detect", rule))
    return {name: value for name, value in detect.items() if name not in ("event", "events", "target")}


def _applies(rule: dict[str, Any], doc: Any) -> bool:
    detect = _object(rule.get("detect", rule))
    wanted = detect.get("events") or ([detect["event"]] if detect.get("event") else [])
    routing = doc.get("routing") if isinstance(doc, dict) else None
    return not wanted or (isinstance(routing, dict) and routing.get("event_type") in wanted)


def _certainly(holds: Callable[[Any], bool], doc: Any) -> bool:
    try:
        return holds(doc)
    except TooComplex:
        return False


def _stats(evaluated: int, matched: int, began: float) -> dict[str, Any]:
    return {
        "n_proc": evaluated,
        "n_shard": 1,
        "n_eval": evaluated,
        "n_scan": evaluated,
        "n_matched": matched,
        "n_billed": 0,
        "n_free": evaluated,
        "wall_time": round(time.perf_counter() - began, 3),
        "estimated_price": {"value": 0, "currency": "USD cents"},
    }


def _stream(source: dict[str, Any]) -> str:
    name = str(source.get("stream") or "event")
    if name not in STREAMS:
        raise wrong(f"unknown stream {name[:40]}")
    return STREAMS[name]


def _offset(cursor: str) -> int:
    if cursor in ("", "-"):
        return 0
    try:
        return int(base64.urlsafe_b64decode(cursor))
    except ValueError:
        raise wrong("the cursor is not one of ours") from None


def _object(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong("expected a JSON object")
    return value
