"""What opening a spool does: tell what a crash or damage left, set aside what is damaged, cut what was never completed.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from pipeline.core.batch import LogId
from pipeline.kit.log import Logger
from pipeline.spool import state as states
from pipeline.spool.folder import SpoolFolder, datasync, refusing_foreign, remove
from pipeline.spool.segment import FILE_HEADER, FORMAT, Segment, SegmentFile, file_header, inspect
from pipeline.spool.state import Key, State


@dataclass(slots=True)
class Recovered:
    """A log as it was found."""

    segments: list[Segment] = field(default_factory=list)
    end: int = 0
    """The number of the next record."""
    dropped: dict[int, int] = field(default_factory=dict)


def open_state(folder: SpoolFolder, max_size: int, log: Logger) -> tuple[State, bool]:
    """Open the database, or begin a new one where it is damaged; returns whether what it knew is lost.

    Raises ConfigError for a foreign format, OSError and sqlite3.Error.
    """
    log_size = min(4 << 20, max(64 << 10, max_size // 64))
    opening = partial(State, folder.state, log_size=log_size)
    existed = folder.state.exists()
    try:
        state = refusing_foreign(folder.state, opening, states.FORMAT)
    except states.DamagedError as error:
        for file in states.files(folder.state):
            folder.set_aside(file.name, file, max_size // 8)
        sentence = "The spool's database is damaged and was set aside, gaps included; every lane begins at the oldest record kept."
        log.error(sentence, error=str(error))  # noqa: TRY400 - its traceback says nothing about the damage
        return opening(), True
    lost = not existed and bool(folder.logs())
    if lost:
        log.error("The spool's database is gone, gaps included; every lane begins at the oldest record kept.")
    return state, lost


def recover(
    folder: SpoolFolder, state: State, names: Iterable[LogId], damaged_size: int, log: Logger
) -> dict[LogId, Recovered]:
    """Open these logs and all others that the folder or the database has.

    Raises ConfigError for a foreign format, OSError and sqlite3.Error.
    """
    ends = {LogId.of(source, org): end for (source, org), end in state.tables["ends"].items()}
    for (_, source, org), position in state.tables["positions"].items():
        name = LogId.of(source, org)
        ends[name] = max(ends.get(name, 0), position)
    found = {
        name: _recover(folder, name, ends.get(name, 0), damaged_size, log)
        for name in dict.fromkeys((*names, *folder.logs(), *ends))
    }
    known = state.tables["ends"]
    changes: dict[str, dict[Key, int | str | None]] = {
        "ends": {name.key: one.end for name, one in found.items() if known.get(name.key) != one.end},
        "dropped": _finish_drops(state, found),
    }
    for name in [name for name, one in found.items() if _is_over(name, one, state)]:
        remove(found.pop(name).segments)
        with contextlib.suppress(OSError):  # what else may be in it is not ours
            folder.log(name).rmdir()
        changes["ends"][name.key] = None
        changes.setdefault("positions", {}).update(
            {key: None for key in state.tables["positions"] if key[1:] == name.key}
        )
        changes["dropped"].update({key: None for key in state.tables["dropped"] if key[:2] == name.key})
    if any(changes.values()):  # a disk that is full must not stop a start that has nothing to write
        state.commit(changes)
    return found


def _is_over(name: LogId, found: Recovered, state: State) -> bool:
    """Whether a log of replayed records has been read to its end by all that read it."""
    positions = [place for key, place in state.tables["positions"].items() if key[1:] == name.key]
    return bool(name.replay) and all(place >= found.end for place in positions) and bool(positions or not found.end)


def _recover(folder: SpoolFolder, name: LogId, known_end: int, damaged_size: int, log: Logger) -> Recovered:
    """Look into the last segment: the others were complete when it was begun."""
    segments = folder.segments(name)
    if not segments:
        return Recovered([], known_end)
    last = segments[-1]
    lost = torn = 0
    with SegmentFile(last.path) as file:
        contents = refusing_foreign(last.path, lambda: inspect(file, last.first, name), FORMAT)
        size = file.length
        for damage in contents.damages:
            if damage.torn:
                torn += damage.size
                continue
            aside = f"{last.path.parent.name}-{last.path.stem}-{damage.offset}"
            folder.set_aside(aside, file.bytes(damage.offset, damage.size), damaged_size)
            log.error("A part of the spool is damaged; it is set aside.", log=str(name), name=aside, bytes=damage.size)
            lost += damage.lost
    last.length, last.end = contents.length, contents.end
    _mend(last, size)
    end = max(contents.end, known_end)
    lost += end - contents.end
    if torn:
        log.info("A write that was broken off is cut.", log=str(name), bytes=torn)
    if lost:
        log.error("Records of the spool are lost.", log=str(name), records=lost)
    return Recovered(segments, end)


def _mend(segment: Segment, size: int) -> None:
    """Cut what does not count and write the file's header where it is not as it should be."""
    fd = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.pread(fd, FILE_HEADER, 0) != file_header():
            os.pwrite(fd, file_header(), 0)
        if size > segment.length:
            os.ftruncate(fd, segment.length)
        datasync(fd)
    finally:
        os.close(fd)


def _finish_drops(state: State, found: Mapping[LogId, Recovered]) -> dict[Key, int | str | None]:
    """Delete segments that were being dropped when the process ended; returns the drops that need not be known any more."""
    over: dict[Key, int | str | None] = {}
    for (source, org, first), end in state.tables["dropped"].items():
        log = found[LogId.of(source, org)]
        dropped = [one for one in log.segments[:-1] if int(first) <= one.first and one.end <= end]
        remove(dropped)
        log.segments = [one for one in log.segments if one not in dropped]
        if any(place < end for key, place in state.tables["positions"].items() if key[1:] == (source, org)):
            log.dropped[int(first)] = end
        else:
            over[source, org, first] = None
    return over
