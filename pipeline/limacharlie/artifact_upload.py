"""Sending artifacts in, in parts, with an ingestion key."""

from __future__ import annotations

import asyncio
import base64
import io
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipeline.core.errors import ConfigError, NotFoundError, UsageError
from pipeline.core.types import Secret
from pipeline.limacharlie.answers import table, text
from pipeline.limacharlie.organization import Organization
from pipeline.limacharlie.paths import Paths
from pipeline.limacharlie.transport import Transport

PART = 4 << 20
"""Bytes of one part."""
_TIMEOUT = 120.0
"""Seconds for one part."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    artifact_id: str
    size: int
    parts: int


class ArtifactUpload:
    """Needs an ingestion key (see `ingestion_keys`): given to each call, or to the client by ``LC_LOGS_TOKEN``."""

    def __init__(
        self, transport: Transport, oid: str, organization: Organization, paths: Paths, key: Secret | None
    ) -> None:
        self._transport = transport
        self._oid = oid
        self._organization = organization
        self._guide = paths.artifacts.format(oid=oid) if paths.artifacts else None
        self._key = key

    async def send(
        self,
        content: Path | bytes,
        *,
        source: str,
        hint: str | None = None,
        original_path: str | None = None,
        retention_days: int = 30,
        artifact_id: str | None = None,
        key: Secret | None = None,
    ) -> Uploaded:
        """Send a file or bytes in.

        ``source`` says where it comes from (a sensor id or any name), ``hint`` what it is (``pcap``, ``wel``, ``txt`` …).
        ``artifact_id`` (default: a fresh one) names it, so that sending it again makes no second one.

        Raises what `Transport.request` raises, OSError where the file cannot be read, `ConfigError` without a key.
        """
        artifact_id = artifact_id or str(uuid.uuid4())
        if isinstance(content, Path) and original_path is None:
            original_path = str(await asyncio.to_thread(content.absolute))
        headers = {"lc-payload-id": artifact_id, "lc-source": source, "lc-retention-days": str(retention_days)}
        if hint:
            headers["lc-hint"] = hint
        if original_path:
            headers["lc-path"] = base64.b64encode(original_path.encode("utf-8", "surrogateescape")).decode()
        for name, value in headers.items():
            if not value.isascii() or not value.isprintable():
                raise UsageError(f"{name} is printable ASCII text.", where=name)
        authorization = None if self._guide else self._authorization(key or self._key)
        if authorization:
            headers["Authorization"] = authorization
        file: BinaryIO = (
            io.BytesIO(content) if isinstance(content, bytes) else await asyncio.to_thread(content.open, "rb")
        )
        try:
            return await self._send(file, headers, artifact_id)
        finally:
            file.close()

    async def _send(self, file: BinaryIO, headers: dict[str, str], artifact_id: str) -> Uploaded:
        base, path = (None, self._guide) if self._guide else (await self._service(), "/ingest")
        size = number = 0
        async for part, is_last in _parts(file):
            # A single part has no number. Of several, `done` stands on the last, whatever its size: without it nothing is kept.
            mark = {} if is_last and number == 0 else {"lc-part": "done" if is_last else str(number)}
            answer = await self._transport.request(
                "POST",
                path,
                content=part,
                headers=headers | mark,
                base=base,
                authenticated=self._guide is not None,
                # Artifact and part have their names.
                repeatable=True,
                timeout=_TIMEOUT,
            )
            size += len(part)
            number += 1
        return Uploaded(text(table(answer, path), "payload") or artifact_id, size, number)

    async def _service(self) -> str:
        """The host under the two names that LimaCharlie has for it."""
        try:
            return await self._organization.service("logs")
        except NotFoundError:
            return await self._organization.service("artifacts")

    def _authorization(self, key: Secret | None) -> str:
        if key is None:
            raise ConfigError(
                "Artifacts are sent in with an ingestion key, and there is none.",
                where="LC_LOGS_TOKEN",
                fix="Make one with `ingestion_keys.create`, and set it.",
            )
        secret = key.get_secret_value()
        encoded = base64.b64encode(f"{self._oid}:{secret}".encode()).decode()
        self._transport.conceal(secret)
        self._transport.conceal(encoded)
        return f"Basic {encoded}"


async def _parts(file: BinaryIO) -> AsyncIterator[tuple[bytes, bool]]:
    """Parts, and whether each is the last, which takes a look ahead; a single empty one of what is empty."""
    part = await asyncio.to_thread(file.read, PART)
    while True:
        following = await asyncio.to_thread(file.read, PART) if len(part) == PART else b""
        yield part, not following
        if not following:
            return
        part = following
