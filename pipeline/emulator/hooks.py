"""What is sent in: webhooks, whose JSON becomes events of an adapter."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from pipeline.emulator.access import refuse
from pipeline.emulator.agents import adapter_event
from pipeline.emulator.forms import MAX_UNPACKED, answer, wrong
from pipeline.emulator.live import Live
from pipeline.emulator.sensors import UUID
from pipeline.emulator.state import Cloud, Org


class HookService:
    """``POST /{oid}/{name}/{secret}`` with JSON: one value, a list, or one a line; plain or gzip.

    The secret is an ingestion key.
    """

    def __init__(self, cloud: Cloud, live: Live, ingestion_key: Callable[[Org, str], bool]) -> None:
        self._cloud = cloud
        self._live = live
        self._may_ingest = ingestion_key

    def routes(self) -> list[web.RouteDef]:
        return [web.post(f"/{{oid:{UUID}}}/{{name}}/{{secret}}", self.take)]

    async def take(self, request: web.Request) -> web.Response:
        org, name = self._cloud.orgs.get(request.match_info["oid"]), request.match_info["name"]
        if org is None or not self._may_ingest(org, request.match_info["secret"]):
            raise refuse(web.HTTPUnauthorized, "unauthorized")
        values = _values(_plain(await request.read()))
        self._live.release(org, "event", [adapter_event(org.oid, name, "json", value, []) for value in values])
        return answer({})


def _plain(data: bytes) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        inflate = zlib.decompressobj(wbits=31)
        plain = inflate.decompress(data, MAX_UNPACKED)
    except zlib.error:
        raise wrong("the body is not gzip") from None
    if not inflate.eof:
        raise wrong("the body is cut off or too large")
    return plain


def _values(data: bytes) -> list[dict[str, Any]]:
    try:
        whole = orjson.loads(data)
        values = whole if isinstance(whole, list) else [whole]
    except orjson.JSONDecodeError:
        try:
            values = [orjson.loads(line) for line in data.splitlines() if line.strip()]
        except orjson.JSONDecodeError:
            raise wrong("the body is not JSON") from None
    if not all(isinstance(value, dict) for value in values):
        raise wrong("an event is a JSON object")
    return values
