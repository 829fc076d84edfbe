"""Bytes into lines, lines into values."""

from __future__ import annotations

import io
from collections.abc import Callable

import orjson

from benchmarks.corpus import MARK
from pipeline.engine.projection import projection
from pipeline.kit.framing import Framer

CHUNK = 256 << 10
Cases = dict[str, Callable[[], object]]


def split(records: list[bytes]) -> Cases:
    data = b"\n".join([*records, b""])
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]

    def lines() -> None:
        tail = b""
        for chunk in chunks:
            found = io.BytesIO(tail + chunk).readlines()
            tail = found.pop() if found[-1][-1] != 10 else b""

    def parts() -> None:
        tail = b""
        for chunk in chunks:
            tail = (tail + chunk).split(b"\n").pop()

    def ours() -> None:
        framer = Framer(1 << 20)
        for chunk in chunks:
            framer.feed(chunk)

    return {"readlines, 256 KiB chunks": lines, "split": parts, "the listener's framer, with all checks": ours}


def decode(records: list[bytes]) -> Cases:
    one = projection([("routing", "event_type")], [])
    three = projection([("routing", "event_type"), ("routing", "sid"), ("event", "FILE_PATH")], [])

    def whole() -> None:
        for record in records:
            orjson.loads(record)

    def kept() -> None:
        for start in range(0, len(records), 256):
            list(map(orjson.loads, records[start : start + 256]))

    def projected(fields: Callable[[bytes], object]) -> Callable[[], None]:
        def work() -> None:
            for record in records:
                fields(record)

        return work

    def look() -> None:
        for record in records:
            _ = MARK in record

    return {
        "orjson, dropped at once": whole,
        "orjson, 256 kept": kept,
        "projection of one field": projected(one),
        "projection of three fields": projected(three),
        "byte test": look,
    }
