"""What a generator makes, and the small tools that all payloads are rendered with."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Record:
    """One generated record, with what output filters look at. A field that the stream does not have is ``""`` or ``()``."""

    raw: bytes
    """One compact JSON object in UTF-8, without a newline."""
    stream: str
    event_type: str
    """``routing.event_type``; for audit the ``etype``, for billing ``billing_record``."""
    sid: str
    tags: tuple[str, ...]
    """The sensor's tags."""
    cat: str
    inv_id: str
    """``routing.investigation_id`` whole, so ``<investigation>/<uuid>``."""
    time_ms: int
    """When it happened (events), was raised (detections) or was written (the rest), in Unix milliseconds."""
    id: str
    """``event_id``, ``detect_id`` or ``record_id``; ``""`` for audit and for deployment records about the whole organization."""


# LimaCharlie's encoder is Go's, which escapes these even inside strings.
_GO_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def compact(value: Any) -> bytes:
    """Encode ``value`` as compact JSON, with the escapes that LimaCharlie's own encoder uses."""
    # Only string contents can hold these characters, so replacing them in the whole text is safe.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_GO_ESCAPES).encode()


def stretch(deck: Sequence[tuple[T, int]]) -> list[T]:
    """Repeat each item of ``[(item, weight)]`` weight times, so that one index draws in proportion."""
    return [item for item, weight in deck for _ in range(weight)]


class Dice:
    """Reproducible random values: the same seed gives the same sequence on every machine and Python version.

    Only `random` and `getrandbits` of the standard generator are used; its other methods may change between versions.
    """

    __slots__ = ("bits", "random")

    def __init__(self, *seed: object) -> None:
        source = random.Random("|".join(map(str, seed)))
        self.random = source.random
        self.bits = source.getrandbits

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self.random() * len(items))]

    def between(self, low: int, high: int) -> int:
        """Return an integer in ``low..high``, both included."""
        return low + int(self.random() * (high - low + 1))

    def uuid(self) -> str:
        """Return a version 4 UUID."""
        h = f"{self.bits(128):032x}"
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"

    def sha256(self) -> bytes:
        """Return 64 hex digits."""
        return b"%064x" % self.bits(256)


class Stamp:
    """Renders Unix milliseconds as ``YYYY-MM-DD HH:MM:SS`` (UTC); a clock that moves forward pays once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def at(self, time_ms: int) -> bytes:
        second = time_ms // 1000
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second)).encode()
        return self._text
