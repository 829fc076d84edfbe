"""The sink `moody`, a package from outside: it stores what it gets, or behaves as the driver says. It also moves the wall clock.

The driver writes `CONTROL` into a file that is mapped into both processes.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import time
from pathlib import Path
from zlib import crc32

from pipeline import Items, Partial, Rejected, RetryLater, Sink, SinkConfig

CONTROL = struct.Struct("<dI4x")
"""Seconds by which the wall clock is off, and the number of a mood."""
MOODS = ("well", "away", "slow", "picky", "partly", "broken", "hanging")
_real_time = time.time


class Control:
    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), CONTROL.size)

    def offset(self) -> float:
        return float(CONTROL.unpack(self._map)[0])

    def mood(self) -> str:
        return MOODS[CONTROL.unpack(self._map)[1]]

    def set(self, offset: float, mood: str) -> None:
        self._map[:] = CONTROL.pack(offset, MOODS.index(mood))


class MoodyConfig(SinkConfig):
    """Store each write as a file."""

    folder: Path
    """Where."""
    control: Path
    """What says how to behave."""


class Moody(Sink[MoodyConfig]):
    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self._control = Control(self.config.control)
        self._count = 0
        # The clock of the machine is everybody's; here it jumps for this process alone.
        time.time = lambda: _real_time() + self._control.offset()

    async def write(self, items: Items) -> None:
        payloads = [item.payload for item in items]
        failures: dict[int, RetryLater | Rejected] = {}
        match self._control.mood():
            case "away":
                raise RetryLater("away")
            case "broken":
                raise RuntimeError("broken")
            case "hanging":
                await asyncio.sleep(3600)
            case "slow":
                await asyncio.sleep(0.15)
            case "picky":
                failures = {at: Rejected("unloved") for at, raw in enumerate(payloads) if crc32(raw) % 8 == 0}
            case "partly":
                failures = {at: RetryLater("later") for at in range(len(payloads)) if at % 2}
        stored = [raw for at, raw in enumerate(payloads) if at not in failures]
        if stored:
            self._count += 1
            name = f"{os.getpid()}-{time.monotonic_ns()}-{self._count}"
            part = self.config.folder / f"{name}.part"
            part.write_bytes(b"\n".join(stored) + b"\n")
            part.rename(self.config.folder / f"{name}.jsonl")
        if failures:
            raise Partial(failures)


def lay_out(site: Path) -> None:
    """Install it for who has ``site`` on the PYTHONPATH."""
    info = site / "lc_moody-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lc-moody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pipeline.sinks]\nmoody = lc_moody:Moody\n")
    (site / "lc_moody.py").write_bytes(Path(__file__).read_bytes())
