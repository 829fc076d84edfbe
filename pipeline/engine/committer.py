"""Commits what lanes are past, the marks of their sinks and what else must change together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.core.batch import LogId
from pipeline.core.sink import Sink
from pipeline.core.spool import Facts, Key, Spool
from pipeline.engine.delivery import SinkRunner
from pipeline.kit.log import Logger

SYNC_INTERVAL = 0.1
"""Seconds between commits of positions and marks, and between `Sink.sync` calls."""


@dataclass(slots=True)
class _Noted:
    """What a sink's lanes are past, and its marks, since the last commit."""

    positions: dict[tuple[str, LogId], int] = field(default_factory=dict)
    marks: dict[str, Any] = field(default_factory=dict)


class Keeper(Protocol):
    """Keeps something that is committed together with positions and marks."""

    def take(self) -> Facts:
        """Hand over what changed since the last time."""
        ...

    def give_back(self, facts: Facts) -> None:
        """What was taken last could not be committed: hand it over again next time."""
        ...


class Committer:
    """Commits positions, marks and the facts of keepers in one step, after the sinks have synced.

    A sink that cannot sync holds up its own positions only.
    """

    def __init__(self, spool: Spool, log: Logger) -> None:
        self.keepers: Sequence[Keeper] = ()
        """Whose facts take part in each commit. What they know is never behind the positions."""
        self._sinks: Sequence[SinkRunner] = ()
        self._spool = spool
        self._log = log
        self._syncing: frozenset[str] = frozenset()
        """Sinks with a `sync` of their own: what they stored counts only after it."""
        self._noted: dict[str, _Noted] = {}
        self._under_way: dict[str, _Noted] = {}
        """What the commit that runs now will write."""
        self._commits = asyncio.Lock()
        self._writes = asyncio.Lock()

    @property
    def sinks(self) -> Sequence[SinkRunner]:
        return self._sinks

    @sinks.setter
    def sinks(self, sinks: Sequence[SinkRunner]) -> None:
        self._sinks = sinks
        self._syncing = frozenset(runner.id for runner in sinks if type(runner.sink).sync is not Sink.sync)

    async def note(self, positions: Mapping[tuple[str, LogId], int], sink: str, mark: Mapping[str, Any] | None) -> None:
        """Take part in the next commit; where a commit costs nothing and the sink has nothing to sync, it is made at once."""
        if self._spool.commit_interval == 0 and sink not in self._syncing:
            await self._spool.commit(positions, {sink: mark} if mark else {})
            return
        noted = self._noted.setdefault(sink, _Noted())
        noted.positions.update(positions)
        noted.marks.update(mark or {})

    async def commit_mark(self, sink: str, mark: Mapping[str, Any]) -> None:
        """Commit one mark now; it stands for what was noted for the same keys before. Does not wait for a `sync`."""
        async with self._writes:
            await self._spool.commit({}, {sink: mark})
            for noted in (self._under_way, self._noted):
                if sink in noted:
                    for key in mark:
                        noted[sink].marks.pop(key, None)

    async def commit_facts(self, facts: Facts) -> None:
        """Commit facts of the spool's own now, in one step with those of keepers. Raises what the spool raises."""
        async with self._writes:
            with self._taken() as known:
                await self._spool.commit({}, {}, _merged([known, facts]))

    async def run(self) -> None:
        """Commit in intervals, until cancelled."""
        while True:
            await asyncio.sleep(self._spool.commit_interval or SYNC_INTERVAL)
            await self.commit()

    async def commit(self) -> None:
        """Sync the sinks that were written to, then commit what was noted before."""
        async with self._commits:
            noted = self._under_way = self._noted
            self._noted = {}
            try:
                await asyncio.gather(*(self._sync(runner, noted) for runner in self._sinks))
                await self._commit(noted)
            finally:  # also when the commit was broken off: the next one takes what it left
                for sink in list(noted):
                    self._put_back(sink, noted)

    async def _commit(self, noted: dict[str, _Noted]) -> None:
        async with self._writes:
            positions = {key: position for one in noted.values() for key, position in one.positions.items()}
            marks = {sink: one.marks for sink, one in noted.items() if one.marks}
            try:
                with self._taken() as facts:
                    if positions or marks or facts:
                        await self._spool.commit(positions, marks, facts)
                noted.clear()
            except Exception as error:
                self._log.error(
                    "Positions could not be committed; records may come twice after a crash.", exc_info=error
                )

    @contextmanager
    def _taken(self) -> Iterator[Facts]:
        """What keepers have to commit. They get it back when that fails or is broken off: to commit a fact twice does no harm."""
        taken = [(keeper, keeper.take()) for keeper in self.keepers]
        try:
            yield _merged(facts for _, facts in taken)
        except BaseException:
            for keeper, facts in taken:
                keeper.give_back(facts)
            raise

    async def _sync(self, runner: SinkRunner, noted: dict[str, _Noted]) -> None:
        try:
            await runner.sync()
        except Exception as error:
            runner.failed(error, "The sink could not make its writes durable; it is tried again.")
            self._put_back(runner.id, noted)

    def _put_back(self, sink: str, noted: dict[str, _Noted]) -> None:
        old, new = noted.pop(sink, _Noted()), self._noted.get(sink, _Noted())
        self._noted[sink] = _Noted(old.positions | new.positions, old.marks | new.marks)


def _merged(given: Iterable[Facts]) -> Facts:
    merged: dict[str, dict[Key, str | int | bytes | None]] = {}
    for facts in given:
        for table, rows in facts.items():
            merged.setdefault(table, {}).update(rows)
    return merged
