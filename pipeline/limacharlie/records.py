"""What a decoded record says of itself: pure functions over every stream's shapes.

A field that is absent or of another type than documented is None: records come from endpoints and adapters, and are not trusted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

Doc = Mapping[str, Any]

_MILLISECONDS_FROM = 1e11
"""Larger numbers are milliseconds, smaller ones seconds (it is the year 5138 in seconds)."""
_TIME_MAX = 253_402_300_800_000
"""The year 10000, in milliseconds."""


def _table(value: Any) -> Doc:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def routing(doc: Doc) -> Doc:
    """The routing of a record, or of the event inside of a detection; {} for audit and billing."""
    return _table(doc.get("routing")) or _table(_table(doc.get("detect")).get("routing"))


def is_detection(doc: Doc) -> bool:
    return "detect" in doc and "cat" in doc


def payload(doc: Doc) -> Doc:
    """What happened: an event's ``event``, a detection's event in both shapes, a billing ``record``, an audit record itself."""
    if is_detection(doc):
        detect = _table(doc["detect"])
        if "routing" in detect:
            return _table(detect.get("event"))
        return detect
    for key in ("event", "record"):
        if key in doc:
            return _table(doc[key])
    return doc


def event_type(doc: Doc) -> str | None:
    """``NEW_PROCESS``; of a detection, the type of its event; ``etype`` of an audit record; ``billing_record``."""
    found = _text(routing(doc).get("event_type")) or _text(doc.get("etype"))
    return found or ("billing_record" if "record" in doc else None)


def detect_id(doc: Doc) -> str | None:
    return _text(doc.get("detect_id"))


def event_id(doc: Doc) -> str | None:
    """The event's id; of a detection, that of the event it is about (several detections may share it)."""
    return _text(routing(doc).get("event_id"))


def record_id(doc: Doc) -> str | None:
    """A billing record's id."""
    return _text(_table(doc.get("record")).get("record_id"))


def unique_id(doc: Doc) -> str | None:
    """The id that names this record and no other, or None where its kind has none."""
    if is_detection(doc):
        return detect_id(doc)
    return detect_id(doc) or event_id(doc) or record_id(doc)


def dedupe_id(doc: Doc, stream: str) -> str:
    """A key that two copies of one record share: its own id, else a hash of its content (whatever the order of its keys)."""
    found = unique_id(doc)
    if found is not None:
        return f"{stream}:{found}"
    try:
        content = orjson.dumps(doc, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # Deeper than the encoder goes, though the decoder went there.
        content = repr(doc).encode("utf-8", "surrogatepass")
    return f"{stream}#{hashlib.blake2b(content, digest_size=16).hexdigest()}"


def oid(doc: Doc) -> str | None:
    """The organization's id, wherever the stream has it."""
    return _text(routing(doc).get("oid")) or _text(doc.get("oid")) or _text(_table(doc.get("record")).get("oid"))


def hostname(doc: Doc) -> str | None:
    return _text(routing(doc).get("hostname"))


def category(doc: Doc) -> str | None:
    """A detection's name, or what a billing record is about."""
    return _text(doc.get("cat")) or _text(_table(doc.get("record")).get("cat"))


def priority(doc: Doc) -> int | None:
    found = doc.get("priority")
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def time_ms(doc: Doc) -> int | None:
    """When it happened, in Unix milliseconds; a detection's time is its event's, else that of its making."""
    record = _table(doc.get("record"))
    for value in (
        routing(doc).get("event_time"),
        doc.get("time"),
        doc.get("gen_time"),
        doc.get("ts"),
        _table(doc.get("detect")).get("ts"),
        record.get("ts"),
    ):
        found = parse_time(value)
        if found is not None:
            return found
    return None


def parse_time(value: Any) -> int | None:
    """Unix milliseconds of a number (seconds or milliseconds, told apart by size) or a text (ISO 8601, or UTC without a zone)."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        milliseconds = value if value > _MILLISECONDS_FROM else value * 1000
        return int(milliseconds) if 0 < milliseconds < _TIME_MAX else None
    if not isinstance(value, str) or not 10 <= len(value) <= 40:
        return None
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    milliseconds = round(when.timestamp() * 1000)
    return milliseconds if milliseconds > 0 else None
