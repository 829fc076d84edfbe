"""Reads batches back that are not in memory any more, over holes and damage."""

from __future__ import annotations

import asyncio
import errno
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from pipeline.core.batch import Batch, LogId
from pipeline.kit.log import Logger
from pipeline.spool.folder import SpoolFolder
from pipeline.spool.log import DiskLog, memory
from pipeline.spool.segment import FILE_HEADER, Damage, Frame, Segment, SegmentFile
from pipeline.spool.worker import Worker

CHUNK = 256 << 10
"""Bytes that are read from a segment at once, at least one batch."""
LOADED_SIZE = 8 << 20
"""Bytes of memory for batches that were read, so that lanes at the same place share them."""
_TRIES = 3
"""How often a segment is tried that the disk cannot read."""


class Loaded(NamedTuple):
    """What was read from a segment."""

    batches: Sequence[Batch]
    offset: int
    """Where to go on."""
    damages: Sequence[tuple[Damage, bytes]]


_NOTHING = Loaded((), 0, ())


def load(log: LogId, segment: Segment, length: int, offset: int, position: int, until: int | None) -> Loaded:
    """Read batches from ``offset`` on, beginning with the first that ends behind ``position``: one, or about `CHUNK` bytes.

    Records from ``until`` on are in another segment. Blocks. Raises OSError.
    """
    batches: list[Batch] = []
    damages: list[tuple[Damage, bytes]] = []
    size = 0
    with SegmentFile(segment.path, length) as file:
        for found in file.walk(offset):
            if isinstance(found, Frame):
                if until is not None and found.first >= until:
                    break
                if found.end <= position:
                    continue
                if size and size + found.size > CHUNK:
                    return Loaded(batches, found.offset, damages)
                batch = file.batch(found, log)
                if batch is not None:
                    batches.append(batch)
                    size += found.size
                    continue
            damages.append(
                (found.damage() if isinstance(found, Frame) else found, file.bytes(found.offset, found.size))
            )
    return Loaded(batches, length, damages)


class Reader:
    """Belongs to the event loop; ``worker`` does what blocks."""

    def __init__(self, folder: SpoolFolder, worker: Worker, damaged_size: int, log: Logger) -> None:
        self._folder = folder
        self._worker = worker
        self._damaged_size = damaged_size
        self._log = log
        self._loaded: OrderedDict[tuple[LogId, int], Batch] = OrderedDict()
        self._size = 0
        self._known: set[tuple[LogId, str, int]] = set()
        """Damages that were set aside."""

    async def read(self, log: DiskLog, position: int) -> Batch:
        """The batch that holds ``position``, the next one where that is gone, an empty one where the rest of the log is gone."""
        batch = self._loaded.get((log.name, position))
        if batch is not None:
            return batch
        async with log.loading:  # who waited finds what the other one read
            return self._loaded.get((log.name, position)) or await self._read(log, position)

    def clear(self) -> None:
        """Let go of what is in memory."""
        self._loaded.clear()
        self._size = 0

    async def _read(self, log: DiskLog, position: int) -> Batch:
        end = log.stats.end
        place = log.place(position)
        while place is not None:
            segment, offset = place
            following = log.following(segment)
            end = log.stats.end
            found = await self._load(log, segment, offset, position, following.first if following else None)
            for damage, data in found.damages:
                await self._set_aside(log, segment, damage, data)
            if found.batches:
                self._keep(found.batches)
                log.go_on_at(found.batches[-1].end, segment, found.offset)
                return found.batches[0]
            following = log.following(segment)
            place = (following, FILE_HEADER) if following else None
        later = log.recall(position, following=True)
        # The empty batch makes the lane count what is gone; what came while it was looked for is behind it.
        return later if later is not None and later.first <= end else Batch((), log.name, "", 0.0, first=end)

    async def _load(self, log: DiskLog, segment: Segment, offset: int, position: int, until: int | None) -> Loaded:
        tries = 0
        while True:
            work = partial(load, log.name, segment, segment.length, offset, position, until)
            try:
                return await self._worker.run(work)
            except FileNotFoundError:  # dropped meanwhile, or somebody took it away: then the lane counts the hole
                return _NOTHING
            except OSError as error:
                tries += 1
                lost = error.errno == errno.EIO and tries >= _TRIES
                self._log.error(
                    "A segment of the spool cannot be read; what is left in it is lost."
                    if lost
                    else "A segment of the spool cannot be read; it is tried again.",
                    segment=str(segment.path),
                    error=str(error),
                )
                if lost:
                    return _NOTHING
                await asyncio.sleep(min(0.1 * 2**tries, 5.0))

    def _keep(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            if (batch.log, batch.first) not in self._loaded:
                self._loaded[batch.log, batch.first] = batch
                self._size += memory(batch)
        while self._size > LOADED_SIZE and len(self._loaded) > 1:
            self._size -= memory(self._loaded.popitem(last=False)[1])

    async def _set_aside(self, log: DiskLog, segment: Segment, damage: Damage, data: bytes) -> None:
        place = (log.name, segment.path.stem, damage.offset)
        if place in self._known:
            return
        self._known.add(place)
        name = f"{segment.path.parent.name}-{segment.path.stem}-{damage.offset}"
        self._log.error(
            "A part of the spool is damaged; it is set aside.", log=str(log.name), name=name, bytes=len(data)
        )
        try:
            await self._worker.run(partial(self._folder.set_aside, name, data, self._damaged_size))
        except OSError as error:
            self._log.error("Damaged bytes of the spool could not be set aside.", name=name, error=str(error))
