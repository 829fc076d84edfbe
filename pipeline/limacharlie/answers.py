"""Reading answers without trusting their shape, and walking through their pages."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import quote

import msgspec
import orjson

from pipeline.core.errors import UnavailableError, UsageError
from pipeline.limacharlie.config import UUID

MAX_UNPACKED = 256 << 20
"""Bytes that one compressed answer may grow to."""
_LARGE = 64 << 10
"""What is longer than this is packed and unpacked beside the event loop."""
MAX_CURSOR = 16 << 10
"""Characters of a cursor at most; it must fit into an address."""
MAX_EMPTY = 1000
"""Pages without a record that may follow each other."""
FIRST = "-"
"""The cursor of a first page."""

Doc = dict[str, Any]
_raws: Callable[[bytes], list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw]).decode


def table(answer: Any, where: str) -> Doc:
    """The answer as a JSON object. Raises `UnavailableError` where it is none."""
    if not isinstance(answer, dict):
        raise UnavailableError("LimaCharlie's answer is not the JSON object that it should be.", where=where)
    return answer


def tables(answer: Any, key: str, where: str) -> list[Doc]:
    """The list of objects under ``key``; none where it is absent. Raises `UnavailableError` where it is something else."""
    found = table(answer, where).get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise UnavailableError(f"LimaCharlie's answer has no list of {key}.", where=where)
    return [entry for entry in found if isinstance(entry, dict)]


def text(doc: Doc, key: str) -> str:
    """A text, or "" where it is none."""
    found = doc.get(key)
    return found if isinstance(found, str) else ""


def texts(value: Any) -> tuple[str, ...]:
    """The texts of a list, or of ``a, b``."""
    found = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(entry.strip() for entry in found if isinstance(entry, str) and entry.strip())


def segment(name: str) -> str:
    """A name as one part of a path. Raises `UsageError` for one that would lead elsewhere."""
    if name in ("", ".", ".."):
        raise UsageError(f"{name!r} cannot be a name.")
    return quote(name, safe="")


def sensor_id(sid: str) -> str:
    """Check a sensor's id, which is a part of paths. Raises `UsageError`."""
    if not UUID.fullmatch(sid):
        raise UsageError(f"{sid[:80]!r} is not a sensor id.", fix="It is a UUID, as `sensors.list` gives it.")
    return sid.lower()


def flag(value: bool) -> str:
    return "true" if value else "false"


async def unpack(value: Any, where: str) -> list[Any]:
    """The list that an answer holds, plain or as base64 of gzip of JSON. Raises `UnavailableError` for anything else."""
    if value is None or value == "":
        return []
    if isinstance(value, str):
        data = await gunzip(value, where)
        try:
            value = orjson.loads(data)
        except ValueError:
            value = {}
    if value is None:
        return []
    if not isinstance(value, list):
        raise UnavailableError("LimaCharlie's page is not the list that it should be.", where=where)
    return value


async def unpack_raw(value: Any, where: str) -> list[bytes]:
    """The objects of the list that an answer holds, each as the bytes that LimaCharlie wrote. Raises `UnavailableError`."""
    if isinstance(value, str) and value:
        data = await gunzip(value, where)
        try:
            found = [bytes(entry) for entry in _raws(data)]
        except (ValueError, msgspec.MsgspecError):
            raise UnavailableError("LimaCharlie's page is not the list that it should be.", where=where) from None
        # A record is one line; the rare page that was written with spaces is written anew.
        return [orjson.dumps(orjson.loads(raw)) if b"\n" in raw else raw for raw in found if raw.startswith(b"{")]
    return [orjson.dumps(entry) for entry in await unpack(value, where) if isinstance(entry, dict)]


async def gunzip(value: str, where: str) -> bytes:
    """The bytes of base64 of gzip. Raises `UnavailableError` where it is damaged, or larger than `MAX_UNPACKED`."""
    try:
        return await asyncio.to_thread(_gunzip, value) if len(value) > _LARGE else _gunzip(value)
    except (ValueError, zlib.error):
        raise UnavailableError("LimaCharlie's compressed answer is damaged or too large.", where=where) from None


def _gunzip(value: str) -> bytes:
    decoder = zlib.decompressobj(wbits=31)
    data = decoder.decompress(base64.b64decode(value), MAX_UNPACKED)
    if not decoder.eof:
        raise ValueError("cut off")
    return data


async def gzip(data: bytes) -> str:
    """Base64 of gzip of ``data``."""
    return await asyncio.to_thread(_gzip, data) if len(data) > _LARGE else _gzip(data)


def _gzip(data: bytes) -> str:
    encoder = zlib.compressobj(6, wbits=31)
    return base64.b64encode(encoder.compress(data) + encoder.flush()).decode()


def _next(cursor: str, seen: set[str], where: str) -> str:
    """The cursor, which must be a new one: pages that lead back would never end. Raises `UnavailableError`."""
    if len(cursor) > MAX_CURSOR:
        raise UnavailableError(f"LimaCharlie's cursor has {len(cursor)} characters.", where=where)
    if cursor in seen:
        raise UnavailableError("LimaCharlie's pages do not lead on: the same cursor came twice.", where=where)
    seen.add(cursor)
    return cursor


async def raw_pages(
    fetch: Callable[[str], Awaitable[Any]], key: str, where: str, *, cursor: str = FIRST
) -> AsyncIterator[list[bytes]]:
    """Walk through pages like `pages`, and yield each as its records' bytes.

    Raises `UnavailableError` too where a page comes again under another cursor, or too many in a row hold nothing.
    """
    seen = {cursor}
    known: set[int] = set()
    empty = 0
    while True:
        answer = table(await fetch(cursor), where)
        page = await unpack_raw(answer.get(key), where)
        digest = hash(tuple(page))
        if page and digest in known:
            raise UnavailableError("LimaCharlie's pages do not lead on: the same page came twice.", where=where)
        known.add(digest)
        empty = 0 if page else empty + 1
        if empty > MAX_EMPTY:
            raise UnavailableError(f"LimaCharlie's pages do not lead on: {empty} in a row hold nothing.", where=where)
        yield page
        following = text(answer, "next_cursor")
        if not following:
            return
        cursor = _next(following, seen, where)


async def pages(
    fetch: Callable[[str], Awaitable[Any]], key: str, where: str, *, cursor: str = FIRST, limit: int | None = None
) -> AsyncIterator[Doc]:
    """Walk through pages: ``fetch(cursor)`` gives an answer with records under ``key`` and a ``next_cursor`` unless it is the last.

    Ends after ``limit`` records. Raises `UnavailableError` where a page does not lead on, and what ``fetch`` raises.
    """
    left = limit
    seen = {cursor}
    while left is None or left > 0:
        answer = table(await fetch(cursor), where)
        for record in await unpack(answer.get(key), where):
            if not isinstance(record, dict):
                continue
            yield record
            if left is not None:
                left -= 1
                if left <= 0:
                    return
        following = text(answer, "next_cursor")
        if not following:
            return
        cursor = _next(following, seen, where)
