"""Writes whole blocks past the page cache: for large writes the kernel needs a fraction of the time. Everything here blocks."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

BLOCK = 4096
"""Places and sizes of such writes are multiples of it."""
BUFFER = 1 << 20
"""Bytes that are written with one call at most."""
_NOT_HERE = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


class Blocks:
    """The memory from which blocks are written. Use it from one thread at a time."""

    def __init__(self) -> None:
        self.usable = hasattr(os, "O_DIRECT")
        """Whether the file system lets blocks be written so, as far as it is known."""
        self._memory: memoryview | None = None

    def open(self, path: Path) -> int:
        """Open a file for `write`; -1 where its file system cannot do it, or where it cannot be opened once more now."""
        try:
            return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in _NOT_HERE:
                self.usable = False
            return -1

    def write(self, fd: int, edge: bytes, pieces: Sequence[bytes], at: int) -> bytes | None:
        """Write pieces from ``at`` on; ``edge`` is what the file holds before it in the block that ``at`` is in.

        Behind the pieces the last block is zeros. Returns what the pieces left in it, for the next call; None where the file
        system cannot do it: then nothing behind ``at`` counts. Raises OSError.
        """
        if self._memory is None:
            self._memory = memoryview(mmap.mmap(-1, BUFFER))
        memory = self._memory
        start, filled = at - len(edge), len(edge)
        memory[:filled] = edge
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    part = rest[: BUFFER - filled]
                    memory[filled : filled + len(part)] = part
                    filled += len(part)
                    rest = rest[len(part) :]
                    if filled == BUFFER:
                        _write_all(fd, memory, start)
                        start, filled = start + BUFFER, 0
            whole = -(-filled // BLOCK) * BLOCK
            memory[filled:whole] = bytes(whole - filled)
            _write_all(fd, memory[:whole], start)
        except OSError as error:
            self._look(error)
            return None
        return bytes(memory[filled - filled % BLOCK : filled])

    def _look(self, error: OSError) -> None:
        """Take note where it means that there is no such way to write; else raise it."""
        if error.errno not in _NOT_HERE:
            raise error
        self.usable = False


def _write_all(fd: int, blocks: memoryview, at: int) -> None:
    while blocks:
        done = os.pwrite(fd, blocks, at)
        done -= done % BLOCK
        if not done:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        blocks = blocks[done:]
        at += done
