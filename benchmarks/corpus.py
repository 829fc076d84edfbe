"""The events that all benchmarks use, and what each job must make of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import Generator

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
KEEP = "NEW_PROCESS"
"""The event type that the filters keep."""
MARK = b'"event_type":"NEW_PROCESS"'
"""What a filter on bytes looks for."""
CACHE = Path(__file__).parent.parent / ".cache"


@dataclass(frozen=True)
class Content:
    """Lines, whatever their order."""

    records: int = 0
    bytes: int = 0
    checksum: int = 0

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> Content:
        records = size = checksum = 0
        for line in lines:
            records, size, checksum = records + 1, size + len(line), checksum + zlib.crc32(line)
        return cls(records, size, checksum)


@dataclass(frozen=True)
class Corpus:
    path: Path
    size: int
    """Bytes that are sent of it."""
    records: int
    everything: Content
    kept: Content
    """What the filters let through; the one on fields and the one on bytes agree here."""


def corpus(events: int) -> Path:
    """A file with so many events; kept for later runs."""
    path = CACHE / f"corpus-{events}.jsonl"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        generator = Generator(Fleet(OID, seed=7), "event", 7, 1_700_000_000_000, 1000.0)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            for start in range(0, events, 1000):
                file.writelines(record.raw + b"\n" for record in generator.take(min(1000, events - start)))
        unfinished.rename(path)
    return path


def first(path: Path, events: int) -> Corpus:
    """The first events of a corpus, and what is to come of them."""

    def lines() -> Iterator[bytes]:
        with path.open("rb") as file:
            for _, line in zip(range(events), file, strict=False):
                yield line

    everything = Content.of(lines())
    kept = Content.of(line for line in lines() if orjson.loads(line)["routing"]["event_type"] == KEEP)
    if kept != Content.of(line for line in lines() if MARK in line):
        raise SystemExit("The two filters do not agree on this corpus.")
    return Corpus(path, everything.bytes, everything.records, everything, kept)
