"""How long a command takes until it says something: ``python -m benchmarks.start [--times 9]``.

* `lc-pipeline --help` until it has ended
* `lc-pipeline tail` until the first byte of the first record: against a local LimaCharlie over TLS, whose records wait. In it are the
  start of Python, all imports, two handshakes, the token and the first records

Medians; beside them an interpreter that does nothing, and one that only loads aiohttp, which nobody who speaks to LimaCharlie with it
gets below.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import report

HELP, TAIL = 0.150, 0.500
"""Seconds that we want them to take at most."""
DEADLINE = 30.0
"""Seconds until the emulator must be up."""
COMMAND = [sys.executable, "-m", "pipeline.cli"]


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.start", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--times", type=int, default=9, help="that each is started")
    parser.add_argument("--quick", action="store_true", help="twice: does it run?")
    found = parser.parse_args(arguments)
    if found.quick:
        found.times = 2
    return found


def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure in turns; returns what `report.start` makes a table of."""
    with tempfile.TemporaryDirectory(prefix="start-") as folder:
        ready, nowhere = Path(folder) / "ready.json", {"HOME": folder, "PATH": os.environ["PATH"]}
        emulate = [*COMMAND, "emulate", "--tls", "--listen", "127.0.0.1:0", "--rate", "0", "--ready-file", str(ready)]
        emulator = subprocess.Popen(emulate, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            world = _when_up(emulator, ready)
            account = {
                "LC_URL": world["url"],
                "LC_OID": world["oid"],
                "LC_API_KEY": world["api_key"],
                "SSL_CERT_FILE": world["ca"],
            }
            cases: list[tuple[str, list[str], dict[str, str], float | None]] = [
                ("python -c pass", [sys.executable, "-c", "pass"], nowhere, None),
                ("python -c 'import aiohttp'", [sys.executable, "-c", "import aiohttp"], nowhere, None),
                ("lc-pipeline --help", [*COMMAND, "--help"], nowhere, HELP),
                ("lc-pipeline tail, its first byte", [*COMMAND, "tail"], {**nowhere, **account}, TAIL),
            ]
            found: dict[str, list[float]] = {what: [] for what, *_ in cases}
            for turn in range(given.times + 1):
                for what, command, env, _ in cases:
                    taken = _timed(command, env, until_end=what != cases[-1][0])
                    if turn:  # the first one warms the machine
                        found[what].append(taken)
        finally:
            emulator.terminate()
            emulator.wait(DEADLINE)
    return [{"what": what, "seconds": found[what], "wanted": wanted} for what, _, _, wanted in cases]


def _when_up(emulator: subprocess.Popen[bytes], ready: Path) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE
    while not ready.exists():
        if emulator.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the emulator did not start")
        time.sleep(0.05)
    found: dict[str, Any] = json.loads(ready.read_text())
    return found


def _timed(command: list[str], env: dict[str, str], *, until_end: bool) -> float:
    began = time.perf_counter()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        if until_end:
            process.communicate()
        elif not process.stdout.read(1):
            raise RuntimeError(f"{' '.join(command[2:])} ended without a word")
        taken = time.perf_counter() - began
        process.terminate()
    return taken


def main() -> int:
    results = run(options(sys.argv[1:]))
    print(report.start(results))
    return (
        0
        if all(case["wanted"] is None or statistics.median(case["seconds"]) <= case["wanted"] for case in results)
        else 1
    )


if __name__ == "__main__":
    sys.exit(main())
