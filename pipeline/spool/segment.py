"""Segments, the files of a log: a short file header, then one frame for each batch, one after the other.

A frame is ``head | stream, org | records, each with its LF | tail``. The head's checksum covers all but the records, so that a
frame with damaged records still says how many are lost; the tail repeats where the frame ends in the log, so that a frame with a
damaged head does too. All numbers are little-endian. Everything here blocks.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from isal.isal_zlib import crc32

from pipeline.core.batch import Batch, LogId, Origin
from pipeline.core.lines import Lines
from pipeline.spool.blocks import BLOCK

FORMAT = 2
"""The version of this layout, in each file's header. In version 1 records had lengths, and no LF."""
SUFFIX = ".seg"

_FILE = struct.Struct("<8sHxxI")  # magic, version, checksum
_FILE_MAGIC = b"LCSPOOL\n"
_HEAD = struct.Struct(
    "<4sIIIIHHB3xQd"
)  # magic, both checksums, bytes of records, count, name sizes, origin, first, time
_HEAD_MAGIC = b"\xf7LC2"
_TAIL = struct.Struct("<4sQI")  # magic, end, checksum
_TAIL_MAGIC = b"\xf7LCe"
_ORIGINS: tuple[Origin, ...] = ("live", "replay", "backfill")
_CHECKED_FROM = 8  # the magic and the checksum itself are not covered
_AHEAD = 256 << 10

FILE_HEADER = _FILE.size


class ForeignFormatError(Exception):
    """A file has a format that this version does not read; ``args[0]`` is which."""


def file_name(first: int) -> str:
    """The name of the segment that begins with this sequence number."""
    return f"{first:020}{SUFFIX}"


def file_header() -> bytes:
    checked = _FILE.pack(_FILE_MAGIC, FORMAT, 0)[:-4]
    return checked + struct.pack("<I", crc32(checked))


def check_file_header(data: bytes) -> bool:
    """Whether a file begins as a segment of this format. Raises `ForeignFormatError`."""
    if len(data) < FILE_HEADER:
        return False
    magic, version, checksum = _FILE.unpack(data[:FILE_HEADER])
    if magic != _FILE_MAGIC or checksum != crc32(data[: FILE_HEADER - 4]):
        return False
    if version != FORMAT:
        raise ForeignFormatError(version)
    return True


def frame_size(batch: Batch) -> int:
    """Bytes that a batch takes in a segment."""
    names = len(batch.stream.encode()) + len(batch.org.encode())
    return _HEAD.size + names + len(batch.records.block) + _TAIL.size


def encode(batch: Batch, first: int) -> tuple[bytes, bytes, bytes]:
    """The frame of a batch whose first record has this sequence number, in pieces."""
    stream, org = batch.stream.encode(), batch.org.encode()
    body, count = batch.records.block, len(batch.records)
    origin = _ORIGINS.index(batch.origin)
    head = _HEAD.pack(
        _HEAD_MAGIC, 0, crc32(body), len(body), count, len(stream), len(org), origin, first, batch.received_at
    )
    checked = b"".join((head[_CHECKED_FROM:], stream, org))
    end = struct.pack("<Q", first + count)
    return (
        b"".join((_HEAD_MAGIC, struct.pack("<I", crc32(checked)), checked)),
        body,
        b"".join((_TAIL_MAGIC, end, struct.pack("<I", crc32(end)))),
    )


class Frame(NamedTuple):
    """A frame whose head is whole."""

    offset: int
    size: int
    first: int
    end: int
    meta: bytes
    """Its head and names."""

    @property
    def next(self) -> int:
        return self.offset + self.size

    def damage(self) -> Damage:
        """The frame as lost, because of its records."""
        return Damage(self.offset, self.size, self.first, self.end)


class Damage(NamedTuple):
    """Bytes of a segment that are no frame, or a frame whose records are not what was written."""

    offset: int
    size: int
    first: int | None = None
    """The first record that is lost, where the bytes still tell."""
    end: int | None = None
    """The record after the last one that is lost, where the bytes still tell."""
    torn: bool = False
    """They are the beginning of a frame that was never completed."""

    @property
    def lost(self) -> int:
        """Records that are lost, as far as the bytes tell."""
        return self.end - self.first if self.first is not None and self.end is not None else 0


@dataclass(slots=True, eq=False)
class Segment:
    """What is known of a segment without looking into it."""

    path: Path
    first: int
    end: int
    """The record after its last one; of a segment that is not looked into, the first one of the next."""
    length: int
    """Bytes that count."""


class SegmentFile:
    """Reads one segment, up to ``length`` bytes of it. Close it, or use it in a `with` block."""

    def __init__(self, path: Path, length: int | None = None) -> None:
        """Open the file. Raises OSError."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        size = os.fstat(self._fd).st_size
        self.length = size if length is None else min(length, size)
        self._window = b""
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def bytes(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset`` on, fewer at the end. Raises OSError."""
        start = offset - self._at
        if start < 0 or start + size > len(self._window):
            wanted = min(max(size, _AHEAD), self.length - offset)
            self._window = os.pread(self._fd, wanted, offset) if wanted > 0 else b""
            self._at, start = offset, 0
        return self._window[start : start + size]

    def has_header(self) -> bool:
        """Whether it begins as it should. Raises OSError and `ForeignFormatError`."""
        return check_file_header(self.bytes(0, FILE_HEADER))

    def walk(self, offset: int = FILE_HEADER) -> Iterator[Frame | Damage]:
        """All frames from ``offset`` on, which is where one begins, and what is between them. Reads no records.

        Raises OSError.
        """
        while offset < self.length:
            frame = self._frame(offset)
            if frame is not None:
                yield frame
                offset = frame.next
                continue
            found = self._next_frame(offset + 1)
            if found is not None:
                yield Damage(offset, found.offset - offset, end=found.first)
                offset = found.offset
                continue
            rest = self._rest(offset)
            if rest is None:
                return
            yield rest
            offset += rest.size

    def batch(self, frame: Frame, log: LogId) -> Batch | None:
        """The batch of a frame; None when its records are damaged. Raises OSError."""
        _, _, checksum, size, count, stream, _, origin, first, received_at = _HEAD.unpack_from(frame.meta)
        body = self.bytes(frame.offset + len(frame.meta), size)
        if len(body) < size or crc32(body) != checksum:
            return None
        name = frame.meta[_HEAD.size : _HEAD.size + stream].decode()
        return Batch(Lines(body, count), log, name, received_at, _ORIGINS[origin], first=first)

    def _frame(self, offset: int) -> Frame | None:
        head = self.bytes(offset, _HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(_HEAD_MAGIC):
            return None
        _, checksum, _, body, count, stream, org, origin, first, _ = _HEAD.unpack(head)
        meta_size = _HEAD.size + stream + org
        size = meta_size + body + _TAIL.size
        if offset + size > self.length or origin >= len(_ORIGINS):
            return None
        meta = self.bytes(offset, meta_size)
        if len(meta) < meta_size or crc32(meta[_CHECKED_FROM:]) != checksum:
            return None
        return Frame(offset, size, first, first + count, meta)

    def _next_frame(self, offset: int) -> Frame | None:
        """The first whole frame from ``offset`` on, wherever it begins."""
        while offset < self.length:
            piece = self.bytes(offset, _AHEAD)
            at = piece.find(_HEAD_MAGIC)
            if at >= 0:
                frame = self._frame(offset + at)
                if frame is not None:
                    return frame
                offset += at + 1
            elif offset + len(piece) >= self.length or not piece:
                return None
            else:
                offset += len(piece) - len(_HEAD_MAGIC) + 1
        return None

    def _rest(self, offset: int) -> Damage | None:
        """What is at the end of the file, where no frame follows; None where its owner has cut it meanwhile."""
        size = self.length - offset
        if not self.bytes(offset, 1):
            return None
        start = max(offset, self.length - BLOCK - _TAIL.size)
        last = self.bytes(start, self.length - start)
        at = len(last) - _TAIL.size + len(_TAIL_MAGIC)
        while (at := last.rfind(_TAIL_MAGIC, 0, max(0, at))) >= 0 and not any(last[at + _TAIL.size :]):
            _, end, checksum = _TAIL.unpack_from(last, at)
            if crc32(struct.pack("<Q", end)) == checksum:
                return Damage(offset, start + at + _TAIL.size - offset, end=end)
        return Damage(offset, size, torn=self._is_torn(offset, size))

    def _is_torn(self, offset: int, size: int) -> bool:
        head = self.bytes(offset, min(size, _HEAD.size))
        if len(head) < _HEAD.size:
            return _HEAD_MAGIC.startswith(head[:4]) or head.startswith(_HEAD_MAGIC) or not any(head)
        if not any(head):  # a crash can leave a file longer than what reached the disk, and the rest zero
            return all(
                not any(self.bytes(at, min(_AHEAD, self.length - at))) for at in range(offset, self.length, _AHEAD)
            )
        _, _, _, body, _, stream, org, _, _, _ = _HEAD.unpack(head)
        whole: int = _HEAD.size + stream + org + body + _TAIL.size
        return head.startswith(_HEAD_MAGIC) and whole > size


class Contents(NamedTuple):
    """What a segment holds."""

    frames: int
    records: int
    end: int
    """The record after the last one."""
    length: int
    """Bytes up to the end of the last frame."""
    damages: Sequence[Damage]
    """In the order of the file; a torn end is the last one."""


def inspect(file: SegmentFile, first: int, log: LogId) -> Contents:
    """Look at each frame of a segment that begins with the record ``first``, records included.

    Raises OSError and `ForeignFormatError`.
    """
    frames = records = 0
    end, length = first, FILE_HEADER
    damages: list[Damage] = []
    if not file.has_header():
        damages.append(Damage(0, min(FILE_HEADER, file.length), torn=file.length < FILE_HEADER))
    expected = first
    for found in file.walk():
        if isinstance(found, Frame):
            if file.batch(found, log) is None:
                damages.append(found.damage())
            else:
                frames += 1
                records += found.end - found.first
            expected = end = found.end
            length = found.next
        else:
            damages.append(found._replace(first=expected if found.end is not None else None))
            if found.end is not None:
                expected = end = found.end
                length = found.offset + found.size
    return Contents(frames, records, end, length, damages)
