"""Detection and response rules, and false positives. They are records of hives; the API before hives is in `legacy_rules`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pipeline.core.errors import UsageError
from pipeline.limacharlie.answers import Doc
from pipeline.limacharlie.hive import Hive, HiveRecord
from pipeline.limacharlie.transport import Transport

Namespace = Literal["general", "managed", "service"]


class Rules:
    """Needs ``dr.list``, ``dr.set`` and ``dr.del`` (``dr.list.managed`` … for namespaces), ``fp.ctrl`` for false positives.

    All raise what `Transport.request` raises; `hive` and `false_positives` have the rest of what hives can do.
    """

    def __init__(self, transport: Transport, oid: str) -> None:
        self._transport = transport
        self._oid = oid

    def hive(self, namespace: Namespace = "general") -> Hive:
        """The hive of a namespace's rules, whose data is ``{"detect": {…}, "respond": […], "tests": {…}}``."""
        return Hive(self._transport, f"dr-{namespace}", self._oid)

    @property
    def false_positives(self) -> Hive:
        """The hive of rules for detections that are none, whose data is ``{"detect": {…}}`` over the whole detection."""
        return Hive(self._transport, "fp", self._oid)

    async def list(self, namespace: Namespace = "general") -> dict[str, HiveRecord]:
        """All rules of a namespace by name."""
        return await self.hive(namespace).list()

    async def get(self, name: str, namespace: Namespace = "general") -> HiveRecord:
        """One rule. Raises `NotFoundError`."""
        return await self.hive(namespace).get(name)

    async def put(
        self,
        name: str,
        detect: Doc,
        respond: Sequence[Doc],
        *,
        tests: Doc | None = None,
        enabled: bool = True,
        tags: Sequence[str] = (),
        comment: str | None = None,
        namespace: Namespace = "general",
    ) -> None:
        """Make a rule, or replace the one of its name with all that is said about it."""
        if not detect or not respond:
            raise UsageError("A rule says what it detects and how it responds.", where=name)
        data: Doc = {"detect": detect, "respond": list(respond)} | ({"tests": tests} if tests else {})
        await self.hive(namespace).put(HiveRecord(name, data, enabled=enabled, tags=tuple(tags), comment=comment))

    async def enable(self, name: str, enabled: bool = True, namespace: Namespace = "general") -> None:
        """Switch a rule on or off and leave the rest as it is."""
        await self.hive(namespace).update(name, lambda rule: replace(rule, enabled=enabled))

    async def delete(self, name: str, namespace: Namespace = "general") -> None:
        """Remove a rule. Raises `NotFoundError`."""
        await self.hive(namespace).delete(name)
