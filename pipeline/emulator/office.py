"""The rest of what clients ask about an organization: usage, quota, billing, settings, schemas, jobs."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import orjson
from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.forms import answer, form_of, packed, wrong
from pipeline.emulator.history import History
from pipeline.emulator.state import Org

SCHEMA_SAMPLE = 20
"""Newest records of a type that its schema is read from."""

MAX_SETTINGS = 1000


class OfficeService:
    def __init__(self, access: Access, history: History) -> None:
        self._access = access
        self._history = history
        self._settings: dict[str, dict[str, str]] = defaultdict(dict)
        self._quotas: dict[str, int] = {}

    def routes(self) -> list[web.RouteDef]:
        org = "/v1/orgs/{oid}"
        return [
            web.get("/v1/usage/{oid}", self.usage),
            web.get("/v1/quota_usage/{oid}", self.quota_usage),
            web.post(f"{org}/quota", self.set_quota),
            web.post(f"{org}/name", self.rename),
            web.get(f"{org}/billing/status", self.billing_status),
            web.get(f"{org}/billing/details", self.billing_details),
            web.get(f"{org}/billing/invoice/{{year}}/{{month}}", self.invoice),
            web.get("/v1/plans", self.plans),
            web.get("/v1/configs/{oid}/{name}", self.setting),
            web.post("/v1/configs/{oid}/{name}", self.set_setting),
            web.get(f"{org}/schema", self.schemas),
            web.delete(f"{org}/schema", self.reset_schemas),
            web.get(f"{org}/schema/{{name:.+}}", self.schema),
            web.get("/v1/events", self.event_types),
            web.get("/v1/ontology", self.ontology),
            web.get("/v1/mitre/{oid}", self.mitre),
            web.get("/v1/runtime_mtd/{oid}", self.runtime_metadata),
            web.get("/v1/job/{oid}", self.jobs),
            web.get("/v1/job/{oid}/{id}", self.job),
            web.delete("/v1/job/{oid}/{id}", self.job),
        ]

    async def usage(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.get")
        day = time.strftime("%Y-%m-%d", time.gmtime())
        events = len(self._history.find(org.oid, "event", lambda _: True))
        return answer(
            {"usage": {day: {"sensor_events": events, "sensor_watermark": _online(org), "output_bytes_tx": 0}}}
        )

    async def quota_usage(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.get")
        used, quota = _online(org), self._quotas.get(org.oid, 2 * len(org.fleet.sensors))
        return answer({"usage": used, "quota": quota, "breakdown": {"edr": {"n": used, "quota": float(used)}}})

    async def set_quota(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "billing.ctrl")
        self._quotas[org.oid] = (await form_of(request)).number("quota", 0)
        return answer({"success": True})

    async def rename(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.conf.set")
        org.name = (await form_of(request)).need("name")
        return answer({"success": True})

    async def billing_status(self, request: web.Request) -> web.Response:
        self._access.org(request, "billing.ctrl")
        return answer({"is_past_due": False, "status": "active"})

    async def billing_details(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "billing.ctrl")
        return answer({"customer": {"name": org.name, "balance": 0, "currency": "usd"}, "upcoming_invoice": None})

    async def invoice(self, request: web.Request) -> web.Response:
        self._access.org(request, "billing.ctrl")
        raise refuse(web.HTTPNotFound, "no invoice for this month")

    async def plans(self, request: web.Request) -> web.Response:
        self._access.bearer(request)
        return answer({"plans": [{"id": "quota", "name": "Quota", "currency": "usd"}]})

    async def setting(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.conf.get")
        return answer({"value": self._settings[org.oid].get(request.match_info["name"], "")})

    async def set_setting(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.conf.set")
        settings = self._settings[org.oid]
        if len(settings) >= MAX_SETTINGS:
            raise wrong(f"more than {MAX_SETTINGS} settings")
        settings[request.match_info["name"]] = (await form_of(request)).text("value")
        return answer({"success": True})

    async def schemas(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.get")
        return answer({"event_types": sorted(f"evt:{name}" for name in self._types(org))})

    async def schema(self, request: web.Request) -> web.Response:
        """What the newest records of a type look like; its name has a prefix, as ``evt:``."""
        org = self._access.org(request, "org.get")
        name = request.match_info["name"]
        kind = name.rpartition(":")[2]
        newest = self._history.find(org.oid, "event", lambda one: one.event_type == kind)[-SCHEMA_SAMPLE:]
        if not newest:
            raise refuse(web.HTTPNotFound, "no such schema")
        elements = sorted({path for one in newest for path in _paths(orjson.loads(one.record.raw), "")})
        return answer({"schema": {"event_type": name, "elements": elements}})

    async def reset_schemas(self, request: web.Request) -> web.Response:
        self._access.org(request, "org.conf.set")
        return answer({"success": True})

    async def event_types(self, request: web.Request) -> web.Response:
        self._access.bearer(request)
        return answer({"events": {}})

    async def ontology(self, request: web.Request) -> web.Response:
        self._access.bearer(request)
        return answer({"ontology": {}})

    async def mitre(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "org.get")
        return answer({"name": org.name, "domain": "enterprise-attack", "techniques": []})

    async def runtime_metadata(self, request: web.Request) -> web.Response:
        self._access.org(request, "org.get")
        return answer({})

    async def jobs(self, request: web.Request) -> web.Response:
        self._access.org(request, "job.get")
        return answer({"jobs": packed(b"{}")})

    async def job(self, request: web.Request) -> web.Response:
        self._access.org(request, "job.get")
        raise refuse(web.HTTPNotFound, "unknown job")

    def _types(self, org: Org) -> set[str]:
        return {one.record.event_type for one in self._history.find(org.oid, "event", lambda _: True)}


def _online(org: Org) -> int:
    return sum(station.online for station in org.roster)


def _paths(value: Any, path: str) -> Iterator[str]:
    """Return the places of values with their types, as ``s:event/FILE_PATH``."""
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from _paths(inside, f"{path}/{name}" if path else name)
    elif isinstance(value, list):
        for inside in value:
            yield from _paths(inside, path)
    else:
        yield f"{'s' if isinstance(value, str) else 'i'}:{path}"
