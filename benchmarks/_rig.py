"""A pipeline as a process, and a source that never ends, for benchmarks that watch it from outside."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHUNK = 64 << 10


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Rig:
    """`lc-pipeline run` on a configuration. Its standard output is a pipe that nobody reads unless `drain` is called."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        admin = free_port()
        self._url = f"http://127.0.0.1:{admin}/"
        path = folder / "pipeline.json"
        config = {"admin": {"listen": f"127.0.0.1:{admin}"}, "dead_letter": {"path": str(folder / "dead")}, **config}
        path.write_text(json.dumps(config))
        self.log = folder / "log"
        self._stalled = threading.Event()
        command = [sys.executable, "-m", "pipeline.cli", "--log-format", "json", "run", str(path), "--no-summary"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self._url}readyz", timeout=5).close()
                return
            if self.process.poll() is not None:
                raise SystemExit(self.log.read_text())
            time.sleep(0.05)

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of a name that have these labels."""
        with urllib.request.urlopen(f"{self._url}metrics", timeout=30) as response:
            text = response.read().decode()
        total = 0.0
        for found, value in re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE):
            if all(f'{key}="{want}"' in found for key, want in labels.items()):
                total += float(value)
        return total

    def delivered(self, sink: str) -> float:
        return self.metric("pipeline_lane_records_total", sink=sink, outcome="delivered")

    @property
    def rss(self) -> int:
        """Bytes of memory that it has now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def drain(self) -> None:
        """Read its standard output until `stall`."""
        assert self.process.stdout is not None
        out = self.process.stdout

        def work() -> None:
            with contextlib.suppress(ValueError, OSError):
                while not self._stalled.is_set() and os.read(out.fileno(), 1 << 20):
                    pass

        threading.Thread(target=work, daemon=True).start()

    def stall(self) -> None:
        """Read its standard output no more."""
        self._stalled.set()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Flood:
    """Sends lines to a firehose over TLS as fast as it takes them, or so many per second, until it is closed.

    A process of its own: a thread would hold up the one that measures.
    """

    def __init__(self, port: int, lines: list[bytes], rate: float | None = None) -> None:
        self._process = multiprocessing.get_context("spawn").Process(
            target=_send, args=(port, lines, rate), daemon=True
        )
        self._process.start()

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def _send(port: int, lines: list[bytes], rate: float | None) -> None:
    context = ssl._create_unverified_context()
    blocks = (
        list(_blocks(lines)) if rate is None else [b"".join(lines[at : at + 10]) for at in range(0, len(lines), 10)]
    )
    with contextlib.suppress(OSError), context.wrap_socket(socket.create_connection(("127.0.0.1", port))) as sock:
        due = time.monotonic()
        for block in itertools.cycle(blocks):
            sock.sendall(block)
            if rate is not None:
                due += 10 / rate
                time.sleep(max(0.0, due - time.monotonic()))


def _blocks(lines: list[bytes]) -> Iterator[bytes]:
    block: list[bytes] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size > CHUNK:
            yield b"".join(block)
            block, size = [], 0
    yield b"".join(block)
