"""Records out of a byte stream: lines, with or without a syslog header, and octet-counted frames, told apart per record."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import islice
from typing import Literal

import orjson

from pipeline.core.lines import Edges, Lines

Fault = Literal["oversize", "token", "truncated"]

HEADER_MAX = 4096
"""A header longer than this is not looked for; it is also what a line may be longer than its record."""
HEAD = 1024
"""Bytes kept of what is refused for its size."""
TURN = 2048
"""Lines and frames that one call takes: some milliseconds, whatever a stranger sends."""

_LF, _LESS = b"\n<"
_BRACE = frozenset(b"{")
_DIGITS = frozenset(b"0123456789")

_COUNT = re.compile(rb"([1-9]\d{0,8}) (?=\{|<\d{1,3}>)")
_COUNT_OF_TEXT = re.compile(rb"([1-9]\d{0,8}) (?=<\d{1,3}>)")
_COUNT_BEGUN = re.compile(rb"[1-9]\d{0,8}(?: (?:<\d{0,3})?)?")
_PRI = re.compile(rb"<\d{1,3}>")
_BARE_PRI = re.compile(rb"<\d{1,3}> ?(?=\{)")
_RFC5424 = re.compile(rb"[1-9]\d{0,2}(?: \S{1,255}){5} ")
_STRUCTURED = re.compile(rb'(?:\[(?:[^\]"\\]++|\\.|"(?:[^"\\]++|\\.)*+")*+\])++|-(?= |$)', re.DOTALL)
_RFC3164 = re.compile(
    rb"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S{8,30}) \S{1,255} (?:[\w./-]{1,48}(?:\[\w{1,16}\])?: ?)?"
)
_BOM = b"\xef\xbb\xbf"


class Framer:
    """Takes the bytes of one connection in any pieces and gives its records, the same for every way of cutting.

    A record ends at LF; CR before it and blank lines mean nothing. A frame that begins with its length (``<len> <frame>``) ends
    there instead. With ``text`` records are lines of any form, else a record begins at the first ``{`` after its header.
    ``token`` must appear in each header's structured data. What cannot be a record is put into `refused`; the caller empties it.
    Not more than ``max_record`` + `HEADER_MAX` bytes, and what waits for its turn, are held.
    """

    __slots__ = ("_awaited", "_bound", "_count", "_max_record", "_rest", "_skip", "_tail", "_text", "_token", "refused")

    def __init__(self, max_record: int, *, text: bool = False, token: bytes = b"") -> None:
        self._max_record = max_record
        self._bound = max_record + HEADER_MAX
        self._text = text
        self._count = _COUNT_OF_TEXT if text else _COUNT
        self._token = token
        self._tail = bytearray()
        self._rest = b""
        """What comes after `TURN` lines; there is no tail then."""
        self._awaited = 0
        """Bytes the tail must have before it is worth a look; 0: it needs an LF."""
        self._skip = 0
        """Bytes of an oversize frame still to come; -1: an oversize line, up to its LF."""
        self.refused: list[tuple[bytes, Fault]] = []

    @property
    def held(self) -> int:
        """Bytes of an unfinished record."""
        return len(self._tail)

    @property
    def ahead(self) -> int:
        """Bytes that wait for the next `feed`, which need not bring more. Nothing is unfinished then."""
        return len(self._rest)

    @property
    def head(self) -> bytes:
        """The beginning of an unfinished record."""
        return bytes(self._tail[:HEAD])

    def drop(self) -> bytes:
        """Forget an unfinished record and return its beginning; it must not be fed any more."""
        return self._take()[:HEAD]

    def feed(self, data: bytes) -> Sequence[bytes]:
        """Take the next bytes; return the records that they complete, of `TURN` lines and frames at most."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        if self._skip:
            data = self._skipped(data)
        if not data:
            return []
        tail = self._tail
        if self._awaited:
            tail += data
            return self._walk(self._take()) if len(tail) >= self._awaited else []
        if not self._token and (block := self._block(data)) is not None:
            return block
        stream = io.BytesIO(data)
        lines = list(islice(stream, TURN))
        self._rest = stream.read()
        if tail:
            if lines[0][-1] != _LF:
                tail += data
                self._check_tail()
                return []
            lines[0] = b"".join((tail, lines[0]))
            tail.clear()
        firsts = {line[0] for line in lines}
        if firsts & _DIGITS:
            rest, self._rest = self._rest, b""
            return self._walk(b"".join((*lines, rest)))
        if lines[-1][-1] != _LF:
            tail += lines.pop()
            self._check_tail()
        return self._lines(lines)

    def finish(self, *, orderly: bool = True) -> list[bytes]:
        """Take the end of the stream: an unfinished record is given if it is whole, else refused as ``truncated``.

        A text record counts as whole when the peer ended the stream in order.
        """
        records: list[bytes] = []
        while self._rest:
            records += self.feed(b"")
        rest = self._take()
        self._awaited = self._skip = 0
        counted = self._count.match(rest)
        last = self._lines(rest[counted.end() :].split(b"\n", TURN) if counted else [rest])
        if last and not (orderly and not counted if self._text else _whole(last[-1])):
            self.refused.append((last.pop()[:HEAD], "truncated"))
        return records + last

    def _block(self, data: bytes) -> Lines | None:
        """Whole lines that are records just as they are, in one block; None, and nothing taken, where a closer look is needed."""
        end = data.rfind(b"\n") + 1
        if not end or (end < len(data) and data[end] in _DIGITS):
            return None
        tail = self._tail
        block = b"".join((tail, memoryview(data)[:end])) if tail or end < len(data) else data
        stream = io.BytesIO(block)
        lines = list(islice(stream, TURN))
        edges = Edges.of(lines)
        if edges.firsts != _BRACE or edges.longest > self._max_record or b"\r" in block:
            return None
        at = stream.tell()
        if at < len(block):
            self._rest = block[at:] + data[end:]
            self._tail = bytearray()
            return Lines(block[:at], len(lines), edges)
        self._tail = bytearray(memoryview(data)[end:])
        self._check_tail()
        return Lines(block, len(lines), edges)

    def _take(self) -> bytes:
        data = bytes(self._tail)
        self._tail = bytearray()
        return data

    def _check_tail(self) -> None:
        if len(self._tail) > self._bound:
            self.refused.append((bytes(self._tail[:HEAD]), "oversize"))
            self._tail = bytearray()
            self._skip = -1

    def _skipped(self, data: bytes) -> bytes:
        """Drop what belongs to an oversize record; return the rest."""
        if self._skip > 0:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            return data[dropped:]
        end = data.find(b"\n")
        if end < 0:
            return b""
        self._skip = 0
        return data[end + 1 :]

    def _walk(self, data: bytes) -> list[bytes]:
        """Go through records one by one, where some may begin with their length."""
        records: list[bytes] = []
        at, size = 0, len(data)
        self._awaited = 0
        for _ in range(TURN):
            if at >= size:
                break
            if data[at] in _DIGITS:
                if match := self._count.match(data, at):
                    end = match.end() + int(match[1])
                    if end - match.end() > self._bound:
                        self.refused.append((data[match.end() : match.end() + HEAD], "oversize"))
                        self._skip = max(0, end - size)
                        at = end
                        continue
                    if end > size:
                        self._awaited = end - at
                        break
                    # A frame has one record, seldom more; what has very many is left for others to refuse.
                    records += self._lines(data[match.end() : end].split(b"\n", TURN))
                    at = end
                    continue
                if size - at < 16 and _COUNT_BEGUN.fullmatch(data, at):
                    self._awaited = size - at + 1
                    break
            end = data.find(b"\n", at)
            if end < 0:
                break
            records += self._lines([data[at:end]])
            at = end + 1
        else:
            self._rest = data[at:]
            return records
        if at < size:
            self._tail += data[at:]
            if not self._awaited:
                self._check_tail()
        return records

    def _lines(self, lines: list[bytes]) -> list[bytes]:
        """The records in whole lines, of any kind."""
        records = []
        for line in lines:
            record = line.rstrip(b"\r\n")
            if not record or record.isspace():
                continue
            if len(record) > self._bound:
                self.refused.append((record[:HEAD], "oversize"))
                continue
            start, structured = self._header(record)
            if self._token and self._token not in structured:
                self.refused.append((record[:HEAD], "token"))
                continue
            if start:
                record = record[start:]
            if len(record) > self._max_record:
                self.refused.append((record[:HEAD], "oversize"))
            elif record:
                records.append(record)
        return records

    def _header(self, line: bytes) -> tuple[int, bytes]:
        """Where the record begins in a line, and the structured data before it (the whole header in formats without)."""
        if line[0] != _LESS:
            return 0, b""
        if bare := _BARE_PRI.match(line):
            return bare.end(), b""
        pri = _PRI.match(line)
        if not pri:
            return 0, b""
        at = pri.end()
        if fields := _RFC5424.match(line, at, HEADER_MAX):
            begin = fields.end()
            data = _STRUCTURED.match(line, begin, HEADER_MAX)
            if data:
                at = self._payload(line, data.end())
                return at, data[0]
            # Some write a bare text where the elements belong.
            at = self._payload(line, begin)
            return at, line[begin:at]
        if old := _RFC3164.match(line, at, HEADER_MAX):
            at = old.end()
        start = self._payload(line, at)
        return start, line[pri.end() : start]

    def _payload(self, line: bytes, at: int) -> int:
        if self._text:
            at += line.startswith(b" ", at)
            return at + 3 if line.startswith(_BOM, at) else at
        brace = line.find(b"{", at, HEADER_MAX)
        return at if brace < 0 else brace


def _whole(record: bytes) -> bool:
    try:
        return isinstance(orjson.loads(record), dict)
    except orjson.JSONDecodeError:
        return False
