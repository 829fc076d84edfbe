"""The folder of a disk spool: its lock, the folders of its logs, and what was set aside as damaged. Everything here blocks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from pipeline.core.batch import LogId
from pipeline.core.errors import ConfigError
from pipeline.spool.segment import SUFFIX, ForeignFormatError, Segment

LOGS = "logs"
DAMAGED = "damaged"
STATE = "state.db"
LOCK = "lock"
_LOCK_TRIES = 5
_T = TypeVar("_T")

datasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def refusing_foreign(path: Path, look: Callable[[], _T], known: int) -> _T:
    """Call ``look``. Raises ConfigError when it finds a file of a format that is not known."""
    try:
        return look()
    except ForeignFormatError as error:
        raise ConfigError(
            f"{path} has format {error.args[0]}; this version of lc-pipeline reads format {known}",
            where="spool.path",
            fix="Use the version that wrote it, or give another folder.",
        ) from None


def _log_folder(log: LogId) -> str:
    # Names of a configuration come through as they are; what could lead elsewhere does not.
    source, org = (quote(name, safe="").replace(".", "%2E") for name in log.key)
    return f"{source}@{org}" if org else source


def _log_id(folder: str) -> LogId:
    source, _, org = folder.partition("@")
    return LogId.of(unquote(source), unquote(org))


class SpoolFolder:
    """Finds its way in the folder of a spool."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / STATE
        self._lock = -1

    def make(self) -> None:
        """Make the folder with what it always has. Raises OSError."""
        for directory in (self.path, self.path / LOGS, self.path / DAMAGED):
            missing = [one for one in (directory, *directory.parents) if not one.exists()]
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            for made in missing:
                sync_directory(made.parent)

    def lock(self) -> None:
        """Claim the folder for this process. Raises ConfigError when another one has it, and OSError."""
        fd = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        for left in reversed(range(_LOCK_TRIES)):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if left:  # somebody may only be asking who has it
                    time.sleep(0.05)
                    continue
            else:
                break
            owner = os.pread(fd, 20, 0).decode(errors="replace").strip()
            os.close(fd)
            raise ConfigError(
                f"another process{f' ({owner})' if owner.isdecimal() else ''} uses the spool {self.path}",
                where="spool.path",
                fix="Stop it, or give each process a folder of its own.",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock = fd

    def unlock(self) -> None:
        """Give the folder free. Safe to call twice."""
        fd, self._lock = self._lock, -1
        if fd >= 0:
            os.close(fd)

    def logs(self) -> dict[LogId, Path]:
        """The logs that have a folder."""
        try:
            entries = sorted(os.scandir(self.path / LOGS), key=lambda entry: entry.name)
        except FileNotFoundError:
            return {}
        return {_log_id(entry.name): Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)}

    def log(self, log: LogId) -> Path:
        """Where the segments of a log are."""
        return self.path / LOGS / _log_folder(log)

    def segments(self, log: LogId) -> list[Segment]:
        """The segments of a log by their names and sizes, oldest first. Raises OSError."""
        found: list[Segment] = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.log(log)):
                stem = entry.name.removesuffix(SUFFIX)
                if entry.name.endswith(SUFFIX) and stem.isdecimal() and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # beside a running process it may go at any time
                        found.append(Segment(Path(entry.path), int(stem), int(stem), entry.stat().st_size))
        found.sort(key=lambda segment: segment.first)
        for segment, following in pairwise(found):
            segment.end = following.first
        return found

    def overhead(self, state_size: int) -> int:
        """Bytes of all files that are no segments, of the database at least ``state_size`` more than its main file has now."""
        main = state = others = 0
        for directory in (self.path, self.path / DAMAGED):
            for entry in os.scandir(directory):
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        size = entry.stat().st_size
                        if directory == self.path and entry.name.startswith(STATE):
                            state += size
                            main += size * (entry.name == STATE)
                        else:
                            others += size
        return others + max(state, main + state_size)

    def set_aside(self, name: str, data: bytes | Path, limit: int) -> bool:
        """Put damaged bytes, or a whole file, under ``damaged/``; what would make that larger than ``limit`` bytes is not kept.

        Returns whether it was kept. Raises OSError.
        """
        folder = self.path / DAMAGED
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        kept = size + sum(entry.stat().st_size for entry in os.scandir(folder)) <= limit
        target = folder / name
        number = 0
        while target.exists():
            if (
                isinstance(data, bytes) and target.read_bytes() == data
            ):  # found before, in an earlier life of the process
                return True
            number += 1
            target = folder / f"{name}.{number}"
        if isinstance(data, Path):
            if kept:
                data.replace(target)
            else:
                data.unlink()
        elif kept:
            with target.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        return kept


def remove(segments: Iterable[Segment]) -> Mapping[Segment, OSError]:
    """Delete segments and return those that could not be, with the reason."""
    failed: dict[Segment, OSError] = {}
    folders: set[Path] = set()
    for segment in segments:
        try:
            segment.path.unlink(missing_ok=True)
            folders.add(segment.path.parent)
        except OSError as error:
            failed[segment] = error
    for folder in folders:
        sync_directory(folder)
    return failed
