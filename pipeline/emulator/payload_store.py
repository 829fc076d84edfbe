"""Payloads: the programs that tasks run, uploaded to and fetched from addresses that are good for a while."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from typing import Any

from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.forms import answer
from pipeline.emulator.state import Org

SIGNED_SECONDS = 300.0
"""How long an address is good."""

KEPT = 256 << 20
"""Bytes of all payloads together."""


class PayloadService:
    def __init__(self, access: Access) -> None:
        self._access = access
        self._payloads: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self._contents: dict[tuple[str, str], bytes] = {}
        self._signed: dict[str, tuple[float, str, str, str]] = {}
        """Until when, organization, payload and who, by address."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/payload/{oid}", self.list),
            web.get("/v1/payload/{oid}/{name}", self.get),
            web.post("/v1/payload/{oid}/{name}", self.set),
            web.delete("/v1/payload/{oid}/{name}", self.delete),
            web.get("/signed/{id}", self.fetch),
            web.put("/signed/{id}", self.put),
        ]

    async def list(self, request: web.Request) -> web.Response:
        return answer({"payloads": self._payloads[self._access.org(request, "payload.ctrl").oid]})

    async def get(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "payload.ctrl")
        self._known(org, request.match_info["name"])
        return answer({"get_url": self._sign(request, org)})

    async def set(self, request: web.Request) -> web.Response:
        return answer({"put_url": self._sign(request, self._access.org(request, "payload.ctrl"))})

    async def delete(self, request: web.Request) -> web.Response:
        org, name = self._access.org(request, "payload.ctrl"), request.match_info["name"]
        self._known(org, name)
        del self._payloads[org.oid][name], self._contents[org.oid, name]
        return answer({})

    async def put(self, request: web.Request) -> web.Response:
        oid, name, by = self._place(request)
        data = await request.read()
        if sum(map(len, self._contents.values())) + len(data) > KEPT:
            raise refuse(web.HTTPInsufficientStorage, "the emulator keeps no more payloads")
        self._contents[oid, name] = data
        row = {"name": name, "oid": oid, "size": len(data), "by": by, "created": int(time.time())}
        self._payloads[oid][name] = row
        return web.Response()

    async def fetch(self, request: web.Request) -> web.Response:
        oid, name, _ = self._place(request)
        return web.Response(body=self._contents.get((oid, name), b""), content_type="application/octet-stream")

    def _known(self, org: Org, name: str) -> None:
        if name not in self._payloads[org.oid]:
            raise refuse(web.HTTPNotFound, "unknown payload")

    def _sign(self, request: web.Request, org: Org) -> str:
        now, token = time.time(), str(uuid.uuid4())
        self._signed = {key: place for key, place in self._signed.items() if place[0] > now}
        by = self._access.bearer(request).key.name
        self._signed[token] = (now + SIGNED_SECONDS, org.oid, request.match_info["name"], by)
        return f"{request.scheme}://{request.host}/signed/{token}"

    def _place(self, request: web.Request) -> tuple[str, str, str]:
        until, *place = self._signed.get(request.match_info["id"], (0.0, "", "", ""))
        if until < time.time():
            raise refuse(web.HTTPForbidden, "the address is not good any more")
        oid, name, by = place
        return oid, name, by
