"""`check_source`: the contract of `pipeline.Source`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pipeline.core.component import Context
from pipeline.core.source import Source
from pipeline.testing.surroundings import RecordingOutlet, context

Make = Callable[[Context], Source[Any]]
Feed = Callable[[Source[Any]], Awaitable[None]]


async def check_source(
    make: Make,
    *,
    surroundings: Callable[[], Context] = context,
    feed: Feed | None = None,
    expect: Sequence[bytes] | None = None,
    at_least: int = 1,
    within: float = 5.0,
) -> None:
    """Check the sources that ``make`` builds. Raises AssertionError.

    ``feed`` makes records come, once the source is open and runs; not needed where they come by themselves. ``expect`` are all
    records that then come, in order; without it at least ``at_least`` must come. Each step must be over ``within`` seconds.
    ``surroundings`` makes the context of each instance, where the default does not do.
    """
    await _check_close(make, surroundings, within)
    await _check_run(make, surroundings, feed, expect, at_least, within)
    await _check_stopped_before(make, surroundings, within)
    await _check_cancel(make, surroundings, feed, within)


async def _check_close(make: Make, surroundings: Callable[[], Context], within: float) -> None:
    source = make(surroundings())
    await _bounded(source.close(), within, "close() without open() comes to its end.")
    await _bounded(source.close(), within, "A second close() comes to its end.")


async def _check_run(
    make: Make,
    surroundings: Callable[[], Context],
    feed: Feed | None,
    expect: Sequence[bytes] | None,
    at_least: int,
    within: float,
) -> None:
    source, outlet = make(surroundings()), RecordingOutlet()
    await _bounded(source.open(), within, "open() comes to its end.")
    assert not outlet.sent, "open() takes no record."
    run = asyncio.ensure_future(source.run(outlet))
    try:
        wanted = at_least if expect is None else len(expect)
        comes = asyncio.ensure_future(_come(source, outlet, feed, wanted))
        try:
            await asyncio.wait({run, comes}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
            if run.done():
                run.result()
            else:
                assert comes.done(), f"{wanted} records come within {within:g} s; there were {len(outlet.sent)}."
                comes.result()
        finally:
            comes.cancel()
        source.stopping.set()
        await _bounded(asyncio.shield(run), within, "run() ends when `stopping` is set.")
    finally:
        await _end(run)
        await _bounded(source.close(), within, "close() comes to its end.")
    await _bounded(source.close(), within, "A second close() comes to its end.")
    got = outlet.records
    for raw in got:
        assert isinstance(raw, bytes), f"A record is bytes, not {type(raw).__name__}."
        assert b"\n" not in raw, "A record has no line end."
    if expect is None:
        assert len(got) >= at_least, f"At least {at_least} records come; there were {len(got)}."
    else:
        assert got == list(expect), "The records that come are those expected, in their order, unchanged."


async def _come(source: Source[Any], outlet: RecordingOutlet, feed: Feed | None, wanted: int) -> None:
    if feed is not None:
        await feed(source)
    await outlet.wait_for(wanted)


async def _check_stopped_before(make: Make, surroundings: Callable[[], Context], within: float) -> None:
    source = make(surroundings())
    await source.open()
    source.stopping.set()
    try:
        await _bounded(
            source.run(RecordingOutlet()), within, "run() ends at once when `stopping` is set before it begins."
        )
    finally:
        await source.close()


async def _check_cancel(make: Make, surroundings: Callable[[], Context], feed: Feed | None, within: float) -> None:
    """A source that is held up by a full spool can be broken off, and closed then."""
    source, outlet = make(surroundings()), RecordingOutlet(room=0)
    await source.open()
    run = asyncio.ensure_future(source.run(outlet))
    comes = asyncio.ensure_future(_fill(source, outlet, feed))
    try:
        await asyncio.wait({run, comes}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        assert comes.done(), "run() waits while the spool takes no record; it must not go on without `send` returning."
        comes.result()
        run.cancel()
        await asyncio.wait({run}, timeout=within)
        assert run.done(), "run() ends when it is cancelled while `send` waits."
        assert run.cancelled(), "run() lets its cancellation through."
        assert not outlet.sent, "A source does not count on a record that was never accepted."
    finally:
        comes.cancel()
        await _end(run)
        await _bounded(source.close(), within, "close() comes to its end after run() was cancelled.")


async def _fill(source: Source[Any], outlet: RecordingOutlet, feed: Feed | None) -> None:
    if feed is not None:
        await feed(source)
    await outlet.wait_until_full()


async def _end(task: asyncio.Future[Any]) -> None:
    """Leave nothing running, whatever a check found."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
    if task.done() and not task.cancelled():
        task.exception()


async def _bounded(work: Awaitable[Any], within: float, promise: str) -> None:
    try:
        async with asyncio.timeout(within):
            await work
    except TimeoutError as error:
        raise AssertionError(f"{promise} It did not within {within:g} s.") from error
