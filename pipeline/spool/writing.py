"""Appends frames to the segments of a log. Everything here blocks."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.kit.appendfile import write_at
from pipeline.spool.blocks import BLOCK, Blocks
from pipeline.spool.folder import datasync, sync_directory
from pipeline.spool.segment import FILE_HEADER, Segment, file_header, file_name

Pieces = tuple[int, Sequence[bytes]]
"""The number of a frame's first record, and its bytes in pieces."""
DIRECT_FROM = 128 << 10
"""Bytes of frames from which on it pays to write them past the page cache."""


class LogWriter:
    """Appends to the last segment of a log and begins new ones. A failed call leaves nothing that counts.

    Behind what counts, the last segment may hold zeros up to the end of a block.
    """

    def __init__(self, folder: Path, segment_size: int, last: Segment | None, blocks: Blocks | None = None) -> None:
        """``blocks`` writes what is large, where it can."""
        self.last = last
        """The segment that grows; None before the first one."""
        self._folder = folder
        self._segment_size = segment_size
        self._fd = -1
        self._direct_fd = -1
        self._blocks = blocks
        self._length = last.length if last else 0
        self._end = self._length
        """Bytes of the file."""
        self._edge = (-1, b"")
        """Where the latest block write ended, and what it left in its last block."""
        self._synced = self._length
        self._broken = False
        """Nobody knows what the segment holds behind ``_length``; another one is begun."""

    def write(
        self, frames: Sequence[Pieces], *, sync: bool, cached: bool = True
    ) -> tuple[list[Segment], OSError | None]:
        """Append frames, and with ``sync`` put them on the disk. Unless ``cached`` nobody will read them soon.

        Returns the segments of those that count, which are the first ones, and what stopped it.
        """
        placed: list[Segment] = []
        safe, safe_length = 0, self._length
        run: list[bytes] = []
        size = count = 0
        try:
            for first, pieces in frames:
                length = sum(map(len, pieces))
                if self._is_full(size, length):
                    placed += self._put(run, count, size, cached=cached)
                    run, size, count = [], 0, 0
                    if self._is_full(0, length):
                        self.roll(first)
                        safe, safe_length = len(placed), self._length
                run += pieces
                size += length
                count += 1
            placed += self._put(run, count, size, cached=cached)
            if sync:
                self.sync()
        except OSError as error:
            if sync:
                self._cut(safe_length)
                return placed[:safe], error
            self._cut(self._length)
            return placed, error
        return placed, None

    def roll(self, first: int) -> Segment:
        """Begin a new segment at this record, once what is written is on the disk. Raises OSError."""
        self._trim()
        self.sync()
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o750)
            sync_directory(self._folder.parent)
        path = self._folder / file_name(first)
        if self.last is not None and self.last.path == path:  # nothing that counts is in it
            path.unlink(missing_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            os.pwrite(fd, file_header(), 0)
            datasync(fd)
            sync_directory(self._folder)
        except BaseException:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        self.close()
        self._fd = fd
        self.last = Segment(path, first, first, FILE_HEADER)
        self._length = self._end = self._synced = FILE_HEADER
        self._broken = False
        return self.last

    def sync(self) -> None:
        """Put what is written on the disk. Raises OSError; what failed is not tried again, as the kernel forgets it."""
        if self._synced < self._length and not self._broken:
            try:
                datasync(self._fd)
            except OSError:
                self._broken = True
                raise
            self._synced = self._length

    def close(self) -> None:
        """Safe to call twice."""
        with contextlib.suppress(OSError):  # the next start will do it
            self._trim()
        for fd in (self._fd, self._direct_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._direct_fd = -1
        self._edge = (-1, b"")

    def _is_full(self, coming: int, more: int) -> bool:
        """Whether ``more`` bytes belong into another segment than the bytes that are ``coming``.

        A frame that is larger than a segment has one of its own.
        """
        if self.last is None or self._broken:
            return True
        used = self._length + coming
        return used > FILE_HEADER and used + more > self._segment_size

    def _put(self, pieces: Sequence[bytes], count: int, size: int, *, cached: bool) -> list[Segment]:
        """Write pieces of so many bytes, which are ``count`` frames; returns where each of these is."""
        if not count:
            return []
        assert self.last is not None
        if self._fd < 0:
            self._fd = os.open(self.last.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        end = self._length + size
        self._end = max(self._end, end)
        if cached or size < DIRECT_FROM or not self._put_blocks(self.last.path, pieces, end):
            write_at(self._fd, pieces, self._length)
        self._length = end
        return [self.last] * count

    def _put_blocks(self, path: Path, pieces: Sequence[bytes], end: int) -> bool:
        """Write pieces past the page cache; returns whether that can be done."""
        if self._blocks is None or not self._blocks.usable:
            return False
        if self._direct_fd < 0:
            self._direct_fd = self._blocks.open(path)
            if self._direct_fd < 0:
                return False
        at, edge = self._edge
        if at != self._length:
            begun = self._length % BLOCK
            edge = os.pread(self._fd, begun, self._length - begun)
            if len(edge) < begun:
                raise OSError(errno.EIO, "a segment is shorter than what was written to it")
        self._end = max(self._end, -(-end // BLOCK) * BLOCK)
        left = self._blocks.write(self._direct_fd, edge, pieces, self._length)
        if left is None:
            return False
        self._edge = (end, left)
        return True

    def _trim(self) -> None:
        """Cut the zeros behind what counts. Raises OSError, unless the segment is left alone anyway."""
        if self._fd >= 0 and self._end > self._length:
            try:
                os.ftruncate(self._fd, self._length)
            except OSError:
                if not self._broken:
                    raise
            self._end = self._length
            self._synced = -1

    def _cut(self, length: int) -> None:
        """Take back what was written behind ``length``; where that fails too, the segment is left alone from now on."""
        self._length = length
        self._edge = (-1, b"")
        self._synced = min(self._synced, length)
        if self._fd >= 0:
            try:
                os.ftruncate(self._fd, length)
                self._end = length
            except OSError:
                self._broken = True
