"""One thread for work that blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """Runs one piece of work after the other, in the order in which they were given."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)

    async def run(self, work: Callable[[], T], book: Callable[[T], object] | None = None) -> T:
        """Run ``work`` in the thread, then ``book`` what it returned in the event loop, also when the caller is cancelled."""
        future = self.start(work)
        if book is not None:
            future.add_done_callback(lambda done: None if done.exception() else book(done.result()))
        return await asyncio.shield(future)

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Give work to the thread."""
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def wait(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the thread and block until it is done."""
        return self._thread.submit(work).result()

    async def close(self) -> None:
        """Finish what was given. Safe to call twice."""
        await asyncio.to_thread(self._thread.shutdown)
