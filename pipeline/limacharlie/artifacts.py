"""Artifacts: files that are kept with the organization."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from pipeline.core.errors import PipelineError, UnavailableError
from pipeline.kit.backoff import Backoff
from pipeline.kit.http import FAULTS, describe
from pipeline.limacharlie.answers import Doc, gunzip, pages, segment, sensor_id, table, text
from pipeline.limacharlie.paths import Paths
from pipeline.limacharlie.times import Period, When
from pipeline.limacharlie.transport import Transport

MAX_READ = 64 << 20
"""Bytes that `Artifacts.read` takes into memory."""
_CHUNK = 1 << 20
_STALL = 60.0
"""Seconds without a byte after which a download is given up."""
_NOT_YET = (5.0, 30.0)
"""Seconds between two looks at an address whose file is still being made: at first, and at most."""


class Artifacts:
    """Needs ``insight.evt.get``; rules need ``logs.ctrl`` too. All raise what `Transport.request` raises.

    Sending one in needs another kind of key: see `artifact_upload`.
    """

    def __init__(self, transport: Transport, oid: str, paths: Paths) -> None:
        self._transport = transport
        self._path = f"/insight/{oid}/artifacts"
        self._guide = paths.artifacts.format(oid=oid) if paths.artifacts else None

    def list(
        self, start: When = "24h", end: When = "now", *, sid: str | None = None, limit: int | None = None
    ) -> AsyncIterator[Doc]:
        """Walk through what is known of artifacts that came in this time (whole seconds), of one sensor or of all."""
        query = Period.of(start, end, self._transport.clock.now()).query()
        if sid is not None:
            query["sid"] = sensor_id(sid)

        async def fetch(cursor: str) -> Any:
            page = query if not cursor else {key: query[key] for key in query if key == "sid"} | {"cursor": cursor}
            answer = table(await self._transport.request("GET", self._path, query=page), self._path)
            return answer if "artifacts" in answer else answer | {"artifacts": answer.get("logs")}

        return pages(fetch, "artifacts", self._path, cursor="", limit=limit)

    async def read(self, artifact_id: str, *, patience: float = 300.0) -> bytes:
        """The whole artifact, up to `MAX_READ` bytes; see `download`. Raises `NotFoundError`."""
        found = bytearray()
        async with aclosing(self._content(artifact_id, patience)) as chunks:
            async for chunk in chunks:
                found += chunk
                if len(found) > MAX_READ:
                    raise UnavailableError(
                        f"The artifact is larger than {MAX_READ} bytes.",
                        where=artifact_id,
                        fix="Download it to a file.",
                    )
        return bytes(found)

    async def download(self, artifact_id: str, target: Path, *, patience: float = 300.0) -> int:
        """Write an artifact to a file and return its size in bytes; the file appears when it is whole.

        LimaCharlie sends a small one at once; a large one it lays out under an address first, for which we wait ``patience``
        seconds. Raises `NotFoundError`, and OSError where the file cannot be written.
        """
        part = target.with_name(f"{target.name}.part")
        size = 0
        file = await asyncio.to_thread(part.open, "wb")
        try:
            async with aclosing(self._content(artifact_id, patience)) as chunks:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
                    size += len(chunk)
            await asyncio.to_thread(file.close)
            await asyncio.to_thread(part.replace, target)
        except BaseException:
            file.close()
            part.unlink(missing_ok=True)
            raise
        return size

    async def rules(self) -> dict[str, Doc]:
        """Rules for what sensors collect by themselves, by name."""
        path = f"{self._path}/rules"
        answer = table(await self._transport.request("GET", path), path)
        return {name: doc for name, doc in answer.items() if isinstance(doc, dict)}

    async def put_rule(
        self,
        name: str,
        patterns: Sequence[str],
        *,
        platforms: Sequence[str] = (),
        tags: Sequence[str] = (),
        retention_days: int = 30,
        delete_after: bool = False,
    ) -> None:
        """Have sensors send in the files that match, and ``delete_after`` remove them there. Replaces the rule of this name."""
        rule = {
            "name": name,
            "patterns": list(patterns),
            "platforms": list(platforms),
            "tags": list(tags),
            "days_retention": retention_days,
            "is_delete_after": delete_after,
        }
        await self._transport.request("POST", f"{self._path}/rules", json=rule, repeatable=True)

    async def delete_rule(self, name: str) -> None:
        """Stop collecting by a rule; what was collected stays."""
        await self._transport.request("DELETE", f"{self._path}/rules", form={"name": name}, repeatable=True)

    async def _content(self, artifact_id: str, patience: float) -> AsyncGenerator[bytes, None]:
        if self._guide:
            path = f"{self._guide}/{segment(artifact_id)}"
            content: bytes = await self._transport.request("GET", path, raw=True)
            answer = _wrapper(content)
            if answer is None:
                yield content
                return
        else:
            path = f"{self._path}/originals/{segment(artifact_id)}"
            answer = table(await self._transport.request("POST", path, repeatable=True, reads=True), path)
        if payload := text(answer, "payload"):
            yield await gunzip(payload, path)
            return
        address = text(answer, "export")
        if not address:
            raise UnavailableError("LimaCharlie sent neither the artifact nor its address.", where=path)
        async for chunk in self._fetch(address, patience):
            yield chunk

    async def _fetch(self, address: str, patience: float) -> AsyncIterator[bytes]:
        """Read from a signed address, which is a secret and takes no token."""
        parts = urlsplit(address)
        where = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        if parts.scheme not in ("https", "http"):
            raise UnavailableError("The artifact's address is not one of the web.", where=where)
        deadline = self._transport.clock.monotonic() + patience
        wait = Backoff(*_NOT_YET)
        while True:
            response = await self._open(address, where)
            try:
                if response.status == 200:
                    async for chunk in _body(response, where):
                        yield chunk
                    return
                failed = self._transport.failure(response.status, response.headers, "", where=where)
            finally:
                response.release()
            # It is there when LimaCharlie has made it.
            if response.status != 404:
                raise failed
            if self._transport.clock.monotonic() >= deadline:
                raise UnavailableError(f"The artifact was not ready within {patience:g} seconds.", where=where)
            await asyncio.sleep(min(wait.next(), max(0.0, deadline - self._transport.clock.monotonic())))

    async def _open(self, address: str, where: str) -> aiohttp.ClientResponse:
        session = await self._transport.session()
        problem = ""
        try:
            async with asyncio.timeout(_STALL):
                return await session.get(address, allow_redirects=False)
        except FAULTS as fault:
            problem = describe(fault)
        raise UnavailableError(f"The artifact cannot be fetched: {problem}.", where=where)


def _wrapper(content: bytes) -> Doc | None:
    """The JSON around an artifact or its address; None for the artifact itself, which the guide does not tell apart."""
    try:
        answer = orjson.loads(content)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and answer.keys() in ({"payload"}, {"export"}) else None


async def _body(response: aiohttp.ClientResponse, where: str) -> AsyncIterator[bytes]:
    while True:
        failed: PipelineError | None = None
        chunk = b""
        try:
            async with asyncio.timeout(_STALL):
                chunk = await response.content.read(_CHUNK)
        except FAULTS as fault:
            failed = UnavailableError(f"The artifact broke off: {describe(fault)}.", where=where)
        if failed is not None:
            raise failed
        if not chunk:
            return
        yield chunk
