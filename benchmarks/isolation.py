"""Does one stalled sink, or one flooded source, harm the others? ``python benchmarks/isolation.py [--seconds 60]``

* stalled: a firehose is flooded; one route writes to a file, another one to a standard output that is read at first, and then by
  nobody for `--seconds`. With `drop_oldest` the file's rate must stay what it was while somebody read; with `block` it must stay so
  until the spool is full.
* flood: detections come at 50 per second, without and then with a flood of telemetry beside them; the time from sending one to
  finding it in its file, p50 and p99. The sinks collect for `--max-wait`; with 0s the line alone is left.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from _rig import Flood, Rig, free_port

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import Generator

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
MIB = 1 << 20
SIZES = {"memory": 64 * MIB, "disk": 256 * MIB}


def spool(kind: str, folder: Path) -> dict[str, Any]:
    given: dict[str, Any] = {"type": kind, "max_size": SIZES[kind]}
    return given | ({"path": str(folder / "spool")} if kind == "disk" else {})


def prune(folder: Path) -> None:
    for old in sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime)[:-2]:
        old.unlink()


class Watch:
    """Counts what comes to the file while it cuts the files short."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self.folder = folder

    def rate(self, seconds: float) -> float:
        before, began = self.rig.delivered("archive"), time.monotonic()
        while time.monotonic() - began < seconds:
            time.sleep(0.5)
            prune(self.folder)
        return (self.rig.delivered("archive") - before) / (time.monotonic() - began)

    def until_it_stands(self, limit: float) -> tuple[float, float]:
        """Return the rate, and for how long it lasted, until hardly anything was delivered for a second; or after ``limit``."""
        before, began = self.rig.delivered("archive"), time.monotonic()
        while True:
            delivered, now = self.rig.delivered("archive"), time.monotonic()
            rate = (delivered - before) / max(now - began, 1e-9)
            if now - began > limit or (self.rate(1.0) < rate / 10 and now > began + 1):
                return rate, now - began


def stalled(kind: str, on_full: str, seconds: float, rate: float, events: list[bytes]) -> str:
    folder = Path(tempfile.mkdtemp(prefix="isolation-"))
    port = free_port()
    rig = Rig(folder, {
        "sources": {"hose": {"type": "firehose", "stream": "event", "listen": f"127.0.0.1:{port}"}},
        "sinks": {
            "archive": {
                "type": "file", "path": f"{folder}/out/x.jsonl", "sync": "normal", "rotate": {"size": "64MiB"},
                "batch": {"max_wait": "100ms"},
            },
            "held": {"type": "stdout", "format": "json"},
        },
        "routes": {"all": {"from": "hose", "to": "archive"}, "slow": {"from": "hose", "to": "held", "on_full": on_full}},
        "spool": spool(kind, folder),
    })  # fmt: skip
    flood = Flood(port, events, rate)
    watch = Watch(rig, folder / "out")
    rig.drain()
    try:
        watch.rate(2.0)
        before = watch.rate(max(5.0, seconds / 4))
        rig.stall()  # what comes now fills the pipe, and then the sink takes nothing any more
        if on_full == "drop_oldest":
            found = watch.rate(seconds)
            dropped = rig.metric("pipeline_lane_records_total", sink="held", outcome="discarded")
            end = f"over {seconds:.0f} s; the stalled lane discarded {dropped:,.0f}"
        else:
            found, lasted = watch.until_it_stands(seconds)
            held = rig.metric("pipeline_spool_bytes")
            end = f"over {lasted:.0f} s, until the spool holds {held / MIB:.0f} MiB ({held / SIZES[kind]:.0%} of max_size)"
        return (
            f"{before:,.0f} events/s reach the file while it is read, then {found:,.0f} ({found / before:.2f}x) {end}"
        )
    finally:
        flood.close()
        rig.stop()
        shutil.rmtree(folder)


class Tail:
    """Reads a file that grows, and notes how old each record is when it comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ages: list[float] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self.path.exists():
            time.sleep(0.01)
        rest = b""
        with self.path.open("rb") as file:
            while not self._closed.is_set():
                rest += file.read()
                *lines, rest = rest.split(b"\n")
                now = time.monotonic()
                self.ages += [now - float(line.partition(b'"sent":')[2].partition(b",")[0]) for line in lines]
                time.sleep(0.002)

    def close(self) -> list[float]:
        self._closed.set()
        self._thread.join()
        return self.ages


def send_detections(port: int, seconds: float) -> None:
    """Send 50 detections per second, each with the time when it was sent."""
    context = ssl._create_unverified_context()
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port))) as sock:
        due = time.monotonic()
        end = due + seconds
        while due < end:
            due += 0.02
            time.sleep(max(0.0, due - time.monotonic()))
            sock.sendall(b'{"cat":"t","sent":%.6f,"detect":"%s"}\n' % (time.monotonic(), b"x" * 800))
        time.sleep(0.5)


def flooded(kind: str, seconds: float, events: list[bytes], rate: float | None, max_wait: str) -> tuple[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="isolation-"))
    ports = free_port(), free_port()
    wait = {"batch": {"max_wait": max_wait}, "sync": "normal"}
    rig = Rig(folder, {
        "sources": {
            "hose": {"type": "firehose", "stream": "event", "listen": f"127.0.0.1:{ports[0]}"},
            "alarms": {"type": "firehose", "stream": "detect", "listen": f"127.0.0.1:{ports[1]}"},
        },
        "sinks": {
            "archive": {"type": "file", "path": f"{folder}/out/x.jsonl", "rotate": {"size": "64MiB"}, **wait},
            "alerts": {"type": "file", "path": f"{folder}/alerts.jsonl", **wait},
        },
        "routes": {"all": {"from": "hose", "to": "archive"}, "urgent": {"from": "alarms", "to": "alerts"}},
        "spool": spool(kind, folder),
    })  # fmt: skip
    try:
        flood = None if rate == 0 else Flood(ports[0], events, rate)
        time.sleep(1)
        pruning = threading.Event()

        def prunes() -> None:
            while not pruning.wait(0.5):
                prune(folder / "out")

        thread = threading.Thread(target=prunes)
        thread.start()
        tail = Tail(folder / "alerts.jsonl")
        before, began = rig.delivered("archive"), time.monotonic()
        send_detections(ports[1], seconds)
        per_second = (rig.delivered("archive") - before) / (time.monotonic() - began)
        ages = tail.close()
        pruning.set()
        thread.join()
        if flood is not None:
            flood.close()
    finally:
        rig.stop()
        shutil.rmtree(folder)
    p99 = statistics.quantiles(ages, n=100)[98]
    p50 = statistics.median(ages)
    text = f"{per_second:,.0f} events/s beside {len(ages):,} detections: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms"
    return text, p99


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=5000.0, help="Events per second in the test with a stalled sink.")
    parser.add_argument("--spools", default="memory,disk")
    parser.add_argument("--max-wait", default="100ms")
    parser.add_argument("--parts", default="stalled,flood")
    options = parser.parse_args()
    generator = Generator(Fleet(OID, seed=7), "event", 7, 1_700_000_000_000, 1000.0)
    events = [record.raw + b"\n" for record in generator.take(20_000)]
    for kind in options.spools.split(","):
        if "stalled" in options.parts:
            for on_full in ("drop_oldest", "block"):
                print(f"{kind}, {options.rate:,.0f}/s sent, a sink stalled, {on_full}: ", end="", flush=True)
                print(stalled(kind, on_full, options.seconds, options.rate, events), flush=True)
        if "flood" in options.parts:
            calm = 0.0
            for rate in (0.0, options.rate, None):
                text, p99 = flooded(kind, options.seconds / 3, events, rate, options.max_wait)
                calm = calm or p99
                print(f"{kind}, flood: {text} ({p99 / calm:.1f}x)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
