"""Knobs on streams and outputs: how connections open, what they say, how records are written, how they end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field

from pipeline.emulator.connections import Close as CloseManner
from pipeline.emulator.connections import Scope
from pipeline.emulator.faults import Opening
from pipeline.emulator.generator import hostile
from pipeline.emulator.panel import Knob, Panel, Result, Seconds, Times
from pipeline.emulator.payloads_detect import Shape as DetectShape
from pipeline.emulator.records import Record
from pipeline.emulator.shape import Shape

FOREVER = 1e12
"""Unix seconds that nobody will see."""


class ConnectDelay(Knob):
    """Time between the head of a stream's answer and `connected`; null is the default (1 s live, none at rate 0)."""

    seconds: Seconds | None

    def turn(self, panel: Panel) -> Result:
        panel.faults.connect_delay = self.seconds
        return {}


class OfOpenings(Knob):
    oid: str | None = None
    stream: str | None = None
    times: Times = 1
    """How many connections; null until `clear`."""


class StreamError(OfOpenings):
    """A stream connection gets 200, this line, and the end."""

    line: str = "error: unauthorized"
    """A text, or a JSON object as `{"error":"…"}`."""

    def turn(self, panel: Panel) -> Result:
        panel.faults.openings.arm(Opening(**self.model_dump()))
        return {}


class InstantClose(OfOpenings):
    """A stream connection gets 200 and the end, nothing else."""

    def turn(self, panel: Panel) -> Result:
        panel.faults.openings.arm(Opening(**self.model_dump()))
        return {}


class OfConnections(Scope, Knob):
    """A knob on the connections that are open now."""

    def scope(self) -> Scope:
        return Scope(oid=self.oid, via=self.via, stream=self.stream, name=self.name)


class Stall(OfConnections):
    """Open connections go silent, keep-alives included."""

    seconds: Seconds = 86_400.0
    """0 ends it."""

    def turn(self, panel: Panel) -> Result:
        found = panel.hub.within(self.scope())
        for connection in found:
            connection.stall(self.seconds)
        return {"connections": len(found)}


class Drop(OfConnections):
    """The next records of each open connection are lost; a spout is told by a `dropped` trace."""

    n: Annotated[int, Field(ge=1)] = 1

    def turn(self, panel: Panel) -> Result:
        found = panel.hub.within(self.scope())
        for connection in found:
            connection.feed.lose(self.n)
        return {"connections": len(found)}


class Say(OfConnections):
    """Send a line of any text on open connections; it is not in the ledger."""

    line: str

    def turn(self, panel: Panel) -> Result:
        found = panel.hub.within(self.scope())
        for connection in found:
            connection.say(self.line.encode())
        return {"connections": len(found)}


class Close(OfConnections):
    """End open connections: clean, with a reset, or in the middle of a record."""

    how: CloseManner = "clean"

    def turn(self, panel: Panel) -> Result:
        found = panel.hub.within(self.scope())
        for connection in found:
            connection.close(self.how)
        return {"connections": len(found)}


class SetShape(Shape, OfConnections):
    """How records are written, on open and future connections; what is not given is as by default."""

    def turn(self, panel: Panel) -> Result:
        panel.hub.shapes.set(self.scope(), Shape(**self.model_dump(include=set(Shape.model_fields))))
        return {}


class SetOutput(Knob):
    """Disable an output, as the cloud does after failures, or enable it again."""

    name: str
    oid: str | None = None
    """Organization; the first without."""
    enabled: bool
    seconds: Seconds | None = None
    """How long it stays disabled; for good without."""

    def turn(self, panel: Panel) -> Result:
        org = panel.hub.cloud.find_orgs(self.oid)[0]
        if self.name not in org.outputs:
            raise LookupError(f"unknown output {self.name}")
        output = org.outputs[self.name]
        if self.enabled:
            output.disabled_until = 0.0
        else:
            until = FOREVER if self.seconds is None else time.time() + self.seconds
            panel.dialer.disable(org, output, until, "on request")
        panel.dialer.update(org, self.name)
        return {}


class SetDialer(Knob):
    """How the dialer takes failures."""

    failures: Annotated[int, Field(ge=1)] = 5
    """In a row, until an output is disabled."""
    disable_for: Seconds = 60.0
    backoff_base: Annotated[float, Field(gt=0, le=60)] = 0.2
    backoff_cap: Annotated[float, Field(gt=0, le=600)] = 5.0

    def turn(self, panel: Panel) -> Result:
        for name, value in self.model_dump().items():
            setattr(panel.dialer.manners, name, value)
        return {}


class Trust(Knob):
    """Accept the certificates of an authority at destinations of strict outputs."""

    ca: Path
    """PEM file."""

    def turn(self, panel: Panel) -> Result:
        try:
            panel.dialer.trust(self.ca)
        except OSError as error:
            raise ValueError(f"{self.ca}: {error}") from error
        return {}


class Buffer(Knob):
    """What new connections buffer for a slow reader before records are dropped."""

    records: Annotated[int, Field(ge=1)] = 4096
    size: Annotated[int, Field(ge=1)] = 32 << 20
    """Bytes."""

    def turn(self, panel: Panel) -> Result:
        panel.hub.live.max_records, panel.hub.live.max_bytes = self.records, self.size
        return {}


class Emit(Knob):
    """Send given records to all who are connected to a stream."""

    stream: str
    records: Annotated[list[str | dict[str, Any]], Field(min_length=1)]
    """Texts go out as they are, objects as compact JSON."""
    oid: str | None = None
    """Organization; all without."""

    def turn(self, panel: Panel) -> Result:
        records = [_record(self.stream, each) for each in self.records]
        orgs = panel.hub.cloud.find_orgs(self.oid)
        for org in orgs:
            # a page of the history is JSON, so only what is JSON can be in it
            panel.hub.live.history.add(org.oid, self.stream, [record for record in records if _is_object(record.raw)])
        return {"connections": sum(panel.hub.live.publish(org.oid, self.stream, records) for org in orgs)}


class Hostile(Knob):
    """Send records that are valid JSON and meant to hurt: names that steer paths and terminals, depth, sizes, numbers."""

    stream: str = "event"
    oid: str | None = None
    """Organization; all without."""
    distinct: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Records with a host name of their own each; `buffer` must have room for them."""
    string_bytes: Annotated[int, Field(ge=0, le=256 << 20)] = 1 << 20
    depth: Annotated[int, Field(ge=1, le=100_000)] = 500

    def turn(self, panel: Panel) -> Result:
        given = self.model_dump(include={"distinct", "string_bytes", "depth"})
        found = 0
        for org in panel.hub.cloud.find_orgs(self.oid):
            records = [_record(self.stream, raw) for raw in hostile(org.seed, oid=org.oid, **given)]
            found += panel.hub.live.publish(org.oid, self.stream, records)
        return {"connections": found}


class SetDetectShape(Knob):
    """Whether `detect` holds the event with its routing, as real detections do, or its payload, as the documentation says.

    It counts for connections that begin afterwards at rate 0, and for all that is generated afterwards in live mode.
    """

    shape: DetectShape

    def turn(self, panel: Panel) -> Result:
        panel.hub.live.detect_shape = self.shape
        return {}


def _is_object(raw: bytes) -> bool:
    try:
        return isinstance(orjson.loads(raw), dict)
    except orjson.JSONDecodeError:
        return False


def _record(stream: str, given: bytes | str | dict[str, Any]) -> Record:
    raw = given if isinstance(given, bytes) else given.encode() if isinstance(given, str) else orjson.dumps(given)
    if b"\n" in raw:
        raise ValueError("a record is one line")
    try:
        doc = orjson.loads(raw)
    except orjson.JSONDecodeError:
        doc = None
    doc = doc if isinstance(doc, dict) else {}
    routing: Any = doc.get("routing") if isinstance(doc.get("routing"), dict) else {}
    happened = routing.get("event_time")
    return Record(
        raw=raw,
        stream=stream,
        event_type=str(routing.get("event_type", "")),
        sid=str(routing.get("sid", "")),
        tags=tuple(map(str, routing.get("tags") or ())),
        cat=str(doc.get("cat", "")),
        inv_id=str(routing.get("investigation_id", "")),
        time_ms=happened if isinstance(happened, int) else int(time.time() * 1000),
        id=str(doc.get("detect_id") or routing.get("event_id", "")),
    )
