"""What `dedupe` costs: time per record, memory and bytes of the database per id, time to restore a full table.

python benchmarks/dedupe.py [--entries 1000000]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

from pipeline.core.batch import Batch, LogId
from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import Generator
from pipeline.engine.dedupe import TABLE, Dedupe
from pipeline.engine.identity import keys
from pipeline.engine.route import Route
from pipeline.kit import log as logs
from pipeline.kit.clock import SystemClock
from pipeline.spool.state import State, size

LOG = LogId("tap")
GROUP = 256
EVENT = b'{"routing":{"event_id":"%032x"},"event":{"A":1}}'


def identify(stream: str, rounds: int = 7) -> float:
    """Median microseconds of CPU per record for the key of real-looking records."""
    records = [one.raw for one in Generator(Fleet("bench", 7), stream, 7, 1_700_000_000_000, 100.0).take(4096)]
    times = []
    for _ in range(rounds):
        began = time.process_time()
        for start in range(0, len(records), GROUP):
            part = records[start : start + GROUP]
            keys(Batch(part, LOG, stream, 0.0), part)
        times.append((time.process_time() - began) / len(records) * 1e6)
    return statistics.median(times)


def fill(entries: int, path: Path) -> None:
    clock = SystemClock()
    dedupe = Dedupe("all", window=86400, entries=entries, clock=clock, durable=True)
    route = Route("all", [], [], logs.get(), lambda *_: None, dedupe=dedupe.apply)
    plain = Route("all", [], [], logs.get(), lambda *_: None)
    state = State(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = bare = commits = 0.0
    number = 0
    for first in range(0, entries, GROUP):
        batch = Batch([EVENT % one for one in range(first, first + GROUP)], LOG, "event", 0.0)
        batch.first = first
        began = time.process_time()
        plain.step(batch, first)
        middle = time.process_time()
        route.step(batch, first)
        spent += time.process_time() - middle
        bare += middle - began
        if first // GROUP % 8 == 0:  # about 20,000 records a second with ten commits
            began = time.process_time()
            state.commit({TABLE: dedupe.take()})
            commits += time.process_time() - began
            number += 1
    state.commit({TABLE: dedupe.take()})
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(f"step with dedupe              {(spent - bare) / entries * 1e6:6.2f} us CPU per small record")
    print(
        f"commit                        {commits / entries * 1e6:6.2f} us CPU per id, {commits / number * 1e3:.2f} ms per commit"
    )
    print(f"memory                        {memory / len(dedupe):6.0f} bytes per id")
    state.close()
    print(f"database                      {size(path) / len(dedupe):6.1f} bytes per id")
    began = time.perf_counter()
    state = State(path)
    opened = time.perf_counter()
    dedupe = Dedupe("all", window=86400, entries=entries, clock=clock, durable=True)
    dedupe.restore(state.restore(TABLE), {("all/a", LOG): entries + GROUP})
    print(
        f"restore of {len(dedupe):,} ids     {opened - began:6.2f} s to open, {time.perf_counter() - opened:.2f} s to remember"
    )
    state.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    given = parser.parse_args()
    for stream in ("event", "detect", "audit"):
        print(f"key of a record of {stream:<10} {identify(stream):6.2f} us CPU")
    with tempfile.TemporaryDirectory() as folder:
        fill(given.entries, Path(folder) / "state.db")


if __name__ == "__main__":
    main()
