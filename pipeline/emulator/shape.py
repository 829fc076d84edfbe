"""How records become bytes on a connection: framing, headers, and the ways in which a sender can be awkward."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PRIORITY = 38
"""Facility 4 (auth), severity 6 (info): what the only known sample of LimaCharlie's header says."""

TEXT_LINE = b"this line is text, not JSON"

Header = Literal["pri", "rfc3164", "rfc5424"]
Count = Annotated[int, Field(ge=0)]


class Shape(BaseModel):
    """The manner of writing. With the defaults each group of records is one big write."""

    model_config = ConfigDict(extra="forbid")

    write: Literal["big", "record", "split", "tail"] = "big"
    """`record`: each alone; `split`: cut at random places; `tail`: each with its last byte and LF apart."""
    max_piece: int = Field(default=16384, ge=1)
    """Longest piece of `split`, in bytes."""
    pause: float = Field(default=0.0, ge=0, le=60)
    """Seconds between two pieces, so that they travel apart."""
    crlf: bool = False
    """End lines with CR LF."""
    blank_every: Count = 0
    """A blank line before every n-th record."""
    text_every: Count = 0
    """A line that is not JSON before every n-th record; it is not in the ledger."""
    duplicate_every: Count = 0
    """Every n-th record twice."""
    reorder: bool = False
    """Shuffle the records of a group."""
    header: Header | None = None
    """The syslog header where an output wants one; by default `rfc5424` with structured data, else `pri`."""
    octet_counting: bool = False
    """RFC 6587 lengths before each frame instead of LF behind it."""


class Framer:
    """Turns groups of records into pieces to write, one after the other, for one connection."""

    def __init__(self, *, header: bool = False, structured_data: str = "", hostname: str = "limacharlie") -> None:
        self._header = header
        self._structured_data = structured_data
        self._hostname = hostname
        self._dice = random.Random(0)
        self._count = 0

    def arrange(self, lines: list[bytes], shape: Shape) -> list[bytes]:
        """The records in the order and number in which they will be sent."""
        if shape.duplicate_every:
            lines = [
                line
                for number, single in enumerate(lines, self._count + 1)
                for line in [single] * (1 + (number % shape.duplicate_every == 0))
            ]
        if shape.reorder:
            self._dice.shuffle(lines)
        return lines

    def pieces(self, lines: Sequence[bytes], shape: Shape) -> Iterator[bytes]:
        """The bytes of arranged records, cut as the shape says."""
        plain = not (self._header or shape.octet_counting or shape.crlf or shape.blank_every or shape.text_every)
        if plain and shape.write == "big":
            self._count += len(lines)
            yield b"\n".join(lines) + b"\n"
            return
        frames = list(self._frames(lines, shape))
        if shape.write == "record":
            yield from frames
        elif shape.write == "tail":
            for frame in frames:
                cut = max(len(frame) - 2, 0)
                yield from filter(None, (frame[:cut], frame[cut:]))
        elif shape.write == "split":
            yield from self._split(b"".join(frames), shape.max_piece)
        else:
            yield b"".join(frames)

    def _split(self, data: bytes, longest: int) -> Iterator[bytes]:
        start = 0
        while start < len(data):
            size = self._dice.randint(1, longest)
            yield data[start : start + size]
            start += size

    def _frames(self, lines: Sequence[bytes], shape: Shape) -> Iterator[bytes]:
        head = self._head(shape) if self._header else b""
        end = b"\r\n" if shape.crlf else b"\n"
        for line in lines:
            self._count += 1
            extra = []
            if shape.blank_every and self._count % shape.blank_every == 0 and not shape.octet_counting:
                yield end
            if shape.text_every and self._count % shape.text_every == 0:
                extra = [TEXT_LINE]
            for message in (*extra, line):
                yield (
                    b"%d %b%b" % (len(head) + len(message), head, message)
                    if shape.octet_counting
                    else head + message + end
                )

    def _head(self, shape: Shape) -> bytes:
        style = shape.header or ("rfc5424" if self._structured_data else "pri")
        now = time.gmtime()
        if style == "rfc5424":
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", now)
            data = self._structured_data or "-"
            return f"<{PRIORITY}>1 {stamp} {self._hostname} limacharlie - - {data} ".encode()
        if style == "rfc3164":
            # this format pads the day with a blank, not with a zero
            stamp = time.strftime("%b ", now) + f"{now.tm_mday:2d}" + time.strftime(" %H:%M:%S", now)
            return f"<{PRIORITY}>{stamp} {self._hostname} limacharlie: ".encode()
        return f"<{PRIORITY}> ".encode()
