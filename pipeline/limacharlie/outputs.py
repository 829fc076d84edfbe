"""Outputs: where LimaCharlie sends an organization's streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.errors import NotFoundError, UnavailableError
from pipeline.limacharlie.transport import Transport

_SECRET_WORDS = (
    "password",
    "secret",
    "token",
    "key",
    "credential",
    "auth_header_value",
    "connection_string",
    "structured_data",
)


@dataclass(frozen=True, slots=True)
class Output:
    """An Output. ``fields`` are the module's own, all strings as on the wire: ``"true"``, ``"60"``; unset ones are left out."""

    name: str
    module: str
    stream: str
    fields: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, name: str, module: str, stream: str, **fields: object) -> Output:
        """Make one from Python values: bool, int, lists (one entry a line); None and "" are left out."""
        return cls(name, module, stream, {key: text for key, value in fields.items() if (text := wire(value))})

    @classmethod
    def parse(cls, doc: Mapping[str, Any], name: str = "") -> Output:
        """Read one as the API lists it; it calls the stream ``for`` there, and ``type`` on creation."""
        values = {str(key): text for key, value in doc.items() if (text := wire(value))}
        name = values.pop("name", name)
        module = values.pop("module", "")
        kind = values.pop("type", "")
        return cls(name, module, values.pop("for", kind), values)

    def __repr__(self) -> str:
        shown = {
            key: "**********" if any(word in key for word in _SECRET_WORDS) else text
            for key, text in self.fields.items()
        }
        return f"Output(name={self.name!r}, module={self.module!r}, stream={self.stream!r}, fields={shown!r})"


def wire(value: object) -> str:
    """Write a value as Outputs have it: ``true``, ``60``, lists one entry a line, None as ""."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | set | frozenset):
        return "\n".join(wire(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value))
    return str(value)


class Outputs:
    """Needs ``output.list``, ``output.set`` and ``output.del``. All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._oid = oid
        self._path = f"/outputs/{oid}"

    async def list(self) -> dict[str, Output]:
        """All Outputs by name."""
        answer = await self._transport.request("GET", self._path)
        found = answer.get(self._oid, {}) if isinstance(answer, dict) else None
        if not isinstance(found, dict):
            raise UnavailableError("LimaCharlie did not list the outputs.", where=self._path)
        return {name: Output.parse(doc, name) for name, doc in found.items() if isinstance(doc, dict)}

    async def get(self, name: str) -> Output:
        """One Output. Raises `NotFoundError`."""
        found = (await self.list()).get(name)
        if found is None:
            raise NotFoundError(f"There is no output {name!r}.", where=self._path)
        return found

    async def put(self, output: Output) -> Output:
        """Create it, or replace the one of its name; one that LimaCharlie disabled starts again. Returns it as stored."""
        form = {"name": output.name, "module": output.module, "type": output.stream, **output.fields}
        answer = await self._transport.request("POST", self._path, form=form, repeatable=True)
        return Output.parse(answer, output.name) if isinstance(answer, dict) and answer.get("module") else output

    async def delete(self, name: str) -> None:
        """Remove it."""
        await self._transport.request("DELETE", self._path, form={"name": name}, repeatable=True)
