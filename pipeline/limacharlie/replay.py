"""Running a rule over events of the past, or over events that are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.errors import RequestRefusedError, UsageError
from pipeline.limacharlie.answers import Doc, sensor_id, table, tables
from pipeline.limacharlie.organization import Organization
from pipeline.limacharlie.rules import Namespace
from pipeline.limacharlie.times import Period, When
from pipeline.limacharlie.transport import Transport

_TIMEOUT = 300.0
"""Seconds; LimaCharlie answers when it has read all events."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a rule would have done."""

    matched: bool
    results: Sequence[Doc]
    """Each ``{"action": …, "data": …}``."""
    traces: Sequence[Any] = field(repr=False)
    stats: Doc = field(repr=False)
    """``n_proc``, ``n_eval``, ``n_billed``, ``wall_time``, ``estimated_price`` …"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a replay may read; 0 is without end."""

    events: int = 0
    evaluations: int = 0


class Replay:
    """Needs ``insight.evt.get``. All raise what `Transport.request` raises, and `RequestRefusedError` for a wrong rule.

    A rule is the name of one that exists, or a document with ``detect`` and, if it has one, ``respond``.
    """

    def __init__(self, transport: Transport, oid: str, organization: Organization) -> None:
        self._transport = transport
        self._oid = oid
        self._organization = organization

    async def history(
        self,
        rule: str | Doc,
        start: When = "24h",
        end: When = "now",
        *,
        sid: str | None = None,
        selector: str | None = None,
        stream: str = "event",
        namespace: Namespace = "general",
        limits: Limits | None = None,
        trace: bool = False,
        dry_run: bool = False,
    ) -> Replayed:
        """Run a rule over what was kept of one sensor, of those that a selector means, or of all. A dry run tells the price."""
        if sid is not None and selector is not None:
            raise UsageError("A sensor id and a selector exclude each other.")
        first, last = Period.of(start, end, self._transport.clock.now()).seconds()
        source: Doc = {"start_time": first, "end_time": last}
        if sid is not None:
            source["sid"] = sensor_id(sid)
        if selector is not None:
            source["selector"] = selector
        return await self._run(
            rule, namespace, {"stream": stream, "sensor_events": source}, limits, trace=trace, dry_run=dry_run
        )

    async def events(
        self,
        rule: str | Doc,
        events: Sequence[Doc],
        *,
        stream: str = "event",
        namespace: Namespace = "general",
        trace: bool = False,
    ) -> Replayed:
        """Run a rule over these events."""
        source = {"stream": stream, "sensor_events": {}, "events": list(events)}
        return await self._run(rule, namespace, source, None, trace=trace, dry_run=False)

    async def validate(self, rule: Doc) -> None:
        """Check a rule. Raises `RequestRefusedError` with what is wrong with it."""
        await self.events(rule, [{"event": {}, "routing": {}}])

    async def _run(
        self, rule: str | Doc, namespace: Namespace, source: Doc, limits: Limits | None, *, trace: bool, dry_run: bool
    ) -> Replayed:
        limits = limits or Limits()
        request = {
            "oid": self._oid,
            "rule_source": {"rule_name": rule, "namespace": namespace} if isinstance(rule, str) else {"rule": rule},
            "event_source": source,
            "limit_event": limits.events,
            "limit_eval": limits.evaluations,
            "trace": trace,
            "is_dry_run": dry_run,
        }
        base = await self._organization.service("replay")
        answer = table(
            await self._transport.request("POST", "/", json=request, base=base, reads=True, timeout=_TIMEOUT),
            "POST replay",
        )
        if problem := answer.get("error"):
            raise RequestRefusedError(f"LimaCharlie answered: {self._transport.scrub(str(problem))}.", where="replay")
        results = tables(answer, "results", "replay")
        traces = answer.get("traces")
        stats = answer.get("stats")
        return Replayed(
            matched=answer.get("did_match") is True,
            results=results,
            traces=traces if isinstance(traces, list) else [],
            stats=stats if isinstance(stats, dict) else {},
        )
