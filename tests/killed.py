"""Kills a pipeline under load for a while and says whether back-fill closed the gap.

    python tests/killed.py [--down 30] [--rate 200] [--again]

Three spouts (event, detect, audit) and a firehose write into files; the emulator generates ``rate`` records a second for each stream.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

E2E = Path(__file__).parent / "e2e"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"e2e_{name}", E2E / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--down", type=float, default=30.0, help="seconds between kill -9 and the next start")
    parser.add_argument("--again", action="store_true", help="kill it once more while the gaps are being filled")
    parser.add_argument("--rate", type=int, default=200, help="records a second of each stream")
    given = parser.parse_args()
    real, scenario = load("conftest"), load("test_backfill")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cloud = real.Emulator(folder / "emulator", "--rate", str(given.rate), "--keepalive", "1")
        started = []

        def start(config: dict[str, object]) -> object:
            started.append(real.Pipeline(folder / f"pipeline-{len(started)}", config))
            return started[-1]

        began = time.monotonic()
        try:
            settings = scenario.config(cloud, folder / "data", real.free_port())
            found = scenario.killed_and_filled(
                cloud, start, settings, folder / "data", real.until, real.LC_PIPELINE,
                before=given.rate * 5, down=given.down, again=given.again,
            )  # fmt: skip
        finally:
            for process in started:
                process.process.kill()
            cloud.stop()
        print(
            f"kill -9, {given.down:g} s down, {given.rate} records/s a stream; {time.monotonic() - began:.0f} s in all"
        )
        print(f"{'gap':<12}{'reason':<12}{'state':<8}{'seconds':>8}{'fetched':>9}{'known':>8}{'added':>8}")
        for gap in found:
            print(
                f"{gap['source']:<12}{gap['reason']:<12}{gap['state']:<8}{gap['seconds']:>8.1f}"
                f"{gap['fetched']:>9}{gap['known']:>8}{gap['added']:>8}  {gap['text']}".rstrip()
            )
        print(f"\n{'source':<12}{'generated since the first receipt':>34}{'twice':>7}{'missing':>9}{'invented':>10}")
        wrong = 0
        for source, counts in scenario.compare(cloud, folder / "data").items():
            print(f"{source:<12}{counts[0]:>34,}{counts[1]:>7}{counts[2]:>9}{counts[3]:>10}")
            wrong += sum(counts[1:])
        print("Each once." if not wrong else "NOT each once.")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
