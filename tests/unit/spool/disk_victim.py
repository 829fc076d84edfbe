"""Appends, reads and commits until it kills itself at a given point: ``FOLDER SYNC WAY POINT MOMENT NUMBER ON_FULL TURNS``.

With the way ``blocks`` all frames are written past the page cache, as large ones are; with ``cached`` none.

It tells on stdout what it was promised: ``accepted END``, ``committing POSITION``, ``committed POSITION``, ``skipped START END``.
"""

import asyncio
import importlib.util
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.core.batch import LogId
from pipeline.kit import appendfile
from pipeline.kit import log as logs
from pipeline.spool import blocks, disk, folder, room, state, writing

spec = importlib.util.spec_from_file_location("disk_driver", Path(__file__).with_name("disk_driver.py"))
assert spec is not None
assert spec.loader is not None
disk_driver = importlib.util.module_from_spec(spec)
sys.modules["disk_driver"] = disk_driver
spec.loader.exec_module(disk_driver)


SECTOR = 512


class Replaced:
    """The module `os` with one function replaced."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.__dict__.update(vars(os))
        self.__dict__[name] = function


def deadly(function: Callable[..., Any], moment: str, number: int) -> Callable[..., Any]:
    """The function, but the process dies before, within or after its n-th call."""
    left = [number]

    def call(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            if moment == "within":  # only of a write: a part of it reaches the file
                fd, data, at = args
                if isinstance(data, memoryview):
                    os.pwrite(fd, data[: SECTOR * random.randrange(1, len(data) // SECTOR)], at)
                else:
                    data = b"".join(data)
                    os.pwrite(fd, data[: random.randrange(1, len(data))], at)
            elif moment == "after":
                function(*args, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    return call


def arm(point: str, moment: str, number: int) -> None:
    """Replace the function at a point of the spool's work."""
    match point:
        case "write" | "create" | "header":
            name = {"write": "pwritev", "create": "open", "header": "pwrite"}[point]
            where = appendfile if point == "write" else writing
            where.os = Replaced(name, deadly(getattr(os, name), moment, number))  # type: ignore[attr-defined]
        case "blocks":
            blocks.os = Replaced("pwrite", deadly(os.pwrite, moment, number))  # type: ignore[attr-defined]
        case "datasync" | "sync_directory":
            setattr(writing, point, deadly(getattr(folder, point), moment, number))
        case "unlink":
            real = deadly(folder.Path.unlink, moment, number)
            folder.Path.unlink = lambda path, **options: real(path, **options)  # type: ignore[assignment,method-assign]  # noqa: PLW0108 - a method must bind its path
        case "remove":
            room.remove = deadly(room.remove, moment, number)  # type: ignore[attr-defined]
        case "commit" | "checkpoint":
            setattr(state.State, point, deadly(getattr(state.State, point), moment, number))


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def main() -> None:
    path, sync, way, point, moment, number, on_full, *turns = sys.argv[1:]
    logs.configure("error")
    disk.DIRECT_SEGMENT = 0 if way == "blocks" else 1 << 30
    writing.DIRECT_FROM = 0
    lane = disk_driver.FakeLane(on_full=on_full)
    name = LogId("a")

    def skip(log: LogId, end: int) -> None:
        tell("skipped", lane.cursors[log], end)
        lane.cursors[log] = end

    lane.skip = skip
    async with disk_driver.spooling(Path(path), lane, max_size=1 << 20, sync=sync) as spool:
        arm(point, moment, int(number))
        rng = random.Random(int(number))
        for turn in range(int(turns[0]) if turns else 400):
            await spool.append(disk_driver.batch(8, spool.stats()[name].end, 2000))
            tell("accepted", spool.stats()[name].end)
            if on_full == "block" or turn < 10:
                for _ in range(rng.randrange(3)):
                    await lane.take(spool)
            if rng.random() < 0.3 or turn % 40 == 39:
                if on_full == "block" and turn % 40 == 39:
                    await lane.drain(spool)
                position = lane.cursors[name]
                tell("committing", position)
                await spool.commit({(lane.id, name): position}, {"s": {"at": position}})
                tell("committed", position)


asyncio.run(main())
