"""The events that all benchmarks use, and what each job must make of them: ``python -m benchmarks.corpus [EVENTS]`` shows their shape.

They are the local LimaCharlie's, in another mixture: of an organization that stores telemetry and whose filters keep the starts of
processes. The targets were set on events of 1,571 bytes in the mean of which 35 % are kept, and a ratio to another program depends on
both: a filter that drops nearly all makes writing free, and small events make everything but parsing dear.
"""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import Generator

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
KEEP = "NEW_PROCESS"
"""The event type that the filters keep."""
MARK = b'"event_type":"NEW_PROCESS"'
"""What a filter on bytes looks for."""
SHARES = {KEEP: 0.35, "NETWORK_CONNECTIONS": 0.27, "": 0.38}
"""The mixture; all other types come in their own proportions. Lists of connections are what makes events large."""
MEAN = 1571
"""Bytes of an event in the mean, without its line end."""
NEAR = 0.03
"""How far from both a corpus may be: a few events of 100 KB are in it. Where it is short (`SHORT` events), they may weigh more."""
SHORT = 50_000
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
    beyond_ascii: int
    """Records with characters that ASCII lacks, for which checks of UTF-8 cost more."""
    types: Counter[str] = field(default_factory=Counter, compare=False)

    @property
    def mean(self) -> float:
        return self.size / self.records - 1


def corpus(events: int) -> Path:
    """A file with so many events; kept for later runs."""
    path = CACHE / f"corpus-{MEAN}-{events}.jsonl"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            for _, line in zip(range(events), _mixed(), strict=False):
                file.write(line)
        unfinished.rename(path)
    return path


def _mixed() -> Iterator[bytes]:
    """The generator's events without those of which there are enough: each beginning of it has the shares, too."""
    generator = Generator(Fleet(OID, seed=7), "event", 7, 1_700_000_000_000, 1000.0)
    taken = dict.fromkeys(SHARES, 0)
    total = 0
    while True:
        for record in generator.take(1000):
            kind = orjson.loads(record.raw)["routing"]["event_type"]
            kind = kind if kind in SHARES else ""
            if taken[kind] <= SHARES[kind] * total:
                taken[kind] += 1
                total += 1
                yield record.raw + b"\n"


def first(path: Path, events: int) -> Corpus:
    """The first events of a corpus, and what is to come of them. Ends the program where they are not what the targets are about."""

    def lines() -> Iterator[bytes]:
        with path.open("rb") as file:
            for _, line in zip(range(events), file, strict=False):
                yield line

    types = Counter(orjson.loads(line)["routing"]["event_type"] for line in lines())
    everything = Content.of(lines())
    kept = Content.of(line for line in lines() if orjson.loads(line)["routing"]["event_type"] == KEEP)
    if kept != Content.of(line for line in lines() if MARK in line):
        raise SystemExit("The two filters do not agree on this corpus.")
    beyond = sum(not line.isascii() for line in lines())
    found = Corpus(path, everything.bytes, everything.records, everything, kept, beyond, types)
    off = max(abs(found.mean / MEAN - 1), abs(kept.records / found.records / SHARES[KEEP] - 1))
    if found.records >= SHORT and off > NEAR:
        raise SystemExit(f"{path} has {found.mean:.0f} bytes in the mean and keeps {kept.records}: {off:.1%} off.")
    return found


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    found = first(corpus(events), events)
    print(
        f"{found.records:,} events of {found.mean:,.0f} bytes in the mean; {found.kept.records / found.records:.1%} are kept"
        f" ({found.kept.bytes / found.size:.1%} of the bytes), {found.beyond_ascii / found.records:.1%} are beyond ASCII."
    )
    for name, count in found.types.most_common(12):
        print(f"  {count / found.records:6.1%} {name}")


if __name__ == "__main__":
    main()
