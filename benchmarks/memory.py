"""What it holds in memory: ``python -m benchmarks.memory [--seconds 300] [--connections 1000]``.

* at rest: after the start, before the first record
* a connection: so many TLS connections that are open and say nothing, what they take together divided by their number
* a stalled sink: a firehose is flooded over TLS; one route writes to a file, the other one to a standard output that nobody reads,
  with `on_full: drop_oldest`, so that the flood never stops. It must stay within the budget and a tenth: what the spool may hold in
  memory, and 100 MiB for the program (docs/operating.md).

What it holds with a sink that keeps up is among the figures of `benchmarks.soak`.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import ssl
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import trustme

from benchmarks._rig import Flood, Rig, free_port
from benchmarks.corpus import corpus

MIB = 1 << 20
PROGRAM = 100 * MIB
SPOOLS = {"memory": 64 * MIB, "disk": 24 * MIB}
"""Kind -> bytes that it may hold in memory: all, or the latest batches and those that were read again."""
EVENTS = 20_480
LINK = 64
"""KiB that we want a connection to take at most."""
SETTLE = 2.0
"""Seconds after the last handshake until memory is looked at."""


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.memory", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="of the flood, for each kind of spool")
    parser.add_argument("--spools", default="memory,disk")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="a few seconds: does it run?")
    found = parser.parse_args(arguments)
    if found.quick:
        found.seconds, found.connections = 5.0, 50
    return found


def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure; returns what `report.memory` makes a table of."""
    with corpus(EVENTS).open("rb") as file:
        events = list(file)
    found = idle(given.connections)
    for kind in given.spools.split(","):
        found.append(stalled(kind, given.seconds, events))
        print(f"memory: {found[-1]}", file=sys.stderr)
    return found


def idle(count: int) -> list[dict[str, Any]]:
    """At rest, and with connections that say nothing."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memory-")))
        port = free_port()
        issued = trustme.CA().issue_cert("127.0.0.1")
        cert, key = folder / "cert.pem", folder / "key.pem"
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        # With a certificate of one's own; making one takes a library of 8 MiB.
        hose = {
            "type": "firehose",
            "stream": "event",
            "listen": f"127.0.0.1:{port}",
            "tls": {"cert": str(cert), "key": str(key)},
            "max_connections": count + 1,
        }
        rig = Rig(folder, {
            "sources": {"hose": hose},
            "sinks": {"archive": {"type": "file", "path": f"{folder}/out/%H.jsonl"}},
            "routes": {"all": {"from": "hose", "to": "archive"}},
        })  # fmt: skip
        stack.callback(rig.stop)
        time.sleep(SETTLE)
        start = rig.rss
        context = ssl._create_unverified_context()
        for _ in range(count):
            link = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stack.enter_context(context.wrap_socket(link))
        time.sleep(SETTLE)
        taken = (rig.rss - start) / count / 1024
    return [
        {"what": "at rest", "found": f"{start / MIB:.0f} MiB", "wanted": "", "met": True},
        {
            "what": f"each of {count:,} idle TLS connections",
            "found": f"{taken:.0f} KiB",
            "wanted": f"≤ {LINK} KiB",
            "met": taken <= LINK,
        },
    ]


def stalled(kind: str, seconds: float, events: list[bytes]) -> dict[str, Any]:
    """With a sink that takes nothing and a source that is as fast as it can be."""
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
    most = (SPOOLS[kind] + PROGRAM) * 1.1
    told = f"{passed:.0f} s, {delivered / passed:,.0f} events/s beside it"
    return {
        "what": f"one sink stalled, {kind} spool ({told})",
        "found": f"{peak / MIB:.0f} MiB at most",
        "wanted": f"≤ {most / MIB:.0f} MiB",
        # A quick run need not fill the spool; a full one must show that it shed and lost count of nothing.
        "met": peak <= most and off == 0 and (discarded > 0 or seconds < 10),
    }


def main() -> int:
    results = run(options(sys.argv[1:]))
    for result in results:
        print(f"{result['what']}: {result['found']} {result['wanted']} {'' if result['met'] else 'MISSED'}", flush=True)
    return 0 if all(result["met"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
