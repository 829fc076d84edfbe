# ruff: noqa: PTH103, PTH108, PTH112, PTH116, PTH118, PTH119, PTH120 - strings and descriptors, as the system calls take them
"""A file that grows by whole pieces, belongs to one writer, and is cut back to what counts when a piece was torn.

Everything here blocks; use it from one thread.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
from collections.abc import Sequence

import orjson

from pipeline.kit.codec import Compression, Damaged, Reader

TORN_MAX = 64 << 20
"""No single write is larger, so a longer broken end is not ours to cut."""
_STEP = 1 << 20
_BUFFERS = 1000
"""Buffers in one call, below the kernel's limit of 1024."""

_datasync = getattr(os, "fdatasync", os.fsync)


class Locked(OSError):  # noqa: N818 - states what the file is
    """Another process, or another writer of this one, has the file."""


class Changed(OSError):  # noqa: N818 - states what happened to the file
    """The file is not as this writer left it: somebody else moved, deleted, cut or extended it."""


def make_parents(path: str, root: str, *, durable: bool) -> str:
    """Make the directories that ``path`` needs (mode 0750) and return it with its parent resolved.

    Raises PermissionError when a symbolic link leads out of ``root``, and OSError.
    """
    parent = os.path.realpath(os.path.dirname(path))
    top = os.path.realpath(root)
    if os.path.commonpath((parent, top)) != top:
        raise PermissionError(errno.EPERM, f"a symbolic link leads out of {root}", path)
    missing = []
    at = parent
    while not os.path.isdir(at):
        missing.append(at)
        at = os.path.dirname(at)
    for directory in reversed(missing):
        os.makedirs(directory, 0o750, exist_ok=True)
        if durable:
            sync_directory(os.path.dirname(directory))
    return os.path.join(parent, os.path.basename(path))


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_at(fd: int, pieces: Sequence[bytes], at: int) -> None:
    """Write all pieces at an offset, one after the other. Raises OSError; then some of them may be written."""
    for start in range(0, len(pieces), _BUFFERS):
        run = pieces[start : start + _BUFFERS]
        end = at + sum(map(len, run))
        at += os.pwritev(fd, run, at)
        if at < end:
            rest = memoryview(b"".join(run))[at - end :]
            while rest:
                done = os.pwrite(fd, rest, at)
                rest = rest[done:]
                at += done


class AppendFile:
    """One file; its descriptor may be closed and opened again without losing what is known of it."""

    def __init__(self, path: str, length: int = 0) -> None:
        self.path = path
        self.length = length
        """Bytes that count. What lies beyond is the rest of a `put` that was not acknowledged by `keep`."""
        self.modified = 0.0
        """When it was last written to, as it was opened (Unix seconds)."""
        self.dirty = False
        """Whether it has bytes that `sync` was not called for."""
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        self._pending = 0

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def open(self, *, create: bool, exclusive: bool = False) -> None:
        """Open and lock it; no link is followed.

        Raises `Locked`, `Changed` when another file has taken its place, FileNotFoundError without ``create``,
        FileExistsError with ``exclusive``, and OSError.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        flags |= os.O_CREAT * create | os.O_EXCL * exclusive
        fd = os.open(self.path, flags, 0o640)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", self.path)  # noqa: TRY301 - closes the descriptor below
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Locked(errno.EWOULDBLOCK, "another process or sink writes to it", self.path) from None
            identity = (found.st_dev, found.st_ino)
            if self._identity not in (None, identity):
                raise Changed(errno.ESTALE, "another file has taken its place", self.path)  # noqa: TRY301 - same
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._identity = identity
        self.modified = found.st_mtime

    def size(self) -> int:
        """Bytes of the file as it is."""
        return os.fstat(self._fd).st_size

    def verify(self) -> None:
        """Make sure that the file is still the one at its path, as long as it was left. Raises `Changed`, and OSError."""
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            raise Changed(errno.ESTALE, "it was moved or deleted", self.path) from None
        if (found.st_dev, found.st_ino) != self._identity:
            raise Changed(errno.ESTALE, "another file has taken its place", self.path)
        if self._pending and found.st_size > self.length:
            self.cut()
        elif found.st_size != self.length:
            raise Changed(errno.ESTALE, f"it has {found.st_size} bytes instead of {self.length}", self.path)

    def put(self, pieces: Sequence[bytes]) -> None:
        """Write after the bytes that count. Until `keep`, it does not count itself."""
        self._pending = sum(map(len, pieces))
        self.dirty = True
        write_at(self._fd, pieces, self.length)

    def keep(self) -> None:
        """Let what was `put` count."""
        self.length += self._pending
        self._pending = 0

    def cut(self) -> None:
        """Cut the file to the bytes that count."""
        os.ftruncate(self._fd, self.length)
        self._pending = 0
        self.dirty = True

    def recover(self, compression: Compression) -> int:
        """Find out what counts in a file that somebody else left: all of it but a torn last line or frame, which is cut.

        Returns how many bytes were cut. Raises `Damaged` where more than an end is broken: then nothing was changed.
        """
        size = self.size()
        whole, complete = (
            self._last_line(size) if compression == "none" else (self._last_frame(compression, size), False)
        )
        self.length = size if complete else whole
        if size == whole:
            return 0
        if complete:
            self.put([b"\n"])
            self.keep()
            return 0
        self.cut()
        return size - whole

    def _last_line(self, size: int) -> tuple[int, bool]:
        """Where the last whole line ends, and whether what follows is a record that lacks only its line end."""
        tail = b""
        at = size
        while at and size - at <= TORN_MAX:
            start = max(0, at - _STEP)
            piece = os.pread(self._fd, at - start, start)
            found = piece.rfind(b"\n")
            tail = piece[found + 1 :] + tail
            if found >= 0:
                return start + found + 1, _is_record(tail)
            at = start
        if at:
            raise Damaged(f"no line ends in its last {TORN_MAX >> 20} MiB")
        return 0, _is_record(tail)

    def _last_frame(self, compression: Compression, size: int) -> int:
        with io.FileIO(os.dup(self._fd)) as file:
            file.seek(0)
            reader = Reader(file, compression)
            try:
                while reader.read():
                    pass
            except Damaged:
                # A crash can leave a file longer than what reached the disk, and the rest zero.
                if os.pread(self._fd, 512, max(0, size - 512)).strip(b"\0"):
                    raise
        if size - reader.whole > TORN_MAX:
            raise Damaged(f"its last frame is broken, and longer than {TORN_MAX >> 20} MiB")
        return reader.whole

    def sync(self) -> None:
        """Put its bytes on the disk."""
        if self.dirty:
            _datasync(self._fd)
            self.dirty = False

    def close(self) -> None:
        """Unlock and close it; an empty file is not left behind. Safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if os.fstat(fd).st_size == 0 and self._is_mine(fd):
                os.unlink(self.path)
                self._identity = None
        finally:
            os.close(fd)

    def _is_mine(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self.path, follow_symlinks=False))
        except FileNotFoundError:
            return False


def _is_record(line: bytes) -> bool:
    if not line.startswith(b"{"):
        return False
    try:
        orjson.loads(line)
    except ValueError:
        return False
    return True
