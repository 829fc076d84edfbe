"""Spools, and counting."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from benchmarks.micro.reading import Cases
from benchmarks.spool import pump
from pipeline.kit import log as logs
from pipeline.spool.disk import DiskSpool, DiskSpoolConfig
from pipeline.spool.memory import MemorySpool, MemorySpoolConfig


def spools(records: list[bytes]) -> Cases:
    logs.configure("error")

    def memory() -> None:
        asyncio.run(pump(MemorySpool(MemorySpoolConfig()), records, len(records), decode=False, lag=False))

    def disk(sync: str) -> Callable[[], None]:
        def work() -> None:
            with tempfile.TemporaryDirectory() as folder:
                config = {"type": "disk", "path": folder, "max_size": 8 << 30, "sync": sync}
                spool = DiskSpool(DiskSpoolConfig.model_validate(config))
                asyncio.run(pump(spool, records, len(records), decode=False, lag=False))

        return work

    return {
        "memory, append and read": memory,
        "disk, sync: normal": disk("normal"),
        "disk, sync: full": disk("full"),
    }


def metrics(records: list[bytes]) -> Cases:
    count = len(records)
    counter = Counter("bench", "Counts.", ["sink"], registry=CollectorRegistry())
    bound = counter.labels("out")

    def labels() -> None:
        for _ in range(count):
            counter.labels("out").inc()

    def child() -> None:
        for _ in range(count):
            bound.inc()

    def batch() -> None:
        total = 0
        for start in range(0, count, 256):
            total += len(records[start : start + 256])

    return {
        "labels().inc() for each event": labels,
        "a bound child's inc() for each event": child,
        "a plain count for each batch, as we do": batch,
    }
