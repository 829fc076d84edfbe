"""Artifacts: uploads in parts, the list, originals inline or by export, and the rules that collect them."""

from __future__ import annotations

import base64
import binascii
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from pipeline.emulator.access import Access, refuse
from pipeline.emulator.forms import answer, form_of, packed, wrong
from pipeline.emulator.state import Cloud, Org

INLINE = 1 << 20
"""Bytes up to which an original comes inside the answer."""

EXPORT_SECONDS = 1.0
"""How long an export is not there yet."""

KEPT = 512 << 20
"""Bytes of all artifacts together; what is uploaded beyond that is refused."""

PAGE = 500
DONE = "done"
"""What stands in the place of the number of the last part."""


@dataclass
class Upload:
    """An artifact on its way or complete. Times are Unix seconds."""

    id: str
    source: str
    hint: str
    path: str
    days: int
    began: float = field(default_factory=time.time)
    parts: dict[int, bytes] = field(default_factory=dict)
    last: bytes | None = None
    data: bytes | None = None
    """All of it, once complete."""

    def take(self, part: str, data: bytes) -> None:
        """Add a part. The last is not numbered, and others may still be on their way when it comes."""
        if part == DONE:
            self.last = data
        elif part.isdecimal() and len(part) < 6:
            self.parts[int(part)] = data
        else:
            raise wrong("lc-part is neither a number nor done")

    def finish(self) -> None:
        if self.last is not None and sorted(self.parts) == list(range(len(self.parts))):
            self.data = b"".join(self.parts[number] for number in sorted(self.parts)) + self.last
            self.parts.clear()
            self.last = None

    def shown(self, org: Org) -> dict[str, Any]:
        return {
            "payload_id": self.id,
            "oid": org.oid,
            "source": self.source,
            "hint": self.hint,
            "path": self.path,
            "size": len(self.data or b""),
            "ts": int(self.began),
            "retention": self.days,
        }


class ArtifactService:
    """What knobs turn: `inline` (bytes) and `export_seconds`."""

    def __init__(self, cloud: Cloud, access: Access, ingestion_key: Callable[[Org, str], bool]) -> None:
        self.inline = INLINE
        self.export_seconds = EXPORT_SECONDS
        self._cloud = cloud
        self._access = access
        self._may_ingest = ingestion_key
        self._uploads: dict[str, dict[str, Upload]] = defaultdict(dict)
        self._exports: dict[str, tuple[float, Upload]] = {}
        self._rules: dict[str, dict[str, Any]] = defaultdict(dict)
        self._size = 0

    def routes(self) -> list[web.RouteDef]:
        artifacts = "/v1/insight/{oid}/artifacts"
        return [
            web.post("/ingest", self.ingest),
            web.get(artifacts, self.list),
            web.get(f"{artifacts}/rules", self.rules),
            web.post(f"{artifacts}/rules", self.set_rule),
            web.delete(f"{artifacts}/rules", self.delete_rule),
            web.post(f"{artifacts}/originals/{{id}}", self.original),
            web.get("/exports/{id}", self.export),
            # as a guide has them
            web.get("/v1/artifacts/{oid}", self.list),
            web.post("/v1/artifacts/{oid}", self.upload),
            web.get("/v1/artifacts/{oid}/{id}", self.download),
        ]

    async def ingest(self, request: web.Request) -> web.Response:
        """Raw bytes, whatever their declared type, with an ingestion key as the password."""
        return await self._take(request, self._uploader(request))

    async def upload(self, request: web.Request) -> web.Response:
        return await self._take(request, self._access.org(request, "ingestkey.ctrl"))

    async def _take(self, request: web.Request, org: Org) -> web.Response:
        headers = request.headers
        data = await request.read()
        if self._size + len(data) > KEPT:
            raise refuse(web.HTTPInsufficientStorage, "the emulator keeps no more artifacts")
        name = headers.get("lc-payload-id") or str(uuid.uuid4())
        upload = self._uploads[org.oid].get(name)
        if upload is None:
            days = headers.get("lc-retention-days", "30")
            upload = Upload(
                name,
                headers.get("lc-source", ""),
                headers.get("lc-hint", ""),
                _path(headers.get("lc-path", "")),
                int(days) if days.isdecimal() else 30,
            )
        upload.take(headers.get("lc-part", DONE), data)
        upload.finish()
        self._uploads[org.oid][name] = upload
        self._size += len(data)
        return answer({"payload": name})

    def _uploader(self, request: web.Request) -> Org:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        try:
            oid, _, key = base64.b64decode(given, validate=True).decode().partition(":")
        except ValueError:
            oid = key = ""
        org = self._cloud.orgs.get(oid)
        if scheme.lower() != "basic" or org is None or not self._may_ingest(org, key):
            raise refuse(web.HTTPUnauthorized, "unauthorized: invalid ingestion key")
        return org

    async def list(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.evt.get")
        form = await form_of(request)
        start, end = form.number("start", 0), form.number("end", 1 << 40)
        source, hint = form.text("sid") or form.text("source"), form.text("hint")
        rows = [
            upload.shown(org)
            for upload in self._uploads[org.oid].values()
            if upload.data is not None
            and start <= int(upload.began) <= end
            and source in ("", upload.source)
            and hint in ("", upload.hint)
        ]
        after = form.number("cursor", 0) if form.text("cursor") != "-" else 0
        more = len(rows) > after + PAGE
        page = rows[after : after + PAGE]
        # by both names that clients read: SDK 4.x knows only `logs`
        return answer({"artifacts": page, "logs": page, "next_cursor": str(after + PAGE) if more else ""})

    async def original(self, request: web.Request) -> web.Response:
        upload = self._find(request)
        assert upload.data is not None
        if len(upload.data) <= self.inline:
            return answer({"payload": packed(upload.data)})
        name = str(uuid.uuid4())
        self._exports[name] = (time.time() + self.export_seconds, upload)
        return answer({"export": f"{request.scheme}://{request.host}/exports/{name}"})

    async def export(self, request: web.Request) -> web.Response:
        """The address itself is the right to read it."""
        ready, upload = self._exports.get(request.match_info["id"], (0.0, None))
        if upload is None or time.time() < ready:
            raise refuse(web.HTTPNotFound, "not there yet")
        return web.Response(body=upload.data, content_type="application/octet-stream")

    async def download(self, request: web.Request) -> web.Response:
        return web.Response(body=self._find(request).data, content_type="application/octet-stream")

    async def rules(self, request: web.Request) -> web.Response:
        return answer(self._rules[self._access.org(request, "insight.evt.get").oid])

    async def set_rule(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.evt.get")
        form = await form_of(request)
        self._rules[org.oid][form.need("name")] = {
            "by": self._access.bearer(request).key.name,
            "updated": int(time.time()),
            "patterns": form.all("patterns"),
            "is_delete_after": form.flag("is_delete_after"),
            "days_retention": form.number("days_retention", 30),
            "filters": {"tags": form.all("tags"), "platforms": form.all("platforms")},
        }
        return answer({"success": True})

    async def delete_rule(self, request: web.Request) -> web.Response:
        org = self._access.org(request, "insight.evt.get")
        if self._rules[org.oid].pop((await form_of(request)).need("name"), None) is None:
            raise refuse(web.HTTPNotFound, "rule not found")
        return answer({"success": True})

    def _find(self, request: web.Request) -> Upload:
        org = self._access.org(request, "insight.evt.get")
        upload = self._uploads[org.oid].get(request.match_info["id"])
        if upload is None or upload.data is None:
            raise refuse(web.HTTPNotFound, "artifact not found")
        return upload


def _path(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise wrong("lc-path is not a path in base64") from None
