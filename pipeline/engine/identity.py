"""What makes two copies of a record one record: its own id, or where its kind has none, its content.

Which id that is, `pipeline.limacharlie.records.unique_id` says; here it is taken out of the bytes without decoding the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import msgspec
import orjson

from pipeline.core.batch import Batch
from pipeline.limacharlie import records

SIZE = 16
"""Bytes of a key."""


class _Routing(msgspec.Struct):
    event_id: str = ""


_ABSENT = msgspec.Raw()


class _Outline(msgspec.Struct):
    """As much of a record as names it; a record of another shape is decoded in full."""

    detect_id: str | None = None
    routing: _Routing | None = None
    detect: msgspec.Raw = _ABSENT


_outline: Callable[[bytes], _Outline] = msgspec.json.Decoder(_Outline).decode


def keys(batch: Batch, raws: Iterable[bytes]) -> list[bytes]:
    """A key of `SIZE` bytes for each of these records of a batch; copies of a record have the same key and others have not.

    Records of different streams or organizations are never copies of each other.
    """
    prefix = f"{batch.stream}\0{batch.log.org}\0".encode()
    outline, known, found = _outline, prefix + b"i", []
    for raw in raws:
        try:
            shape = outline(raw)
            name = shape.detect_id
            if not name and shape.detect is _ABSENT and shape.routing is not None:
                name = shape.routing.event_id
            data = known + name.encode() if name else _unusual(prefix, raw)
        except (ValueError, msgspec.MsgspecError, RecursionError):
            data = _unusual(prefix, raw)
        found.append(blake2b(data, digest_size=SIZE).digest())
    return found


def _unusual(prefix: bytes, raw: bytes) -> bytes:
    """What names a record that the outline does not: another id, or the content."""
    try:
        doc = orjson.loads(raw)
        name = records.unique_id(doc) if isinstance(doc, dict) else None
    except ValueError:
        name = None
    return prefix + (b"i" + name.encode() if name else b"c" + _content(raw))


def _content(raw: bytes) -> bytes:
    """The record with its keys sorted and without spaces, numbers as they were written; as it is where that is not possible."""
    try:
        doc = json.loads(
            raw,
            object_pairs_hook=_table,
            parse_int=orjson.Fragment,
            parse_float=orjson.Fragment,
            parse_constant=_refuse,
        )
        return orjson.dumps(doc, option=orjson.OPT_SORT_KEYS)
    except (ValueError, TypeError, RecursionError):
        return raw


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key comes twice")
    return table


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
