"""How fast the emulator is at ``--rate 0``: events per CPU second of its process.

    python benchmarks/micro/emulator_speed.py [--events 100000]

`made` includes the generator (the first connection to a stream); `kept` is what a later connection costs, whose
records are in memory. The start of the process is measured apart and taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))


class Emulator:
    def __init__(self, folder: Path, events: int, *, tls: bool) -> None:
        ready = folder / "ready.json"
        ready.unlink(missing_ok=True)
        arguments = ["--listen", "127.0.0.1:0", "--rate", "0", "--events", str(events), "--ready-file", str(ready)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "emulate", *arguments, *(["--tls"] if tls else [])],
            stderr=subprocess.DEVNULL,
        )
        while not ready.exists():
            time.sleep(0.02)
        self.ready = json.loads(ready.read_text())
        self.context = ssl.create_default_context(cafile=self.ready["ca"]) if tls else None

    def post(self, path: str, form: dict[str, str], headers: dict[str, str] | None = None):
        request = urllib.request.Request(
            self.ready["url"] + path, urllib.parse.urlencode(form).encode(), headers or {}, method="POST"
        )
        return urllib.request.urlopen(request, timeout=60, context=self.context)

    def stop(self) -> float:
        """CPU seconds that the process used."""
        os.kill(self.process.pid, signal.SIGTERM)
        _, _, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = 0
        return usage.ru_utime + usage.ru_stime


def count_lines(read, wanted: int) -> None:
    seen = 0
    while seen < wanted:
        data = read(1 << 18)
        if not data:
            raise SystemExit(f"the emulator sent only {seen} of {wanted} records")
        seen += data.count(b"\n")


def spout(emulator: Emulator, events: int) -> None:
    oid, key = emulator.ready["oid"], emulator.ready["api_key"]
    with emulator.post(f"/stream/{oid}", {"type": "event", "api_key": key}) as response:
        count_lines(response.read1, events + 1)


def firehose(emulator: Emulator, events: int, context: ssl.SSLContext | None, name: str) -> None:
    ready = emulator.ready
    with emulator.post("/", {"oid": ready["oid"], "secret": ready["api_key"]}) as response:
        token = json.load(response)["jwt"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        form = {
            "name": name,
            "module": "syslog",
            "type": "event",
            "dest_host": f"127.0.0.1:{server.getsockname()[1]}",
            "is_tls": "true" if context else "false",
            "is_no_header": "true",
        }
        emulator.post(f"/v1/outputs/{ready['oid']}", form, {"Authorization": f"Bearer {token}"}).close()
        connection, _ = server.accept()
        if context:
            connection = context.wrap_socket(connection, server_side=True)
        with connection:
            count_lines(connection.recv, events)


def own_certificate(folder: Path) -> ssl.SSLContext:
    from pipeline.emulator.certificates import server_context

    return server_context(folder, "localhost")[0]


def cpu(folder: Path, way: str, events: int, connections: int) -> tuple[float, float]:
    """CPU seconds of the emulator, and seconds on the wall, for so many connections, one after the other."""
    emulator = Emulator(folder, events, tls=way == "spout https")
    context = own_certificate(folder) if way == "firehose tls" else None
    start = time.monotonic()
    for number in range(connections):
        if way.startswith("spout"):
            spout(emulator, events)
        else:
            firehose(emulator, events, context, f"bench-{number}")
    wall = time.monotonic() - start
    return emulator.stop(), wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    events = parser.parse_args().events
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{'way':14}{'made/s CPU':>14}{'kept/s CPU':>14}{'made/s wall':>14}")
        for way in ("spout http", "spout https", "firehose tcp", "firehose tls"):
            base, _ = cpu(folder, way, events, 0)
            one, wall = cpu(folder, way, events, 1)
            three, _ = cpu(folder, way, events, 3)
            kept = 2 * events / max(three - one, 1e-6)
            print(f"{way:14}{events / (one - base):14,.0f}{kept:14,.0f}{events / wall:14,.0f}", flush=True)


if __name__ == "__main__":
    main()
