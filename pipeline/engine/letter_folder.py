"""The files that a lane's or a source's dead letters are in."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipeline.spool.folder import sync_directory

FILE_SIZE = 16 << 20
"""A file is closed and the next one begun beyond this many bytes."""


class Seen(NamedTuple):
    """A file as it was read: places in it mean nothing in another one, or when somebody has made it shorter."""

    device: int
    inode: int
    size: int
    """Bytes at least."""

    @classmethod
    def of(cls, fd: int, size: int) -> Seen:
        stat = os.fstat(fd)
        return cls(stat.st_dev, stat.st_ino, size)


class LetterFolder:
    """Numbered files of one lane or source; opened on the first letter. Its methods block; threads may call them."""

    def __init__(self, path: Path, file_size: int = FILE_SIZE) -> None:
        self.path = path
        self._file_size = file_size
        self._file = path
        self._fd = -1
        self._number = 0
        self._written = 0
        self._lock = threading.Lock()
        """A write whose caller was cancelled goes on in its thread; closing waits for it."""
        self.recount()

    def files(self) -> list[tuple[Path, int]]:
        """Its files with their sizes, the oldest first."""
        found = []
        for file in self.path.glob("*.jsonl"):
            if file.stem.isdecimal():
                with contextlib.suppress(FileNotFoundError):  # somebody makes room just now
                    found.append((int(file.stem), file, file.stat().st_size))
        return [(file, size) for _, file, size in sorted(found)]

    def recount(self) -> None:
        """Look how much is there now."""
        self.size = sum(size for _, size in self.files())

    def write(self, lines: Sequence[bytes]) -> None:
        """Append and sync; all or nothing. Raises OSError."""
        with self._lock:
            if self._fd < 0 or self._written >= self._file_size or self._was_taken_away():
                self._next()
            data = b"".join(lines)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._fd, view) :]
                os.fsync(self._fd)
            except OSError:
                os.ftruncate(self._fd, self._written)
                raise
            self._written += len(data)
            self.size += len(data)

    def snapshot(self) -> list[tuple[Path, int]]:
        """Its files with the bytes of whole letters that each holds now, the oldest first."""
        with self._lock:
            return self.files()

    def cut(self, file: Path, ranges: Sequence[tuple[int, int]], seen: Seen) -> Seen:
        """Take bytes (ascending from-to pairs) out of a file, or delete it when nothing is left; returns the file as it is then.

        What is open is closed first: the next letter begins another file. Raises OSError, also where it is not the file that was
        seen: whoever else replays it, or edits it, has moved the letters in it.
        """
        with self._lock:
            if file.absolute() == self._file.absolute():
                self._close()
            try:
                with file.open("rb") as old:
                    now = os.fstat(old.fileno())
                    if (now.st_dev, now.st_ino) != seen[:2] or now.st_size < seen.size:
                        raise OSError(errno.ESTALE, "somebody else has changed it meanwhile")
                    left = seen.size - sum(end - start for start, end in ranges)
                    seen = self._copy(old, file, ranges, left) or seen
            except FileNotFoundError:  # rotated away, or taken away
                pass
            sync_directory(file.parent)
            self.recount()
            return seen

    def _copy(self, old: BinaryIO, file: Path, ranges: Sequence[tuple[int, int]], left_over: int) -> Seen | None:
        """Returns the new file; None where there is none."""
        size = os.fstat(old.fileno()).st_size
        edges = [0, *(min(edge, size) for pair in ranges for edge in pair), size]
        kept = [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]
        if not kept:
            file.unlink()
            return None
        new = file.with_name(file.name + ".new")
        with new.open("wb") as target:
            for start, end in kept:
                old.seek(start)
                left = end - start
                while left and (piece := old.read(min(1 << 20, left))):
                    target.write(piece)
                    left -= len(piece)
            target.flush()
            os.fsync(target.fileno())
            made = Seen.of(target.fileno(), left_over)
        new.replace(file)
        return made

    def _was_taken_away(self) -> bool:
        """Whether somebody moved or deleted the file that is open: what is appended to it would go there too."""
        try:
            return not os.path.samestat(self._file.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return True

    def _next(self) -> None:
        self._close()
        self.path.mkdir(parents=True, exist_ok=True, mode=0o750)
        self._number = max([self._number, *(int(file.stem) for file, _ in self.files())]) + 1
        self._file = self.path / f"{self._number:06}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._file, flags, 0o640)
        self._written = 0

    def shrink(self, limit: int) -> None:
        """Delete the oldest files, but not the last one, until the rest has at most ``limit`` bytes. Raises OSError."""
        with self._lock:
            files = self.files()
            self.size = sum(size for _, size in files)
            for file, size in files[:-1]:
                if self.size <= limit:
                    break
                file.unlink(missing_ok=True)
                self.size -= size

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
