# ruff: noqa: PTH100, PTH120 - strings, as `appendfile` takes them
"""The files that a sink writes to: which one takes the next bytes of a name, which are open, which are finished.

Blocking; for one thread.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.clock import Clock
from pipeline.kit.appendfile import AppendFile, Changed, make_parents, sync_directory
from pipeline.kit.codec import Compression, Damaged, split_suffix
from pipeline.kit.log import Logger

IDLE = 600.0
"""Seconds without a record after which a file counts as finished: it is closed and its mark goes."""
_NAME_MAX = 240


class Unsynced(OSError):  # noqa: N818 - states what the bytes are
    """The disk refused bytes that it had taken; what it holds is unknown until the next start."""


class Target(AppendFile):
    """A file that the sink writes to: number ``number`` of those that stand for ``name``."""

    name = ""
    number = 0
    window = 0
    used = 0.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How the files are kept."""

    root: str
    """The directory that no file is outside of."""
    compression: Compression
    rotate_size: int | None
    rotate_every: float | None
    durable: bool
    max_open: int


class FileSet:
    def __init__(self, policy: Policy, clock: Clock, log: Logger) -> None:
        self.marked: set[str] = set()
        """Paths that have a committed mark."""
        self.finished: set[str] = set()
        """Paths whose mark is of no use any more."""
        self.unsynced: Unsynced | None = None
        self._policy = policy
        self._clock = clock
        self._log = log
        self._files: dict[str, Target] = {}  # by path, the least recently used first
        self._current: dict[str, Target] = {}  # by name

    def restore(self, marks: Mapping[str, Any]) -> None:
        """Cut each file to its marked length; one that is gone or shorter is said loudly. Raises OSError."""
        self.close()
        for path, length in marks.items():
            file = Target(path, length)
            try:
                file.open(create=False)
                size = file.size()
                if size > length:
                    file.cut()
                    self._log.info("Cut what was not committed; it is written again.", path=path, bytes=size - length)
            except FileNotFoundError:
                size = 0
            finally:
                file.close()
            if size < length:
                self._log.error("A file lost records that were in it.", path=path, bytes=length - size)
                self.finished.add(path)
                continue
            file.window = self._window(file.modified)
            file.used = self._clock.monotonic()
            self._files[path] = file
            self.marked.add(path)

    def target(self, name: str, size: int) -> Target:
        """The file that takes the next ``size`` bytes of this name. Raises OSError."""
        file = self._current.get(name)
        if file is not None:
            try:
                self._use(file)
            except (Changed, FileNotFoundError) as error:
                self._log.error(
                    "A file is not as it was left; records in it may be lost.", path=file.path, error=error.strerror
                )
                self._forget(file)
                self.marked.discard(file.path)
                file = None
        if file is None:
            file = self._adopt(name)
        now = self._window(self._clock.now())
        limit = self._policy.rotate_size
        if file.length and ((limit is not None and file.length + size > limit) or file.window != now):
            self._shut(file)
            self._forget(file)
            file = self._begin(name, file.number + 1)
        if not file.length:
            file.window = now
        return file

    def store(self, plan: Sequence[tuple[Target, Sequence[bytes]]]) -> None:
        """Put all pieces into their files, or none; they count when the caller keeps them. Raises OSError."""
        touched = []
        try:
            for file, pieces in plan:
                self._use(file)
                touched.append(file)
                file.put(pieces)
        except OSError:
            for file in touched:
                self._take_back(file)
            raise

    def retire(self) -> None:
        """Finish the files that got nothing for long, such as those of hours gone by."""
        due = self._clock.monotonic() - IDLE
        for file in list(self._files.values()):
            if file.used > due:
                return
            self._shut(file)
            self._forget(file)

    def sync(self) -> None:
        """Put everything on the disk. Raises `Unsynced`."""
        if self.unsynced is not None:
            raise self.unsynced
        for file in self._files.values():
            self._flush(file)

    def close(self) -> None:
        """Close all files. Safe to call twice. Raises OSError, after closing them."""
        try:
            for file in self._files.values():
                self._flush(file)
        finally:
            for file in self._files.values():
                file.close()
            self._files.clear()
            self._current.clear()
            self.marked.clear()
            self.finished.clear()

    def _window(self, when: float) -> int:
        return int(when // self._policy.rotate_every) if self._policy.rotate_every else 0

    def _adopt(self, name: str) -> Target:
        """Go on with the last file of this name, or begin the first."""
        number = 0
        while os.path.lexists(_path(name, number + 1)):
            number += 1
        path = self._make_parents(_path(name, number))
        file = self._files.get(path)
        if file is not None:
            self._use(file)
            return self._enter(file, name, number)
        file = Target(path)
        self._open(file, create=True)
        try:
            cut = file.recover(self._policy.compression)
        except Damaged as error:
            file.close()
            self._log.error(
                "A file is damaged; it is left as it is and the next one begun.", path=path, error=str(error)
            )
            return self._begin(name, number + 1)
        except OSError:
            file.close()
            raise
        if cut:
            self._log.warning("Cut a torn end off a file.", path=path, bytes=cut)
        file.window = self._window(file.modified)
        return self._enter(file, name, number)

    def _begin(self, name: str, number: int) -> Target:
        """Begin the first file of this name from ``number`` on that does not exist."""
        while True:
            file = Target(self._make_parents(_path(name, number)))
            try:
                self._open(file, create=True, exclusive=True)
            except FileExistsError:
                number += 1
            else:
                return self._enter(file, name, number)

    def _enter(self, file: Target, name: str, number: int) -> Target:
        file.name, file.number = name, number
        file.used = self._clock.monotonic()
        self._current[name] = self._files[file.path] = file
        self.finished.discard(file.path)
        return file

    def _make_parents(self, path: str) -> str:
        return make_parents(path, self._policy.root, durable=self._policy.durable)

    def _use(self, file: Target) -> None:
        """Have the file open and make sure that it is as it was left."""
        if not file.is_open:
            self._open(file, create=file.length == 0)
        file.verify()
        file.used = self._clock.monotonic()
        self._files[file.path] = self._files.pop(file.path, file)

    def _open(self, file: Target, *, create: bool, exclusive: bool = False) -> None:
        opened = [other for other in self._files.values() if other.is_open]
        for other in opened[: max(0, len(opened) + 1 - self._policy.max_open)]:
            self._shut(other)
        file.open(create=create, exclusive=exclusive)
        if create and self._policy.durable:
            sync_directory(os.path.dirname(file.path))

    def _take_back(self, file: Target) -> None:
        try:
            self._use(file)
            file.cut()
        except OSError as error:
            # The next use of the file cuts it before it writes, and a start cuts it to the mark.
            self._log.warning("A failed write could not be taken back yet.", path=file.path, error=str(error))

    def _flush(self, file: Target) -> None:
        if not self._policy.durable or not file.is_open:
            return
        try:
            file.sync()
        except OSError as error:
            # The kernel may have dropped what it could not write, and says so only once: what is on the disk is unknown from
            # here on, and only a start, which cuts to what was committed, makes it certain again.
            text = f"the disk failed to take what was written ({error.strerror}); restart when it is repaired"
            self.unsynced = Unsynced(error.errno, text, file.path)
            raise self.unsynced from None

    def _shut(self, file: Target) -> None:
        self._flush(file)
        file.close()

    def _forget(self, file: Target) -> None:
        file.close()
        self.finished.add(file.path)
        self._files.pop(file.path, None)
        if self._current.get(file.name) is file:
            del self._current[file.name]


def _path(name: str, number: int) -> str:
    directory, _, leaf = os.path.abspath(name).rpartition("/")
    directory = "/".join(map(_fit, directory.split("/")))
    stem, suffix = split_suffix(leaf)
    # No value in a template can hold a "~", so that no record can name another one's next file.
    return f"{directory}/{_fit(stem, _NAME_MAX - len(suffix))}{f'~{number:04d}' if number else ''}{suffix}"


def _fit(name: str, size: int = _NAME_MAX) -> str:
    """A name that file systems take: what is too long ends in a hash of all of it."""
    if len(name) <= size:
        return name
    return name[: size - 17] + "~" + hashlib.sha256(name.encode()).hexdigest()[:16]
