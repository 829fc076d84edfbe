"""Looking back: the history of sensors, detections and audit, in pages."""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.forms import Form, answer, array, form_of, packed, wrong
from pipeline.emulator.history import Entry, History
from pipeline.emulator.records import Record
from pipeline.emulator.sensors import UUID
from pipeline.emulator.state import Org

PAGE = 1000
PAGE_BYTES = 8 << 20

BATCH_LOCATIONS = 100
DAYS = (1, 7, 30, 365)

OBJECTS = {
    "domain": ("DOMAIN_NAME",),
    "ip": ("IP_ADDRESS",),
    "file_hash": ("HASH",),
    "file_path": ("FILE_PATH",),
    "file_name": ("FILE_PATH",),
    "user": ("USER_NAME",),
    "service_name": ("SVC_NAME",),
    "package_name": ("PACKAGE_NAME",),
    "hostname": ("HOST_NAME",),
}
"""Kinds of objects, and the keys of events that hold them."""


class InsightService:
    def __init__(self, access: Access, history: History) -> None:
        self._access = access
        self._history = history

    def routes(self) -> list[web.RouteDef]:
        sensor = f"/v1/insight/{{oid}}/{{sid:{UUID}}}"
        return [
            web.get("/v1/insight/{oid}", self.about),
            web.get("/v1/insight/{oid}/detections", self.detections),
            web.get("/v1/insight/{oid}/detections/{id}", self.detection),
            web.get("/v1/insight/{oid}/audit", self.audit),
            web.get("/v1/insight/{oid}/objects/{kind}", self.objects),
            web.post("/v1/insight/{oid}/objects", self.object_batch),
            web.get(f"/v1/insight/event_count/{{oid}}/{{sid:{UUID}}}", self.retention),
            web.get(sensor, self.events),
            web.get(f"{sensor}/overview", self.overview),
            web.get(f"{sensor}/{{atom}}", self.atom),
            web.get(f"{sensor}/{{atom}}/children", self.children),
        ]

    async def about(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.evt.get")
        return answer({"insight_bucket": f"emulated-{org.name}"})

    async def events(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.evt.get")
        form = await form_of(request)
        sid, kind = request.match_info["sid"], form.text("event_type")
        return self._page(org, "event", "events", form, lambda one: one.sid == sid and kind in ("", one.event_type))

    async def detections(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.det.get")
        form = await form_of(request)
        cat = form.text("cat")
        return self._page(org, "detect", "detects", form, lambda one: cat in ("", one.cat))

    async def detection(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.det.get")
        found = self._history.one(org.oid, "detect", request.match_info["id"])
        if found is None:
            raise refuse(web.HTTPNotFound, "detection not found")
        return web.Response(body=found.raw, content_type="application/json")

    async def audit(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "audit.get")
        form = await form_of(request)
        kind, sid = form.text("event_type"), form.text("sid").encode()
        return self._page(
            org, "audit", "events", form, lambda one: kind in ("", one.event_type) and (not sid or sid in one.raw)
        )

    async def overview(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.evt.get")
        start, end = _range(await form_of(request))
        sid = request.match_info["sid"]
        found = self._history.between(org.oid, "event", start, end)
        return answer({"overview": sorted({one.time_ms // 1000 for one in found if one.record.sid == sid})})

    async def retention(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.evt.get")
        start, end = _range(await form_of(request))
        sid = request.match_info["sid"]
        found = [one for one in self._history.between(org.oid, "event", start, end) if one.record.sid == sid]
        return answer({"count": len(found), "by_type": Counter(one.record.event_type for one in found)})

    async def atom(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.evt.get")
        found = self._linked(org, request, b"this")
        if not found:
            raise refuse(web.HTTPNotFound, "no such atom")
        return web.Response(body=b'{"event":%b}' % found[0].record.raw, content_type="application/json")

    async def children(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.evt.get")
        raws = array(one.record.raw for one in self._linked(org, request, b"parent"))
        if (await form_of(request)).flag("is_compressed"):
            return answer({"events": packed(raws)})
        return web.Response(body=b'{"events":%b}' % raws, content_type="application/json")

    def _linked(self, org: Org, request: web.Request, link: bytes) -> list[Entry]:
        sid, needle = request.match_info["sid"], b'"%b":"%b"' % (link, request.match_info["atom"].encode())
        return self._history.find(org.oid, "event", lambda one: one.sid == sid and needle in one.raw)

    async def objects(self, request: web.Request) -> web.Response:
        """How widespread something is, or where it was seen."""
        org = self._access.org(request, "insight.evt.get")
        form = await form_of(request)
        kind, name = request.match_info["kind"], form.need("name")
        wild = form.flag("with_wildcards")
        wanted = _wanted(name, wild=wild, cased=form.flag("case_sensitive", default=True))
        seen = list(self._seen(org, kind, wanted))
        if form.text("info") == "locations":
            limit = form.number("limit", BATCH_LOCATIONS)
            return answer({"type": kind, "name": name, "from_cache": False, **_locations(seen, limit)})
        return answer(
            {
                "type": kind,
                "name": name,
                "from_cache": False,
                **_summary(seen, each=wild and form.flag("per_object", default=True)),
            }
        )

    async def object_batch(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.evt.get")
        form = await form_of(request)
        cased, located = form.flag("case_sensitive", default=True), form.text("info") == "locations"
        limit = min(form.number("limit", BATCH_LOCATIONS), 1000)
        result: dict[str, Any] = {"from_cache": False, **{f"last_{days}_days": {} for days in DAYS}}
        places: dict[str, Any] = {}
        for kind, names in form.object("objects").items():
            for name in names if isinstance(names, list) else []:
                seen = list(self._seen(org, kind, _wanted(str(name), wild=False, cased=cased)))
                for column, value in _summary(seen, each=False).items():
                    result[column].setdefault(kind, {})[name] = value
                places.setdefault(kind, {})[name] = _locations(seen, limit)
        return answer({**result, "locations": places} if located else result)

    def _seen(self, org: Org, kind: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Entry]]:
        if kind not in OBJECTS:
            raise wrong(f"unknown object type {kind[:40]}")
        for one in self._history.find(org.oid, "event", lambda _: True):
            doc = orjson.loads(one.record.raw)
            values = set(_values(doc.get("event"), OBJECTS[kind]))
            if kind == "hostname":
                values = {str(doc.get("routing", {}).get("hostname", ""))}
            for value in values:
                text = value.replace("\\", "/").rpartition("/")[2] if kind == "file_name" else value
                if wanted(text):
                    yield text, one

    def _page(self, org: Org, stream: str, key: str, form: Form, holds: Callable[[Record], bool]) -> web.Response:
        """Answer with the next page. The cursor is the place of the last record of a page, so that new ones do no harm."""
        start, end = _range(form)
        found = [one for one in self._history.between(org.oid, stream, start, end) if holds(one.record)]
        if not form.flag("is_forward", default=True):
            found.reverse()
        after = _place(form.text("cursor", "-"))
        if after is not None:
            forward = form.flag("is_forward", default=True)
            found = [one for one in found if ((one.time_ms, one.number) > after) == forward and one[:2] != after]
        limit = min(form.number("limit", PAGE) or PAGE, PAGE)
        page, size = [], 0
        for one in found[:limit]:
            page.append(one)
            size += len(one.record.raw)
            if size >= PAGE_BYTES:
                break
        raws = array(one.record.raw for one in page)
        cursor = _cursor(page[-1]) if len(page) < len(found) else ""
        if form.flag("is_compressed"):
            return answer({key: packed(raws), "next_cursor": cursor})
        return web.Response(
            body=b'{"%b":%b,"next_cursor":"%b"}' % (key.encode(), raws, cursor.encode()),
            content_type="application/json",
        )


def _range(form: Form) -> tuple[int, int]:
    """Return the time asked for, in Unix seconds."""
    start, end = form.number("start", 0), form.number("end", int(time.time()))
    # what is given in milliseconds would silently find nothing
    if max(start, end) > 1 << 36:
        raise wrong("start and end are in seconds")
    if start > end:
        raise wrong("start is after end")
    return start, end


def _cursor(last: Entry) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(last[:2])).decode()


def _place(cursor: str) -> tuple[int, int] | None:
    if cursor in ("", "-"):
        return None
    try:
        time_ms, number = orjson.loads(base64.urlsafe_b64decode(cursor))
        return int(time_ms), int(number)
    except (ValueError, TypeError):
        raise wrong("the cursor is not one of ours") from None


def _wanted(name: str, *, wild: bool, cased: bool) -> Callable[[str], bool]:
    asked = name if cased else name.lower()
    first, *rest = asked.split("%") if wild else [asked]

    def holds(value: str) -> bool:
        text = value if cased else value.lower()
        if not rest:
            return text == first
        if not text.startswith(first):
            return False
        at = len(first)
        for part in rest[:-1]:
            found = text.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return len(text) - at >= len(rest[-1]) and text.endswith(rest[-1])

    return holds


def _values(value: Any, keys: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inside in value.items():
            if key in keys and isinstance(inside, str):
                yield inside
            else:
                yield from _values(inside, keys)
    elif isinstance(value, list):
        for inside in value:
            yield from _values(inside, keys)


def _summary(seen: list[tuple[str, Entry]], *, each: bool) -> dict[str, Any]:
    """Return on how many sensors it was seen of late, of each value or in all."""
    now = time.time() * 1000
    columns: dict[str, Any] = {}
    for days in DAYS:
        recent = {(value, one.record.sid) for value, one in seen if one.time_ms >= now - days * 86_400_000}
        columns[f"last_{days}_days"] = (
            Counter(value for value, _ in recent) if each else len({sid for _, sid in recent})
        )
    return columns


def _locations(seen: list[tuple[str, Entry]], limit: int) -> dict[str, Any]:
    places: dict[str, Any] = {}
    for _, one in seen:
        sid, second = one.record.sid, one.time_ms // 1000
        if sid in places or len(places) < limit:
            hostname = orjson.loads(one.record.raw).get("routing", {}).get("hostname", "")
            place = places.setdefault(sid, {"sid": sid, "hostname": hostname, "first_ts": second})
            place["last_ts"] = second
    return places
