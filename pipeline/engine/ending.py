"""The end of the process, also when something does not come back."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator

from pipeline.engine.runner import Runner
from pipeline.kit import log as logs

GRACE = 10.0
"""Seconds for closing what a pipeline had open, once its work is over."""


@contextlib.asynccontextmanager
async def bounded(runner: Runner) -> AsyncIterator[None]:
    """As the service that is entered last: end the process `GRACE` after the work, whatever it waits for.

    A thread that waits for a hanging disk, or for anything in a plug-in, cannot be cancelled, and Python ends only when all threads
    have. Nothing is lost by it that was not lost before: what no sink confirmed was never committed.
    """
    try:
        yield
    finally:
        timer = threading.Timer(GRACE, _leave, (runner,))
        timer.daemon = True
        timer.start()


def _leave(runner: Runner) -> None:
    waiting = [one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
    if runner.health.phase == "stopped" and not waiting:  # all came back, and the process does something else
        return
    logs.get(component="pipeline").error(
        "Something does not come back; the process ends without it.", seconds=GRACE, threads=waiting
    )
    sys.stdout.flush()
    os._exit(runner.exit_code or 1)
