"""The thread of a disk spool."""

import asyncio
import threading

import pytest

from pipeline.spool.worker import Worker


async def test_what_was_done_is_booked_though_the_caller_is_gone() -> None:
    """A caller that is cancelled while the thread works leaves nothing half done: the result is booked all the same."""
    worker = Worker("test")
    begun, go_on, booked = threading.Event(), threading.Event(), asyncio.Event()

    def work() -> int:
        begun.set()
        go_on.wait(5)
        return 7

    results: list[int] = []
    task = asyncio.create_task(worker.run(work, lambda result: (results.append(result), booked.set())))
    await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert results == []
    go_on.set()
    await asyncio.wait_for(booked.wait(), 5)
    assert results == [7]
    await worker.close()


async def test_a_failure_reaches_the_caller() -> None:
    """What the work or its booking raises is raised to who waits; the thread goes on."""
    worker = Worker("test")

    def fail(_: object = None) -> None:
        raise OSError("no")

    for arguments in ((fail,), (lambda: None, fail)):
        with pytest.raises(OSError, match="no"):
            await asyncio.wait_for(worker.run(*arguments), 5)
    assert await worker.run(lambda: 3) == 3
    await worker.close()


async def test_work_after_the_end_is_refused() -> None:
    """What was given before `close` is finished; what comes later is an error, and nobody waits for ever."""
    worker = Worker("test")
    task = asyncio.create_task(worker.run(lambda: 1))
    await asyncio.sleep(0)
    await worker.close()
    await worker.close()
    assert await task == 1
    with pytest.raises(RuntimeError):
        await worker.run(lambda: 2)
    with pytest.raises(RuntimeError):
        worker.wait(lambda: 2)
