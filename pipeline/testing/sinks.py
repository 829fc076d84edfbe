"""`check_sink`: the contract of `pipeline.Sink`."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from pipeline.core.component import Context
from pipeline.core.items import Items
from pipeline.core.sink import Sink
from pipeline.core.types import RecordPath
from pipeline.testing.records import RECORDS, large_record, make_items
from pipeline.testing.surroundings import context

Make = Callable[[Context], Sink[Any]]
Stored = Callable[[], Iterable[bytes] | Awaitable[Iterable[bytes]]]
MARK_SIZE = 64 << 10
"""Bytes that a mark may have as JSON."""


async def check_sink(
    make: Make, stored: Stored, *, large: int = 1 << 20, ordered: bool = True, within: float = 15.0
) -> None:
    """Check the sinks that ``make`` builds. Raises AssertionError.

    ``stored`` (synchronous or not) gives all payloads that are stored; it is called while no sink is open. All instances must
    store in the same place, which is empty at first. ``large`` is the size in bytes of the largest payload. With ``ordered``,
    payloads of one write and one log must be found in their order. Each step must be over ``within`` seconds.
    """
    table: dict[str, Any] = {}
    await _check_close(make, within)
    probe = make(_surroundings(table))
    await _bounded(probe.check(), within, "check() comes to its end.")
    await _bounded(probe.close(), within, "close() comes to its end after check().")
    assert not await _all(stored), "check() stores nothing."

    first = [_numbered(0), _numbered(100, org="acme"), _numbered(200, stream="detect"), [large_record(large)]]
    await _session(make, table, [Items([]), _items(make, first)], within)
    parts = [*first]
    await _compare(stored, parts, ordered=ordered)

    more = [_numbered(300), list(RECORDS)]
    await _session(make, table, [_items(make, [part]) for part in more], within)
    parts += more
    await _compare(stored, parts, ordered=ordered)

    if make(context()).has_marks:
        await _check_crash(make, stored, table, parts, within, ordered=ordered)


async def _check_close(make: Make, within: float) -> None:
    sink = make(context())
    await _bounded(sink.close(), within, "close() without open() comes to its end.")
    await _bounded(sink.close(), within, "A second close() comes to its end.")


async def _check_crash(
    make: Make, stored: Stored, table: dict[str, Any], parts: list[list[bytes]], within: float, *, ordered: bool
) -> None:
    """What a sink stored without its mark being committed is gone when it opens again, and comes once when written again."""
    late = _numbered(400)
    forgetful = make(_surroundings(table))
    await forgetful.open(dict(table))
    await forgetful.write(_items(make, [late]))  # its mark is lost, as in a crash
    await forgetful.close()
    await _session(make, table, [_items(make, [late])], within)
    await _compare(stored, [*parts, late], ordered=ordered)


async def _session(make: Make, table: dict[str, Any], writes: Sequence[Items], within: float) -> None:
    """Open, write, sync and close as the engine does; marks are merged into ``table``."""
    sink = make(_surroundings(table))
    assert all(isinstance(path, RecordPath) for path in sink.paths), "Sink.paths are RecordPaths."
    try:
        await _bounded(sink.open(dict(table)), within, "open() comes to its end.")
        for items in writes:
            mark = await _bounded(sink.write(items), within, "write() comes to its end.")
            if mark is not None:
                assert sink.has_marks, "A sink that returns marks says so by `has_marks`."
                _merge(table, mark)
        await _bounded(sink.sync(), within, "sync() comes to its end.")
        await _bounded(sink.sync(), within, "A second sync() comes to its end.")
    finally:
        await _bounded(sink.close(), within, "close() comes to its end.")
    await _bounded(sink.close(), within, "A second close() comes to its end.")


def _surroundings(table: dict[str, Any]) -> Context:
    async def commit_mark(mark: Mapping[str, Any]) -> None:
        _merge(table, mark)

    return context(commit_mark=commit_mark)


def _merge(table: dict[str, Any], mark: Mapping[str, Any]) -> None:
    encoded = orjson.dumps(dict(mark))
    assert len(encoded) <= MARK_SIZE, f"A mark is small; this one has {len(encoded)} bytes."
    for key, value in orjson.loads(encoded).items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value


def _numbered(start: int, *, stream: str = "event", org: str = "") -> list[bytes]:
    return [
        orjson.dumps({"routing": {"event_type": stream, "hostname": f"ws-{org}-日本"}, "number": number})
        for number in range(start, start + 5)
    ]


def _items(make: Make, payloads: Sequence[Sequence[bytes]]) -> Items:
    """One part each: of several streams and organizations where there are several."""
    paths = tuple(make(context()).paths)
    facts = [("event", ""), ("event", "acme"), ("detect", ""), ("audit", "globex")]
    parts = [
        part
        for number, some in enumerate(payloads)
        for part in make_items(some, stream=facts[number % 4][0], org=facts[number % 4][1], paths=paths).parts
    ]
    return Items(parts)


async def _all(stored: Stored) -> list[bytes]:
    found = stored()
    return list(await found if inspect.isawaitable(found) else found)


async def _compare(stored: Stored, parts: Sequence[Sequence[bytes]], *, ordered: bool) -> None:
    found = await _all(stored)
    want, got = Counter(payload for part in parts for payload in part), Counter(found)
    assert not want - got, f"Returning from write() means stored; {(want - got).total()} payloads are missing."
    assert not got - want, f"A sink stores each payload once, byte for byte; {(got - want).total()} are too many."
    if ordered:
        for part in parts:
            places = [found.index(payload) for payload in part]
            assert places == sorted(places), "Payloads of one write and one log keep their order."


async def _bounded(work: Awaitable[Any], within: float, promise: str) -> Any:
    try:
        async with asyncio.timeout(within):
            return await work
    except TimeoutError as error:
        raise AssertionError(f"{promise} It did not within {within:g} s.") from error
