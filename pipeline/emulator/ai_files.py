"""Files of AI sessions: requests for signed URLs, and the storage that the URLs lead to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import posixpath
import secrets
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from pipeline.emulator.ai_access import Callers, body_of, limited
from pipeline.emulator.ai_session import Doc, Session, new_id, stamp
from pipeline.emulator.ai_state import Ai, TransferFault
from pipeline.emulator.front import peer_of, reset

MAX_FILE = 100_000_000
MAX_KEPT = 400_000_000
"""Bytes that all sessions keep together."""
MAX_DOWNLOADS = 10_000
"""URLs that are known at a time; the oldest is forgotten."""
SLOW_PIECE = 1024


@dataclass
class Upload:
    session: Session
    path: str
    content_type: str
    size: int
    data: bytes | None = None


class RefusedError(Exception):
    """A transfer that is not to be; status and text are what the caller is told."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Storage:
    """Signs URLs of one file each, and checks them; serves both REST and WebSocket."""

    def __init__(self, ai: Ai) -> None:
        self._ai = ai
        self._secret = secrets.token_bytes(16)
        self._uploads: dict[str, Upload] = {}
        self._downloads: dict[str, tuple[Session, str]] = {}

    def upload(self, session: Session, asked: Doc, origin: str) -> Doc:
        """Sign an upload of ``filename``, ``content_type`` and ``size``; raises `RefusedError`."""
        name, size = asked.get("filename"), asked.get("size")
        kind = asked.get("content_type") or "application/octet-stream"
        if not isinstance(name, str) or not name or not isinstance(kind, str):
            raise RefusedError(400, "missing filename")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise RefusedError(400, "size is a number of bytes")
        if size > MAX_FILE:
            raise RefusedError(413, "file size exceeds limit (100 MB)")
        if session.status != "running":
            raise RefusedError(409, "session is not running")
        kept = sum(len(file) for one in self._ai.sessions.values() for file in one.files.values())
        kept += sum(upload.size for upload in self._uploads.values())
        if kept + size > MAX_KEPT:
            raise RefusedError(503, "the storage is full")
        upload_id = new_id("upload_")
        path = f"/workspace/uploads/{posixpath.basename(name) or 'file'}"
        self._uploads[upload_id] = Upload(session, path, kind, size)
        url, expires = self._sign(origin, upload_id, "PUT")
        return {"upload_id": upload_id, "url": url, "target_path": path, "expires_at": expires}

    def complete(self, session: Session, upload_id: str | None = None, path: object = None) -> str:
        """Put an uploaded file in its place, named by id or path; raises `RefusedError`."""
        for key, upload in self._uploads.items():
            if upload.session is session and upload_id in (key, None) and (upload_id or upload.path == path):
                if upload.data is None:
                    raise RefusedError(409, "nothing was uploaded")
                session.files[upload.path] = upload.data
                del self._uploads[key]
                return upload.path
        raise RefusedError(404, "upload not found")

    def download(self, session: Session, path: object, origin: str) -> Doc:
        """Sign a download; raises `RefusedError`."""
        if not isinstance(path, str) or path not in session.files:
            raise RefusedError(404, "file not found")
        key = new_id("download_")
        self._downloads[key] = (session, path)
        if len(self._downloads) > MAX_DOWNLOADS:
            del self._downloads[next(iter(self._downloads))]
        url, expires = self._sign(origin, key, "GET")
        return {"url": url, "expires_at": expires}

    def uploading(self, key: str) -> Upload | None:
        return self._uploads.get(key)

    def file(self, key: str) -> bytes | None:
        session, path = self._downloads.get(key, (None, ""))
        return session.files.get(path) if session is not None else None

    def allowed(self, key: str, method: str, query: Any) -> bool:
        expires = query.get("Expires", "")
        given = query.get("Signature", "").encode()
        right = hmac.compare_digest(self._signature(key, method, expires).encode(), given)
        return right and float(expires) > time.time()

    def _sign(self, origin: str, key: str, method: str) -> tuple[str, str]:
        end = time.time() + self._ai.timing.url_lifetime
        expires = f"{end:.3f}"
        query = urlencode({"Expires": expires, "Signature": self._signature(key, method, expires)})
        return f"{origin}/storage/ai/{key}?{query}", stamp(end)

    def _signature(self, key: str, method: str, expires: str) -> str:
        return hmac.new(self._secret, f"{method}\n{key}\n{expires}".encode(), hashlib.sha256).hexdigest()


class FileService:
    def __init__(self, ai: Ai, callers: Callers, storage: Storage) -> None:
        self._ai = ai
        self._callers = callers
        self._storage = storage

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/io/sessions/{session}/upload", self.upload),
            web.post("/v1/io/sessions/{session}/upload/complete", self.complete),
            web.post("/v1/io/sessions/{session}/download", self.download),
            web.put("/storage/ai/{key}", self.put),
            web.get("/storage/ai/{key}", self.fetch, allow_head=False),
        ]

    async def upload(self, request: web.Request) -> web.Response:
        session = self._callers.session(request)
        limited(session.uploads)
        try:
            signed = self._storage.upload(session, await body_of(request), str(request.url.origin()))
        except RefusedError as error:
            return _refusal(error)
        return web.json_response({"upload_url": signed.pop("url"), **signed})

    async def complete(self, request: web.Request) -> web.Response:
        session = self._callers.session(request)
        body = await body_of(request, upload_id=str)
        try:
            path = self._storage.complete(session, body.get("upload_id") or "")
        except RefusedError as error:
            return _refusal(error)
        return web.json_response({"success": True, "path": path})

    async def download(self, request: web.Request) -> web.Response:
        session = self._callers.session(request)
        body = await body_of(request)
        try:
            signed = self._storage.download(session, body.get("path"), str(request.url.origin()))
        except RefusedError as error:
            return _refusal(error)
        return web.json_response({"download_url": signed.pop("url"), **signed})

    async def put(self, request: web.Request) -> web.Response:
        """Take exactly the bytes that were announced; the signature is all the authentication there is."""
        refusal, fault = self._checked(request)
        if refusal is not None:
            return refusal
        upload = self._storage.uploading(request.match_info["key"])
        if upload is None:
            return _xml(404, "NoSuchKey")
        if request.content_type != upload.content_type:
            return _xml(403, "SignatureDoesNotMatch")
        data = bytearray()
        async for chunk in request.content.iter_chunked(1 << 18):
            data += chunk
            if len(data) > upload.size:
                return _xml(400, "EntityTooLarge")
        if fault is not None and fault.kind in ("corrupt", "short"):
            data = bytearray(_damaged(bytes(data), fault.kind))
        elif len(data) != upload.size:
            return _xml(400, "IncompleteBody")
        upload.data = bytes(data)
        return web.Response(headers=_hashes(upload.data))

    async def fetch(self, request: web.Request) -> web.StreamResponse:
        refusal, fault = self._checked(request)
        if refusal is not None:
            return refusal
        data = self._storage.file(request.match_info["key"])
        if data is None:
            return _xml(404, "NoSuchKey")
        response = web.StreamResponse(headers={**_hashes(data), "Content-Type": "application/octet-stream"})
        response.content_length = len(data)
        await response.prepare(request)
        if fault is not None and fault.kind == "short":
            await response.write(data[: len(data) // 2])
            reset(peer_of(request).transport)
        elif fault is not None and fault.kind == "slow":
            for start in range(0, len(data), SLOW_PIECE):
                await response.write(data[start : start + SLOW_PIECE])
                await asyncio.sleep(1.0)
        else:
            await response.write(_damaged(data, "corrupt") if fault is not None else data)
        return response

    def _checked(self, request: web.Request) -> tuple[web.Response | None, TransferFault | None]:
        """The refusal of a URL that is not good or not to be good now, and what else is to go wrong."""
        if not self._storage.allowed(request.match_info["key"], request.method, request.query):
            return _xml(403, "SignatureDoesNotMatch"), None
        fault = self._ai.transfer_fault()
        if fault is not None and fault.kind == "expired":
            return _xml(400, "ExpiredToken"), None
        if fault is not None and fault.kind == "refused":
            return _xml(503, "ServiceUnavailable"), None
        return None, fault


def _damaged(data: bytes, kind: str) -> bytes:
    return data[: len(data) // 2] if kind == "short" else bytes((byte ^ 1) for byte in data[:1]) + data[1:]


def _hashes(data: bytes) -> dict[str, str]:
    """What the storage says of an object."""
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return {"x-goog-hash": f"md5={base64.b64encode(digest).decode()}", "ETag": f'"{digest.hex()}"'}


def _xml(status: int, code: str) -> web.Response:
    """An error in the storage's own manner."""
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def _refusal(error: RefusedError) -> web.Response:
    return web.json_response({"error": error.text}, status=error.status)
