"""The Spout protocol: bytes into records, and the lines in between that are not records."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from pipeline.core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    PipelineError,
    RateLimitedError,
    UnavailableError,
)
from pipeline.core.lines import Lines
from pipeline.kit.http import clean
from pipeline.limacharlie.token import named_permission

HEAD = 4096
"""Bytes that are kept of an oversize record."""
_LOOK = (b'{"__trace"', b'{"error"', b"{ ", b"{\t")
_HEADS = max(map(len, _LOOK))
_MAX_DROPPED = 10**12
_DENIED = re.compile(r"permission|privilege|forbidden|not allowed|access denied", re.IGNORECASE)
_UNAUTHORIZED = re.compile(r"unauthori[sz]ed|authenticat|credential|api key|jwt|token", re.IGNORECASE)
_LIMITED = re.compile(r"too many|rate limit|quota|throttl", re.IGNORECASE)
_UNKNOWN = re.compile(r"not found|no such|unknown (?:org|oid)", re.IGNORECASE)


class SpoutParser:
    """Splits a stream connection's bytes into records; what else it meets stays in its attributes for the caller to take.

    Holds at most ``max_record`` bytes and one chunk. With ``text`` a record may be any line. ``scrub`` makes LimaCharlie's words fit
    for a log.
    """

    def __init__(self, max_record: int, *, text: bool = False, scrub: Callable[[str], str] = clean) -> None:
        self.live = False
        """The subscription is in force: LimaCharlie said so, or something came that only a live one gives."""
        self.dropped = 0
        """Records that LimaCharlie says it dropped."""
        self.error: PipelineError | None = None
        """Why LimaCharlie refuses or ends the stream, if it said so."""
        self.oversize: list[bytes] = []
        """Beginnings of records that were larger than ``max_record``."""
        self.cut = 0
        """Bytes of a record that the end of the connection cut off."""
        self._max = max_record
        self._text = text
        self._scrub = scrub
        self._tail = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """Return the records that this chunk completes, without their line ends; as `Lines` where none of them needed a look."""
        lines = io.BytesIO(chunk).readlines()
        start, end = 0, len(chunk)
        if not lines:
            return []
        first: list[bytes] = []
        if self._skipping:
            if not lines[0].endswith(b"\n"):
                return []
            self._skipping = False
            start = len(lines.pop(0))
        elif self._tail and lines[0].endswith(b"\n"):
            start = len(lines[0])
            self._tail += lines.pop(0)
            first = self._complete(bytes(self._tail))
            self._tail = bytearray()
        if lines and not lines[-1].endswith(b"\n"):
            end -= len(lines[-1])
            self._hold(lines.pop())
        if not lines:
            return first
        # What needs a look is rare, and lines begin in few ways: whether there is any is cheaper to ask than to look at each line.
        heads = {line[:_HEADS] for line in lines}
        if b"\r" in chunk or not all(head.startswith(b"{") and not head.startswith(_LOOK) for head in heads):
            return first + [record for line in lines if (record := self._look(line)) is not None]
        self.live = True
        block = Lines(chunk[start:end], len(lines))
        return Lines.joined((Lines.of(first), block)) if first else block

    def finish(self, *, orderly: bool) -> list[bytes]:
        """The connection ended: return the unterminated rest if it is a whole record, else count it in ``cut``."""
        tail, self._tail, self._skipping = bytes(self._tail), bytearray(), False
        record = self._look(tail)
        if record is None:
            return []
        if (self._text and orderly) or _whole(record):
            return [record]
        self.cut += len(record)
        return []

    def _hold(self, piece: bytes) -> None:
        self._tail += piece
        # One byte more than a record may have: its line end may still be a CR LF.
        if len(self._tail) > self._max + 1:
            self.oversize.append(bytes(self._tail[:HEAD]))
            self._tail, self._skipping = bytearray(), True

    def _complete(self, line: bytes) -> list[bytes]:
        record = self._look(line)
        return [] if record is None else [record]

    def _look(self, line: bytes) -> bytes | None:
        """Return the line without its end if it is a record; else take note of what it says."""
        line = line.rstrip(b"\r\n")
        if not line or line.isspace():
            return None
        if line.startswith(b"{"):
            # A record may begin like a trace or an error; those are short and have one discriminating key.
            if not (line.startswith(_LOOK) and len(line) <= HEAD and self._trace(line)):
                self.live = True
                return line
            return None
        if line[:6].lower() == b"error:" and not (self._text and self.live):
            self.error = stream_error(self._scrub(line[6 : HEAD + 6].decode("utf-8", "replace")))
            return None
        if self._text:
            self.live = True
        return line

    def _trace(self, line: bytes) -> bool:
        try:
            doc: dict[str, Any] = orjson.loads(line)
        except ValueError:
            return False
        kind = doc.get("__trace")
        if isinstance(kind, str):
            self.live = True
            if kind == "dropped":
                count = doc.get("n")
                self.dropped += min(count, _MAX_DROPPED) if isinstance(count, int) and count > 0 else 1
            return True
        if len(doc) == 1 and "error" in doc:
            error = doc["error"]
            self.error = stream_error(self._scrub(error if isinstance(error, str) else orjson.dumps(error).decode()))
            return True
        return False


def stream_error(text: str) -> PipelineError:
    """The typed error for the text that LimaCharlie sends instead of a stream; what is not known counts as temporary."""
    what = f"LimaCharlie refuses the stream: {text or 'no reason given'}."
    if _DENIED.search(text) or (named_permission(text) or "").startswith("output."):
        return PermissionDeniedError(what, fix="Give the API key the output.* permissions.")
    if _LIMITED.search(text):
        return RateLimitedError(what)
    if _UNAUTHORIZED.search(text):
        return AuthenticationError(what, fix="Check that the API key is valid and has the output.* permissions.")
    if _UNKNOWN.search(text):
        return NotFoundError(what, fix="Check oid.")
    return UnavailableError(what)


def _whole(record: bytes) -> bool:
    try:
        return isinstance(orjson.loads(record), dict)
    except ValueError:
        return False
