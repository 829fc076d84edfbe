"""Files to and from a session: the bytes travel by signed URL, and what arrived is verified."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import mimetypes
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import aiohttp

from pipeline.core.errors import PipelineError, RequestRefusedError, UnavailableError
from pipeline.kit.backoff import Backoff
from pipeline.kit.http import FAULTS, describe
from pipeline.limacharlie.ai.errors import FileTooLargeError, Refusals, TransferError
from pipeline.limacharlie.ai.service import AiService
from pipeline.limacharlie.answers import Doc, segment, table, text
from pipeline.limacharlie.transport import Transport

MAX_FILE = 100 << 20
"""Bytes of a file; LimaCharlie says 100 MB, and decides itself about what lies between its two meanings."""
TRIES = 3
TRANSFER_TIME = 1800.0
"""Seconds that one transfer may take in all; without progress it ends after `STALL_TIME`."""
STALL_TIME = 60.0
_PIECE = 256 << 10
_WHERE = "file transfer"
_LARGE: Refusals = {413: (FileTooLargeError, "Send at most 100 MB; compress or split it.")}

Source = bytes | Path
"""What is uploaded: bytes, or the file of this name."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The permission to transfer one file; its URL is a secret."""

    url: str = field(repr=False)
    upload_id: str = ""
    target: str = ""
    """Where the file will be in the session."""

    @classmethod
    def read(cls, doc: Doc, where: str) -> Ticket:
        """Read an answer or a message. Raises `UnavailableError` where there is no URL in it."""
        url = next((found for key in ("url", "upload_url", "download_url") if (found := text(doc, key))), "")
        if not url:
            raise UnavailableError("LimaCharlie's answer has no URL in it.", where=where)
        return cls(url, text(doc, "upload_id"), text(doc, "target_path"))


Ask = Callable[[], Awaitable[Ticket]]
T = TypeVar("T")


class Files:
    """Files of sessions, asked for over REST. All methods raise what `AiService.request` raises, and `TransferError`."""

    def __init__(self, service: AiService) -> None:
        self._service = service
        self._mover = Mover(service.transport)

    async def upload(
        self, session_id: str, source: Source, *, filename: str | None = None, content_type: str | None = None
    ) -> str:
        """Put a file into a session; return its path there. Raises `FileTooLargeError`, and `OSError` for an unreadable file."""
        path = f"/v1/io/sessions/{segment(session_id)}/upload"
        offer = await describe_file(source, filename, content_type)

        async def ask() -> Ticket:
            answer = await self._service.request("POST", path, json=offer, refusals=_LARGE)
            return Ticket.read(table(answer, path), path)

        ticket = await self._mover.upload(ask, source, offer)
        done = table(
            await self._service.request(
                "POST", f"{path}/complete", json={"upload_id": ticket.upload_id}, repeatable=True
            ),
            path,
        )
        if done.get("success") is not True:
            raise TransferError("LimaCharlie did not take the uploaded file.", where=path)
        return text(done, "path") or ticket.target

    async def download(self, session_id: str, path: str, target: Path | None = None) -> bytes:
        """Get a file of a session; with ``target`` it is written there (whole or not at all) and b"" returned."""
        where = f"/v1/io/sessions/{segment(session_id)}/download"

        async def ask() -> Ticket:
            return Ticket.read(table(await self._service.request("POST", where, json={"path": path}), where), where)

        return await self._mover.download(ask, target)


async def describe_file(source: Source, filename: str | None, content_type: str | None) -> Doc:
    """What is told of a file before its upload. Raises `FileTooLargeError` and `OSError`."""
    if isinstance(source, bytes):
        size, name = len(source), filename or "data"
    else:
        size = (await asyncio.to_thread(source.stat)).st_size
        name = filename or source.name
    if size > MAX_FILE:
        raise FileTooLargeError(
            f"The file has {size} bytes.",
            where=PurePosixPath(name).name,
            fix="Send at most 100 MB; compress or split it.",
        )
    kind = content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return {"filename": name, "content_type": kind, "size": size}


class Mover:
    """Moves bytes by signed URL, several times if need be, each time with a new one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def upload(self, ask: Ask, source: Source, offer: Doc) -> Ticket:
        """Upload; return the ticket that did it."""

        async def once(ticket: Ticket) -> Ticket:
            await self._put(ticket.url, source, offer)
            return ticket

        return await self._insist(ask, once)

    async def download(self, ask: Ask, target: Path | None) -> bytes:
        """Download into memory, or to a file that is there only when it is whole."""
        if target is None:
            return await self._insist(ask, lambda ticket: self._get(ticket.url, None))
        part = target.with_name(f"{target.name}.part")
        try:
            await self._insist(ask, lambda ticket: self._get(ticket.url, part))
            await asyncio.to_thread(os.replace, part, target)
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)
        return b""

    async def _insist(self, ask: Ask, move: Callable[[Ticket], Awaitable[T]]) -> T:
        backoff = Backoff(base=0.5, cap=5.0)
        while True:
            ticket = await ask()
            try:
                return await move(ticket)
            except TransferError:
                if backoff.tries >= TRIES - 1:
                    raise
            await asyncio.sleep(backoff.next())

    async def _put(self, url: str, source: Source, offer: Doc) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        headers = {"Content-Type": offer["content_type"], "Content-Length": str(offer["size"])}
        problem: PipelineError | None = None
        # Closed here: the storage may answer before the last piece is asked for, and then nobody ends the generator.
        file = None if isinstance(source, bytes) else await asyncio.to_thread(source.open, "rb")
        pieces = _pieces(source, file, offer["size"], digest)
        try:
            async with self._ask("PUT", url, headers=headers, data=pieces) as response:
                problem = _refusal(response.status)
                stated = _stated(response)
        except FAULTS as fault:
            problem = TransferError(f"The file could not be uploaded: {describe(fault)}.", where=_WHERE)
        finally:
            if file is not None:
                await asyncio.to_thread(file.close)
        if problem is not None:
            # Outside of the handler: the fault holds the signed URL.
            raise problem
        if stated is not None and stated != digest.digest():
            raise TransferError("The uploaded file did not arrive as it was sent.", where=_WHERE)

    async def _get(self, url: str, target: Path | None) -> bytes:
        digest = hashlib.md5(usedforsecurity=False)
        body = bytearray()
        size = 0
        problem: PipelineError | None = None
        file = None
        try:
            file = await asyncio.to_thread(target.open, "wb") if target is not None else None
            async with self._ask("GET", url, headers={"Accept-Encoding": "identity"}) as response:
                problem = _refusal(response.status)
                stated = _stated(response)
                if problem is None:
                    async for piece in response.content.iter_chunked(_PIECE):
                        size += len(piece)
                        if size > MAX_FILE:
                            problem = FileTooLargeError("The file is larger than 100 MB.", where=_WHERE)
                            break
                        digest.update(piece)
                        if file is None:
                            body += piece
                        else:
                            await asyncio.to_thread(file.write, piece)
        except aiohttp.ClientError as fault:
            problem = TransferError(f"The file could not be downloaded: {describe(fault)}.", where=_WHERE)
        except TimeoutError:
            problem = TransferError("The file could not be downloaded in time.", where=_WHERE)
        finally:
            if file is not None:
                await asyncio.to_thread(file.close)
        if problem is not None:
            raise problem
        if stated is not None and stated != digest.digest():
            raise TransferError("The downloaded file is not what is stored.", where=_WHERE)
        return bytes(body)

    @asynccontextmanager
    async def _ask(self, method: str, url: str, **arguments: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask the storage, without any credential of ours: the URL is one."""
        scheme = urlsplit(url).scheme
        # Plain HTTP only where LimaCharlie itself is reached that way, as a local one is.
        if scheme != "https" and not (scheme == "http" and self._transport.endpoints.api.startswith("http://")):
            raise RequestRefusedError("LimaCharlie gave an address for a file that is not https.", where=_WHERE)
        session = await self._transport.session()
        limits = aiohttp.ClientTimeout(total=TRANSFER_TIME, sock_connect=10.0, sock_read=STALL_TIME)
        async with session.request(method, url, allow_redirects=False, timeout=limits, **arguments) as response:
            yield response


async def _pieces(source: Source, file: BinaryIO | None, size: int, digest: Any) -> AsyncIterator[bytes]:
    """The bytes of a source, which is open as ``file`` if it is one, noted in ``digest``; never more than were announced.

    Raises `TransferError` for fewer.
    """
    left = size
    if isinstance(source, bytes):
        for start in range(0, size, _PIECE):
            piece = source[start : start + _PIECE]
            digest.update(piece)
            yield piece
        return
    assert file is not None
    while left:
        piece = await asyncio.to_thread(file.read, min(_PIECE, left))
        if not piece:
            raise TransferError("The file became shorter while it was read.", where=str(source))
        digest.update(piece)
        left -= len(piece)
        yield piece


def _stated(response: aiohttp.ClientResponse) -> bytes | None:
    """The MD5 that the storage says it has; None where it does not say."""
    for part in ",".join(response.headers.getall("x-goog-hash", [])).split(","):
        name, _, value = part.strip().partition("=")
        if name == "md5":
            try:
                return base64.b64decode(value, validate=True)
            except ValueError:
                return None
    return None


def _refusal(status: int) -> PipelineError | None:
    if 200 <= status < 300:
        return None
    return TransferError(f"The storage answered {status}.", where=_WHERE, fix="The signed address may have expired.")
