"""One thread for work that blocks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """Runs one piece of work after the other, in the order in which they were given.

    It is an executor of one thread with fewer hops between thread and event loop: each batch pays for them.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def start(self, work: Callable[[], T], then: Callable[[Callable[[], T]], object]) -> None:
        """Run ``work`` in the thread, then ``then`` in the event loop; what it is given returns or raises what ``work`` did.

        Raises RuntimeError after `close`.
        """

        def job() -> None:
            done: Future[T] = Future()
            _settle(done, work)
            self._loop.call_soon_threadsafe(then, done.result)

        self._put(job)

    async def run(self, work: Callable[[], T], book: Callable[[T], object] | None = None) -> T:
        """Run ``work`` in the thread, then ``book`` what it returned in the event loop, also when the caller is cancelled.

        Raises what either of them raises.
        """
        future: asyncio.Future[T] = self._loop.create_future()

        def then(outcome: Callable[[], T]) -> None:
            try:
                result = outcome()
                if book is not None:
                    book(result)
            except BaseException as error:
                if future.cancelled():
                    raise  # nobody else will hear of it; the event loop logs it
                future.set_exception(error)
            else:
                if not future.cancelled():
                    future.set_result(result)

        self.start(work, then)
        return await future

    def wait(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the thread and block until it is done. Raises what it raises."""
        done: Future[T] = Future()
        self._put(lambda: _settle(done, work))
        return done.result()

    async def close(self) -> None:
        """Finish what was given. Safe to call twice."""
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _put(self, job: Callable[[], object]) -> None:
        if self._closed:
            raise RuntimeError("this thread has ended")
        self._queue.put(job)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            job()


def _settle(done: Future[T], work: Callable[[], T]) -> None:
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(error)
