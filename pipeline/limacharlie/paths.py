"""Paths that LimaCharlie's integration guide writes otherwise than its own SDKs call them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PathStyle = Literal["sdk", "guide"]


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a sensor is, with ``{oid}`` and ``{sid}`` to fill in; artifacts have places of their own in the guide only."""

    sensor: str
    task: str
    tags: str
    artifacts: str | None = None

    def of(self, path: str, oid: str, sid: str) -> str:
        return path.format(oid=oid, sid=sid)


PATHS: dict[PathStyle, Paths] = {
    "sdk": Paths(sensor="/{sid}", task="/{sid}", tags="/{sid}/tags"),
    "guide": Paths(
        sensor="/sensor/{oid}/{sid}",
        task="/sensor/{oid}/{sid}/task",
        tags="/sensor/{oid}/{sid}/tag",
        artifacts="/artifacts/{oid}",
    ),
}
