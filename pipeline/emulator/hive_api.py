"""The API of the hives."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.forms import Form, answer, form_of, wrong
from pipeline.emulator.hives import HIVES, Hive, HiveError, Hives, Record

PAGE = 50
MAX_PAGE = 500

PERMISSIONS: dict[str, tuple[str, str, str]] = {
    **dict.fromkeys(("dr-general", "dr-managed", "dr-service"), ("dr.list", "dr.set", "dr.del")),
    "fp": ("fp.ctrl", "fp.ctrl", "fp.ctrl"),
    "secret": ("secret.get", "secret.set", "secret.set"),
    "ai_agent": ("ai_agent.get", "ai_agent.set", "ai_agent.set"),
}
"""What listing and getting, setting, and deleting need; `hive.get` and `hive.set` where nothing is named."""


class HiveService:
    """`whole` is the size in bytes from which a hive can only be listed in pages."""

    def __init__(self, access: Access, hives: Hives) -> None:
        self.whole = 16 << 20
        self._access = access
        self._hives = hives

    def routes(self) -> list[web.RouteDef]:
        record = "/v1/hive/{hive}/{oid}/{key}"
        return [
            web.post("/v1/hive", self.batch),
            web.get("/v1/hive/{hive}/schema", self.schema),
            web.get("/v1/hive/{hive}/{oid}", self.list),
            web.get(f"{record}/data", self.get),
            web.get(f"{record}/mtd", self.get_metadata),
            web.post(f"{record}/data", self.set),
            web.post(f"{record}/mtd", self.set_metadata),
            web.post(f"{record}/validate", self.validate),
            web.post(f"{record}/rename", self.rename),
            web.delete(record, self.delete),
        ]

    def hive(self, request: web.Request, action: int, name: str = "", oid: str = "") -> Hive:
        """Return the hive in the path, if the caller may do the action: 0 get, 1 set, 2 delete."""
        name = name or request.match_info["hive"]
        org = self._access.named(request, oid or request.match_info["oid"])
        needed = PERMISSIONS.get(name, ("hive.get", "hive.set", "hive.set"))[action]
        if self._access.bearer(request).missing(org.oid, (needed,)):
            raise failed(HiveError("UNAUTHORIZED", f"missing permission {needed}"))
        try:
            return self._hives.of(name, org.oid)
        except HiveError as error:
            raise failed(error) from None

    async def list(self, request: web.Request) -> web.Response:
        hive = self.hive(request, 0)
        form = await form_of(request)
        prefix, data = form.text("tag_prefix"), not form.flag("mtd_only")
        chosen = {name: record for name, record in hive if not prefix or _tagged(record, prefix)}
        if "limit" not in request.query and "cursor" not in request.query:
            body = orjson.dumps({name: record.shown(data=data) for name, record in chosen.items()})
            if len(body) > self.whole:
                raise failed(HiveError("HIVE_LISTING_TOO_LARGE", f"{hive.name} is too big to list at once"))
            return web.Response(body=body, content_type="application/json")
        after = _name_in(form.text("cursor"))
        limit = min(max(form.number("limit", PAGE), 1), MAX_PAGE)
        room = form.number("max_bytes", self.whole)
        page: dict[str, Any] = {}
        names = [name for name in chosen if name > after]
        for name in names[:limit]:
            page[name] = chosen[name].shown(data=data)
            room -= len(orjson.dumps(page[name]))
            if room <= 0:
                break
        last = next(reversed(page), "")
        more = bool(page) and last != names[-1]
        return answer(
            {"records": page, "next_cursor": base64.urlsafe_b64encode(last.encode()).decode() if more else ""}
        )

    async def get(self, request: web.Request) -> web.Response:
        return answer(self._record(self.hive(request, 0), request).shown())

    async def get_metadata(self, request: web.Request) -> web.Response:
        return answer(self._record(self.hive(request, 0), request).shown(data=False))

    async def set(self, request: web.Request) -> web.Response:
        hive = self.hive(request, 1)
        form = await form_of(request)
        data = form.json("data")
        if form.text("arl"):
            raise wrong("arl is not supported by the emulator")
        return self._set(request, hive, request.match_info["key"], _is_object(data), form)

    async def set_metadata(self, request: web.Request) -> web.Response:
        return self._set(request, self.hive(request, 1), request.match_info["key"], None, await form_of(request))

    async def validate(self, request: web.Request) -> web.Response:
        hive = self.hive(request, 1)
        try:
            hive.check(_is_object((await form_of(request)).json("data")))
        except HiveError as error:
            raise failed(error) from None
        return answer(_named(hive, request.match_info["key"], hive.find(request.match_info["key"])))

    async def rename(self, request: web.Request) -> web.Response:
        hive, new = self.hive(request, 1), (await form_of(request)).need("new_name")
        try:
            record = hive.rename(request.match_info["key"], new)
        except HiveError as error:
            raise failed(error) from None
        return answer(_named(hive, new, record))

    async def delete(self, request: web.Request) -> web.Response:
        hive = self.hive(request, 2)
        self._record(hive, request)
        hive.delete(request.match_info["key"])
        return answer({})

    async def schema(self, request: web.Request) -> web.Response:
        self._access.bearer(request)
        name = request.match_info["hive"]
        if name not in HIVES:
            raise failed(HiveError("UNKNOWN_HIVE", f"no hive {name[:80]}"))
        properties: dict[str, Any] = {each: {} for each in HIVES[name]}
        return answer({"schema": {"type": "object", "properties": properties, "required": list(properties)}})

    async def batch(self, request: web.Request) -> web.Response:
        """One operation in each field ``request``; a failure is told in its place and stops nothing."""
        self._access.bearer(request)
        responses = []
        for text in (await form_of(request)).all("request"):
            try:
                responses.append({"data": self._operate(request, _is_object(_parsed(text))), "error": ""})
            except (web.HTTPException, HiveError) as error:
                said = (
                    orjson.loads(error.text or "{}") if isinstance(error, web.HTTPException) else {"error": str(error)}
                )
                responses.append({"data": {}, "error": said["error"]})
        return answer({"responses": responses})

    def _operate(self, request: web.Request, operation: dict[str, Any]) -> dict[str, Any]:
        if len(operation) != 1:
            raise wrong("a request of a batch names one operation")
        [(kind, given)] = operation.items()
        where = _is_object(_is_object(given).get("record_id"))
        place, key = _is_object(where.get("hive")), str(where.get("name", ""))
        action = {"get": 0, "set": 1, "delete": 2}.get(kind.partition("_")[0], 0)
        hive = self.hive(request, action, str(place.get("name", "")), str(place.get("partition", "")))
        author = self._access.bearer(request).key.name
        match kind:
            case "get_record" | "get_record_mtd":
                return hive.get(key).shown(data=kind == "get_record")
            case "set_record":
                config = _is_object(given.get("record"))
                etag = str((config.get("sys_mtd") or {}).get("etag") or "")
                record = hive.set(key, author, _is_object(config.get("data")), config.get("usr_mtd"), etag)
                return _named(hive, key, record)
            case "set_record_mtd":
                etag = str((given.get("sys_mtd") or {}).get("etag") or "")
                return _named(hive, key, hive.set(key, author, None, _is_object(given.get("usr_mtd")), etag))
            case "delete_record":
                hive.delete(key)
                return {}
        raise wrong(f"unknown operation {kind[:40]}")

    def _set(self, request: web.Request, hive: Hive, key: str, data: dict[str, Any] | None, form: Form) -> web.Response:
        usr_mtd = form.object("usr_mtd") if form.text("usr_mtd") else None
        if data is None and usr_mtd is None:
            raise wrong("missing parameter usr_mtd")
        try:
            record = hive.set(key, self._access.bearer(request).key.name, data, usr_mtd, form.text("etag"))
        except HiveError as error:
            raise failed(error) from None
        return answer(_named(hive, key, record))

    @staticmethod
    def _record(hive: Hive, request: web.Request) -> Record:
        try:
            return hive.get(request.match_info["key"])
        except HiveError as error:
            raise failed(error) from None


def failed(error: HiveError) -> web.HTTPException:
    """Return the answer that tells of a failure."""
    status: type[web.HTTPError] = web.HTTPBadRequest
    if error.code == "ETAG_MISMATCH":
        status = web.HTTPConflict
    elif error.code == "HIVE_LISTING_TOO_LARGE":
        text = orjson.dumps({"error": str(error), "error_code": error.code}).decode()
        return web.HTTPRequestEntityTooLarge(0, text=text, content_type="application/json")
    return refuse(status, str(error))


def _named(hive: Hive, key: str, record: Record | None) -> dict[str, Any]:
    guid = record.guid if record is not None else ""
    return {"guid": guid, "hive": {"name": hive.name, "partition": hive.oid}, "name": key}


def _tagged(record: Record, prefix: str) -> bool:
    return any(str(tag).startswith(prefix) for tag in record.usr_mtd["tags"])


def _name_in(cursor: str) -> str:
    try:
        return base64.urlsafe_b64decode(cursor).decode()
    except ValueError:
        raise failed(HiveError("INVALID_CURSOR", "the cursor is not one of ours")) from None


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise wrong("a request of the batch is not JSON") from None


def _is_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong("expected a JSON object")
    return value
