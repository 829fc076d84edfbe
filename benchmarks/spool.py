"""What the disk spool costs beside the memory spool, in one run: ``python benchmarks/spool.py [--events 100000] [--rounds 3]``.

First append and read alone, with and without decoding, batch by batch; then the whole program, from a TLS port through a filter on a
field into a file, with records decoded whole and with no more of them decoded than the filter needs. Prints µs per event, CPU of user
and system; rounds are interleaved, medians count.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.core.batch import Batch, LogId
from pipeline.core.spool import Spool
from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import Generator
from pipeline.kit import log as logs
from pipeline.spool.disk import DiskSpool, DiskSpoolConfig
from pipeline.spool.memory import MemorySpool, MemorySpoolConfig

if TYPE_CHECKING:
    from benchmarks.flow.job import Place

LOG = LogId("bench")
BATCH = 256
SPOOLS = ("memory", "disk normal", "disk full")


def corpus(count: int) -> list[bytes]:
    """Events as the emulator makes them."""
    fleet = Fleet("8cbe27f4-bfa1-4afb-ba19-138cd51389cd", seed=7)
    return [record.raw for record in Generator(fleet, "event", 7, 1_700_000_000_000, 1000.0).take(count)]


class BenchLane:
    """Reads as it is woken."""

    id, logs, on_full = "bench/lane", (LOG,), "block"

    def __init__(self) -> None:
        self.position = 0
        self.woken = asyncio.Event()

    def wake(self) -> None:
        self.woken.set()

    hurry = wake

    def cursor(self, log: LogId) -> int:
        return self.position

    def skip(self, log: LogId, end: int) -> None:
        raise AssertionError


async def pump(spool: Spool, events: list[bytes], count: int, *, decode: bool, lag: bool) -> None:
    """Append ``count`` events and read them, at once, or with ``lag`` all from the disk afterwards."""
    await spool.open([LOG])
    lane = BenchLane()
    spool.attach([lane])  # type: ignore[list-item]  # all that the spool calls
    batches = [events[start : start + BATCH] for start in range(0, len(events), BATCH)]
    total = count // BATCH * BATCH

    async def produce() -> None:
        for number in range(count // BATCH):
            await spool.append(Batch(batches[number % (len(events) // BATCH)], LOG, "event", 1.0))

    async def consume() -> None:
        while lane.position < total:
            batch = await spool.read(LOG, lane.position)
            if batch is None:
                lane.woken.clear()
                await lane.woken.wait()
                continue
            if decode:
                for raw in batch.records:
                    orjson.loads(raw)
            lane.position = batch.end
            if not spool.durable:
                await spool.commit({(lane.id, LOG): lane.position}, {})

    async def commit() -> None:
        while lane.position < total:
            await asyncio.sleep(0.1)
            await spool.commit({(lane.id, LOG): lane.position}, {})

    if lag:
        await produce()
        await asyncio.gather(consume(), commit())
    else:
        await asyncio.gather(produce(), consume(), commit())
    await spool.close()


def measured(who: int, work: Callable[[], object], count: int) -> tuple[float, float]:
    """CPU and wall µs per event."""
    before, began = resource.getrusage(who), time.perf_counter()
    work()
    after, ended = resource.getrusage(who), time.perf_counter()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu / count * 1e6, (ended - began) / count * 1e6


def alone(name: str, events: list[bytes], count: int, *, decode: bool, lag: bool = False) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        spool: Spool = MemorySpool(MemorySpoolConfig())
        if name != "memory":
            config = {"type": "disk", "path": folder, "max_size": 8 << 30, "sync": name.removeprefix("disk ")}
            spool = DiskSpool(DiskSpoolConfig.model_validate(config))
        work = pump(spool, events, count, decode=decode, lag=lag)
        return measured(resource.RUSAGE_SELF, lambda: asyncio.run(work), count)


def programs(events: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Way of deciding -> spool -> CPU µs per event of the whole program: TLS → decode + field filter → file."""
    # A script's own folder is on the path, not that of the package that it is in.
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from benchmarks import flow
    from benchmarks.flow.job import System
    from benchmarks.flow.ours import run

    def spooled(name: str) -> Callable[[Place], Mapping[str, Any]]:
        if name == "memory":
            return lambda _: {}
        return lambda place: {"spool": {"type": "disk", "path": str(place.folder / "spool"), "sync": name[5:]}}

    ways = {"whole decode": "whole", "projection": ""}
    systems = [
        System(f"{way}/{name}", frozenset({"json-file"}), run(spooled(name), filters=filters))
        for way, filters in ways.items()
        for name in SPOOLS
    ]
    arguments = ["--events", str(events), "--rounds", str(rounds), "--jobs", "json-file", "--framings", "blocks"]
    (group,) = flow.run(flow.options([*arguments, "--no-peers"]), systems)["groups"]
    found: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    for system in group["systems"]:
        way, _, name = system["name"].partition("/")
        if system["failure"]:
            raise SystemExit(f"{system['name']}: {system['failure']}")
        found[way][name] = [one["cost"] for one in system["runs"]]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logs.configure("error")
    events = corpus(BATCH * 32)
    count = options.events
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(options.rounds):
        for name in SPOOLS:
            results.setdefault(("append + read", name), []).append(alone(name, events, count, decode=False))
            results.setdefault(("  with decode", name), []).append(alone(name, events, count, decode=True))
        results.setdefault(("  read later", "disk full"), []).append(
            alone("disk full", events, count, decode=False, lag=True)
        )
    print(f"{count:,} events, mean {sum(map(len, events)) / len(events):,.0f} bytes, µs per event")
    print(f"{'job':<16}{'spool':<14}{'CPU':>8}{'wall':>8}{'CPU vs memory':>16}")
    for (job, name), figures in results.items():
        cpu, wall = (statistics.median(values) for values in zip(*figures, strict=True))
        base = statistics.median(figure[0] for figure in results.get((job, "memory"), figures))
        beside = f"{100 * (cpu / base - 1):+.0f} %" if name != "memory" and (job, "memory") in results else ""
        print(f"{job:<16}{name:<14}{cpu:>8.2f}{wall:>8.2f}{beside:>16}")
    print("\nThe whole program, TLS → decode + field filter → file")
    print(f"{'decided by':<16}{'spool':<14}{'CPU':>8}{'least':>8}{'most':>8}{'CPU vs memory':>16}")
    for way, spools in programs(count, options.rounds).items():
        base = statistics.median(spools["memory"])
        for name, costs in spools.items():
            cost = statistics.median(costs)
            beside = f"{100 * (cost / base - 1):+.0f} %" if name != "memory" else ""
            print(f"{way:<16}{name:<14}{cost:>8.2f}{min(costs):>8.2f}{max(costs):>8.2f}{beside:>16}")


if __name__ == "__main__":
    main()
