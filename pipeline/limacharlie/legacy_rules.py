"""Rules by the API before hives, ``/rules`` and ``/fp``, which LimaCharlie still answers. New work uses `rules`."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from pipeline.limacharlie.answers import Doc, flag, table
from pipeline.limacharlie.times import milliseconds
from pipeline.limacharlie.transport import Transport


class LegacyRules:
    """Needs ``dr.list``, ``dr.set`` and ``dr.del``. All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._path = f"/rules/{oid}"

    async def list(self, namespace: str | None = None) -> dict[str, Doc]:
        """All rules by name, as LimaCharlie writes them."""
        return _named(await self._transport.request("GET", self._path, query=_namespace(namespace)), self._path)

    async def put(
        self,
        name: str,
        detect: Doc,
        respond: Sequence[Doc],
        *,
        replace: bool = False,
        enabled: bool = True,
        expires_at: float | None = None,
        namespace: str | None = None,
    ) -> None:
        """Make a rule, or ``replace`` the one of its name. ``expires_at`` is in Unix seconds."""
        form = {
            "name": name,
            "is_replace": flag(replace),
            "detection": orjson.dumps(detect).decode(),
            "response": orjson.dumps(list(respond)).decode(),
            "is_enabled": flag(enabled),
            **_namespace(namespace),
        }
        if expires_at is not None:
            form["expire_on"] = str(milliseconds(expires_at))
        await self._transport.request("POST", self._path, form=form, repeatable=replace)

    async def delete(self, name: str, namespace: str | None = None) -> None:
        """Remove a rule."""
        form = {"name": name, **_namespace(namespace)}
        await self._transport.request("DELETE", self._path, form=form, repeatable=True)


class LegacyFalsePositives:
    """Needs ``fp.ctrl``. All raise what `Transport.request` raises."""

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._path = f"/fp/{oid}"

    async def list(self) -> dict[str, Doc]:
        """All rules by name, as LimaCharlie writes them."""
        return _named(await self._transport.request("GET", self._path), self._path)

    async def put(self, name: str, rule: Doc, *, replace: bool = False) -> None:
        """Make a rule over detections, or ``replace`` the one of its name."""
        form = {"name": name, "is_replace": flag(replace), "rule": orjson.dumps(rule).decode()}
        await self._transport.request("POST", self._path, form=form, repeatable=replace)

    async def delete(self, name: str) -> None:
        """Remove a rule."""
        await self._transport.request("DELETE", self._path, form={"name": name}, repeatable=True)


def _namespace(name: str | None) -> dict[str, str]:
    return {"namespace": name} if name else {}


def _named(answer: object, where: str) -> dict[str, Doc]:
    return {name: doc for name, doc in table(answer, where).items() if isinstance(doc, dict)}
