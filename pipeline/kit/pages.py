"""A small HTTP server for pages that are only read: GET and HEAD, one answer per connection.

A process that does nothing else over HTTP is spared the twelve megabytes of an HTTP framework.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from pipeline.kit.log import Logger

HEAD_MAX = 16 << 10
"""Bytes of a request's head at most."""
PATIENCE = 10.0
"""Seconds that a client may take to ask, and to take its answer."""
CONNECTIONS = 64
"""Connections at once; more are closed without an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page is now."""

    body: bytes
    content_type: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Page = Callable[[], Awaitable[Answer]]


class Pages:
    """Serves pages by their path."""

    def __init__(self, pages: Mapping[str, Page], log: Logger) -> None:
        self._pages = pages
        self._log = log
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._empty = asyncio.Event()

    async def start(self, host: str | None, port: int) -> tuple[str, int]:
        """Listen; returns the address. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=HEAD_MAX)
        name = self._server.sockets[0].getsockname()
        return name[0], name[1]

    async def stop(self) -> None:
        """Listen no more, and break off what is under way."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for writer in list(self._open):
            writer.transport.abort()
        if self._open:
            self._empty.clear()
            await self._empty.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS or self._server is None:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                method, answer = await self._answer(head)
                writer.write(_encode(answer, whole=method != "HEAD"))
                await writer.drain()
                writer.write_eof()
                # The peer closes first: what it sent beyond its question would turn our close into a reset.
                while await reader.read(HEAD_MAX):
                    pass
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError):
            pass  # whoever does not ask, or does not listen, gets no answer
        finally:
            writer.transport.abort()
            self._open.discard(writer)
            if not self._open:
                self._empty.set()

    async def _answer(self, head: bytes) -> tuple[str, Answer]:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            return method, _plain(HTTPStatus.BAD_REQUEST)
        page = self._pages.get(target.partition("?")[0])
        if page is None:
            return method, _plain(HTTPStatus.NOT_FOUND)
        if method not in ("GET", "HEAD"):
            return method, _plain(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        try:
            return method, await page()
        except Exception as error:
            self._log.error("A page could not be made.", path=target, exc_info=error)
            return method, _plain(HTTPStatus.INTERNAL_SERVER_ERROR)


def _plain(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(f"{status.value} {status.phrase}\n".encode(), "text/plain; charset=utf-8", status, headers or {})


def _encode(answer: Answer, *, whole: bool) -> bytes:
    headers = {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (answer.body if whole else b"")
