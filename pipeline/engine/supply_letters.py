"""Dead letters as a supply of a replay: each goes where it was refused, and leaves its file when it is safe."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from pipeline.core.batch import MAX_RECORDS, LogId
from pipeline.core.errors import NotFoundError
from pipeline.engine.build import Plan
from pipeline.engine.intake import fault
from pipeline.engine.letter_folder import LetterFolder, Seen
from pipeline.engine.supply import Piece, Supply, Targets

LONGEST = 256 << 20
"""Bytes of a letter at most."""
KEEP_INTERVAL = 5.0
"""Seconds after which letters that are done leave their file, so that a crash repeats few."""
LATEST = 253_402_300_800.0
"""No time is as late: a record that says so could never be put into a file by its time, and would hold its lane up for ever."""
_STRANGERS = frozenset({"stranger", "no_oid", "gave_way"})
"""Reasons of records that may be anybody's: they are replayed only when somebody asks for the reason by name."""
_HEADS = frozenset({"oversize", "truncated"})
"""Reasons of records of which often only the beginning was kept."""


class LetterFile:
    """One file, of which letters are taken out as they are done. Places are those of the file as it was at first."""

    def __init__(self, folder: LetterFolder, path: Path, size: int, lane: tuple[str, str] | None) -> None:
        self.folder = folder
        self.path = path
        self.size = size
        self.lane = lane
        """The lane that its folder's name tells."""
        self._seen: Seen | None = None
        self._done: list[tuple[int, int]] = []
        """Done, and still in the file."""
        self._cut: list[tuple[int, int]] = []
        """Done, and taken out."""

    def opened(self, file: BinaryIO) -> None:
        """This is what is read of it; places of letters are those in it."""
        self._seen = Seen.of(file.fileno(), min(self.size, os.fstat(file.fileno()).st_size))

    def done(self, start: int, end: int) -> None:
        self._done.append((start, end))

    def settle(self) -> None:
        """Take out what is done. Blocks. Raises OSError."""
        if not self._done or self._seen is None:
            return
        done = _joined(self._done)
        places = [(self._now_at(start), self._now_at(end)) for start, end in done]
        self._seen = self.folder.cut(self.path, places, self._seen)
        self._cut = _joined([*self._cut, *done])
        self._done = []

    def _now_at(self, place: int) -> int:
        return place - sum(end - start for start, end in self._cut if end <= place)


class Letters(Supply):
    """The letters of files and folders.

    ``names``: ``ROUTE/SINK``, ``ROUTE.SINK`` or ``SOURCE`` of the configuration, or absolute paths; none means all there are.
    """

    def __init__(
        self, targets: Targets, plan: Plan, names: Sequence[str], reasons: Sequence[str], *, keep: bool = False
    ) -> None:
        super().__init__()
        self._targets = targets
        self._reasons = frozenset(reasons)
        self._keep = keep
        self._files: list[LetterFile] = []
        root = plan.letters.path
        for path in [root] if not names else [_find(plan, name) for name in names]:
            self._add(plan, path)
        self.total = sum(file.size for file in self._files)
        self._kept_at = time.monotonic()

    def _add(self, plan: Plan, path: Path) -> None:
        if path.is_file():
            letters = plan.letters.folder(path.parent)
            # One of ours may be written to: only what is whole in it counts.
            known = {file.absolute(): size for file, size in letters.snapshot()}
            size = known.get(path.absolute(), path.stat().st_size)
            self._files.append(LetterFile(letters, path, size, _lane(path.parent)))
            return
        for folder in sorted({file.parent for file in path.rglob("*.jsonl")}):
            letters = plan.letters.folder(folder)
            self._files += [LetterFile(letters, file, size, _lane(folder)) for file, size in letters.snapshot()]

    async def pieces(self, size: int) -> AsyncIterator[Sequence[Piece]]:
        for file in self._files:
            before = self.read
            try:
                with file.path.open("rb") as opened:
                    file.opened(opened)
                    reading = _lines(opened, file.size, size)
                    while (run := await asyncio.to_thread(next, reading, None)) is not None:
                        found = [piece for start, line in run for piece in self._of(file, start, line)]
                        self.read = before + run[-1][0] + len(run[-1][1])
                        if found:
                            yield found
            except FileNotFoundError:
                self.problems.append(f"{file.path} has rotated away meanwhile.")
            except OSError as error:
                self.problems.append(f"{file.path} cannot be read: {error.strerror}.")
            self.read = before + file.size

    async def settle(self, barrier: Callable[[], Awaitable[None]], *, final: bool = False) -> None:
        if self._keep or not (final or time.monotonic() - self._kept_at > KEEP_INTERVAL):
            return
        await barrier()
        for file in self._files:
            try:
                await asyncio.to_thread(file.settle)
            except OSError as error:
                text = f"{file.path} cannot be changed ({error.strerror}): its letters are replayed, and still there."
                if text not in self.problems:
                    self.problems.append(text)
        self._kept_at = time.monotonic()

    def _of(self, file: LetterFile, start: int, line: bytes) -> list[Piece]:
        """The pieces of a letter; none where it is left out, which is counted."""
        try:
            letter = orjson.loads(line)
            plain = "payload" in letter
            raw = letter["payload"].encode() if plain else base64.b64decode(letter["payload_base64"], validate=True)
            reason, stream, received_at = letter["reason"], letter["stream"], float(letter["received_at"])
            log = LogId(letter["source"], letter["org"])
            well = all(isinstance(text, str) for text in (reason, stream, *log.key)) and len(stream) <= 64
            if not (raw and well and 0.0 <= received_at < LATEST):
                raise TypeError  # noqa: TRY301 - one place for all that is no letter
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
            self.skip("unreadable")
            return []
        if self._reasons and reason not in self._reasons:
            self.skip("other_reason")
            return []
        found = self._where(file, letter, reason, log, raw)
        if isinstance(found, str):
            self.skip(found)
            return []
        left = len(found)

        def done() -> None:
            nonlocal left
            left -= 1
            if not left:
                file.done(start, start + len(line))

        return [Piece(raw, to, stream, received_at, done) for to in found]

    def _where(
        self, file: LetterFile, letter: dict[str, Any], reason: str, log: LogId, raw: bytes
    ) -> Sequence[LogId] | str:
        """The logs that a letter goes into, or why it goes into none."""
        targets = self._targets
        if not targets.knows(log):
            return "unknown_source"
        if len(raw) > targets.largest:
            return "oversize"
        if b"\n" in raw:
            return "line_break"
        route, sink, changed = letter.get("route"), letter.get("sink"), bool(letter.get("changed"))
        if sink is not None and not targets.chosen:
            if not targets.has_lane(str(route), str(sink)):
                return "no_lane"
            if not targets.takes_replays(str(sink)):
                return "live_only"
            return [LogId(log.source, log.org, f"{route}/{sink}{'/changed' if changed else ''}")]
        if changed:  # filters must not see their own work
            return "changed"
        if route is None and (bad := self._refused(letter, reason, log, raw)):
            return bad
        if route is None or targets.chosen:
            return targets.through(log) or "no_lane"
        kept_by = tuple(str(letter.get("lane") or "").split("/")) if letter.get("lane") else file.lane
        if kept_by is None or len(kept_by) != 2 or not targets.has_lane(*kept_by):
            return "no_lane"
        if not targets.takes_replays(kept_by[1]):
            return "live_only"
        return [LogId(log.source, log.org, "/".join((*kept_by, "filtered")))]

    def _refused(self, letter: dict[str, Any], reason: str, log: LogId, raw: bytes) -> str:
        """Why a record that its source refused is refused again; "" where it is not."""
        if reason in _STRANGERS and reason not in self._reasons:
            return "stranger"
        config = self._targets.source(log.source)
        head = reason in _HEADS or "of which the first" in str(letter.get("detail"))
        if head and (config.format == "text" or not _is_object(raw)):
            return "truncated"
        return fault(raw, config)


def _find(plan: Plan, name: str) -> Path:
    """The folder of a lane or a source, or the path itself. Raises NotFoundError."""
    if name.startswith("/"):
        path = Path(name)
        if not path.exists():
            raise NotFoundError("there is no such file or folder", where=name)
        return path
    root = plan.letters.path
    lanes = {lane.id: root / "lanes" / lane.id.replace("/", ".") for lane in plan.lanes}
    lanes |= {lane.id.replace("/", "."): lanes[lane.id] for lane in plan.lanes}
    known = lanes | {source: root / "sources" / source for source in plan.config.sources}
    if name not in known:
        names = ", ".join([lane.id for lane in plan.lanes] + list(plan.config.sources))
        raise NotFoundError(f"there is no lane or source {name!r}", fix=f"There are: {names}. Or give a path.")
    return known[name]


def _lane(folder: Path) -> tuple[str, str] | None:
    route, dot, sink = folder.name.partition(".")
    return (route, sink) if dot else None


def _lines(file: BinaryIO, end: int, size: int) -> Iterator[list[tuple[int, bytes]]]:
    """Whole lines before ``end`` with their places, in runs."""
    run: list[tuple[int, bytes]] = []
    at = length = 0
    while at < end:
        line = file.readline(min(LONGEST, end - at))
        if not line:
            break
        if line.endswith(b"\n"):
            run.append((at, line))
            length += len(line)
        at += len(line)
        if run and (length >= size or len(run) >= MAX_RECORDS):
            yield run
            run, length = [], 0
    if run:
        yield run


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same bytes in ascending ranges that do not touch."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if found and found[-1][1] >= start:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _is_object(raw: bytes) -> bool:
    try:
        return isinstance(orjson.loads(raw), dict)
    except ValueError:
        return False
