"""Memory with a sink that takes nothing and a source that is as fast as it can be: ``python benchmarks/memory.py [--seconds 300]``.

A firehose is flooded over TLS; one route writes to a file, the other one to a standard output that nobody reads, with
`on_full: drop_oldest`, so that the flood never stops. Prints the peak of the resident memory and the budget: what the spool may hold
in memory, and 100 MiB for the program (docs/operating.md). It must stay within the budget and a tenth.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from _rig import Flood, Rig, free_port

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import Generator

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
MIB = 1 << 20
PROGRAM = 100 * MIB
SPOOLS = {"memory": 64 * MIB, "disk": 24 * MIB}
"""Kind -> bytes that it may hold in memory: all, or the latest batches and those that were read again."""


def measure(kind: str, seconds: float, events: list[bytes]) -> bool:
    folder = Path(tempfile.mkdtemp(prefix="memory-"))
    spool = {"type": "memory", "max_size": "64MiB"}
    if kind == "disk":
        spool = {"type": "disk", "path": str(folder / "spool"), "max_size": "256MiB"}
    port = free_port()
    rig = Rig(folder, {
        "sources": {"hose": {"type": "firehose", "stream": "event", "listen": f"127.0.0.1:{port}"}},
        "sinks": {
            # The file is cut all the time, so that the disk is not what ends this.
            "archive": {"type": "file", "path": f"{folder}/out/%H.jsonl", "sync": "normal", "rotate": {"size": "64MiB"}},
            "held": {"type": "stdout", "format": "json"},
        },
        "routes": {
            "all": {"from": "hose", "to": "archive"},
            "stalled": {"from": "hose", "to": "held", "on_full": "drop_oldest"},
        },
        "spool": spool,
    })  # fmt: skip
    start = rig.rss
    floods = [Flood(port, events) for _ in range(2)]
    peak = 0
    began = time.monotonic()
    try:
        while (passed := time.monotonic() - began) < seconds:
            time.sleep(0.25)
            peak = max(peak, rig.rss)
            for old in sorted((folder / "out").glob("*"), key=lambda path: path.stat().st_mtime)[:-2]:
                old.unlink()
        delivered = rig.delivered("archive")
        discarded = rig.metric("pipeline_lane_records_total", sink="held", outcome="discarded")
        off = rig.metric("pipeline_conservation_error_records")
    finally:
        for flood in floods:
            flood.close()
        rig.stop()
        shutil.rmtree(folder)
    budget = SPOOLS[kind] + PROGRAM
    print(
        f"{kind}: {passed:.0f} s, {delivered / passed:,.0f} events/s delivered, {discarded:,.0f} discarded by the stalled lane, "
        f"conservation off by {off:.0f}; {start / MIB:.0f} MiB at the start, peak {peak / MIB:.0f} MiB, "
        f"{peak / budget:.0%} of the budget of {budget / MIB:.0f} MiB",
        flush=True,
    )
    return peak <= budget * 1.1 and discarded > 0 and off == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="For each kind of spool.")
    parser.add_argument("--spools", default="memory,disk")
    options = parser.parse_args()
    generator = Generator(Fleet(OID, seed=7), "event", 7, 1_700_000_000_000, 1000.0)
    events = [record.raw + b"\n" for record in generator.take(20_000)]
    results = [measure(kind, options.seconds, events) for kind in options.spools.split(",")]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
