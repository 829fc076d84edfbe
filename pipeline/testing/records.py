"""Records for tests: small ones of each stream, and hostile ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import orjson

from pipeline.core.batch import LogId, Origin
from pipeline.core.event import Event, Undecodable
from pipeline.core.items import Items, Part
from pipeline.core.types import RecordPath

RECORDS: Sequence[bytes] = (
    b'{"routing":{"event_type":"NEW_PROCESS","hostname":"ws-1","event_time":1700000000123,"sid":"s1"},"event":{"PROCESS_ID":4}}',
    b'{"routing":{"event_type":"DNS_REQUEST","hostname":"ws-2","sid":"s2"},"event":{"DOMAIN_NAME":"example.com"}}',
    '{"routing":{"event_type":"NEW_DOCUMENT","hostname":"büro-✓"},"event":{"FILE_PATH":"C:\\\\Pläne\\\\日本.docx"}}'.encode(),
    b'{"cat":"Suspicious","priority":5,"detect":{"event":{}},"routing":{"event_type":"NEW_PROCESS"},"source":"a.b.c"}',
    b'{"etype":"user_login","ident":"ann@example.com","time":1700000000}',
    b"{}",
    b'{"routing":null,"event":[],"priority":"high","cat":17}',
    b'{"routing":{"hostname":"../../etc/passwd","event_type":"a\\u0000b"},"event":{"text":"\\u202egnp.exe"}}',
    b'{ "spaced" : true , "twice": 1, "twice": 2 }',
)  # fmt: skip
"""Small records of several streams: usual ones, odd ones, hostile ones. All are valid JSON objects."""


def make_events(
    raws: Iterable[bytes], *, stream: str = "event", org: str = "", received_at: float = 1_700_000_000.0, first: int = 0
) -> list[Event]:
    """Make the events of a batch; ``first`` is the sequence number of the first one."""
    return [
        Event(raw, stream, org, received_at, "live", first + index, index)
        for index, raw in enumerate(raws)
    ]  # fmt: skip


def make_items(
    payloads: Sequence[bytes],
    *,
    stream: str = "event",
    org: str = "",
    source: str = "tested",
    received_at: float = 1_700_000_000.0,
    origin: Origin = "live",
    paths: Iterable[RecordPath] = (),
) -> Items:
    """Make what a sink's `write` gets, of one part. ``paths`` are those of the sink; their values are taken from the payloads."""
    wanted = tuple(paths)
    values = [_values(payload, wanted) for payload in payloads] if wanted else None
    return Items([Part(list(payloads), stream, LogId(source, org), received_at, origin, values)])


def _values(payload: bytes, paths: Sequence[RecordPath]) -> Mapping[str, str]:
    try:
        doc = Event(payload, "event").doc
    except Undecodable:
        return {}
    return {path: text for path in paths if (text := path.text(doc)) is not None}


def large_record(size: int) -> bytes:
    """A valid record of about ``size`` bytes."""
    return orjson.dumps({"routing": {"event_type": "LARGE", "hostname": "ws-1"}, "event": {"text": "é" * (size // 2)}})
