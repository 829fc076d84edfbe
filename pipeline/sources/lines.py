"""Cuts a byte stream into lines, in bounded memory; what sources that read JSON lines share."""

from __future__ import annotations

import orjson

from pipeline.core.config import SourceConfig
from pipeline.core.source import Outlet

_HEAD = 4096


class Lines:
    """Cuts chunks into lines without line ends; empty ones are ignored.

    A line longer than ``max_record`` is refused as `oversize` by its beginning, and reading goes on after its end.
    """

    def __init__(self, config: SourceConfig, outlet: Outlet) -> None:
        self.outlet = outlet
        self._limit = config.max_record
        self._text = config.format == "text"
        self._held = bytearray()
        """The line that has no end yet."""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that end in this chunk."""
        if b"\n" not in chunk:
            self._hold(chunk)
            return []
        lines = chunk.split(b"\n")
        if self._held or self._skipping:
            lines[0] = self._release(lines[0])
        self._hold(lines.pop())
        if b"\r" in chunk:
            lines = [line.removesuffix(b"\r") for line in lines]
        if b"" in lines:
            lines = [line for line in lines if line]
        return lines

    def end(self) -> list[bytes]:
        """Return the last line, which has no line end, if it is a whole record; else it is refused as `truncated`."""
        line = self._release(b"")
        if not line.strip():
            return []
        if self._text or _is_json(line):
            return [line]
        self.outlet.refuse(line, "truncated")
        return []

    def _hold(self, piece: bytes) -> None:
        if self._skipping or not piece:
            return
        self._held += piece
        # One more for a CR that belongs to the line's end.
        if len(self._held) > self._limit + 1:
            head = bytes(self._held[:_HEAD])
            self._held = bytearray()
            self._skipping = True
            self.outlet.refuse(head, "oversize")

    def _release(self, rest: bytes) -> bytes:
        """The held line with its rest, without a CR at its end; b"" where the line was refused before."""
        self._hold(rest)
        line = bytes(self._held).removesuffix(b"\r")
        self._held = bytearray()
        self._skipping = False
        return line


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except ValueError:
        return False
    return True
