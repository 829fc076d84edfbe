"""All benchmarks, one after the other, with one table at the end: ``python -m benchmarks [--quick] [--rounds 3] [--minutes 3]``.

`python -m benchmarks.flow`, `.micro`, `.soak`, `.memory`, `.start` and `.profile` run one of them, with more options. With
``--page`` the tables in docs/performance.md are made anew from this run.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

from benchmarks import flow, memory, micro, page, profile, report, soak, start

PROFILED = ["json-file", "raw-file", "raw-kafka", "--systems", "lc-pipeline,lc-pipeline (full decode)", "--top", "16"]
"""What is profiled, each with what takes the most."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--limit", type=float, default=20.0, help="minutes of the flow after which no other round begins"
    )
    parser.add_argument("--events", type=int, default=100_000, help="of the flow")
    parser.add_argument("--minutes", type=float, default=3.0, help="of the soak")
    parser.add_argument("--quick", action="store_true", help="few events, one round, no other programs: does it run?")
    parser.add_argument("--page", action="store_true", help="write the tables into docs/performance.md, too")
    given = parser.parse_args()
    quick = ["--quick"] if given.quick else []
    numbers = ["--rounds", str(given.rounds)]
    # Told to end, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    began = time.monotonic()
    flows = flow.run(flow.options([*quick, *numbers, "--limit", str(given.limit), "--events", str(given.events)]))
    profiled = [word for word in PROFILED if word != "raw-kafka" or "Kafka" not in flows["missing"]]
    found = {
        "flow": flows,
        "micro": micro.run(micro.options([*quick, *numbers])),
        "soak": soak.run(soak.options([*quick, "--minutes", str(given.minutes)])),
        "memory": memory.run(memory.options([*quick, "--seconds", "30"])),
        "start": start.run(start.options(quick)),
        "profile": profile.run(profile.options([*quick, *profiled])),
    }
    report.write("bench", {**found, "minutes": (time.monotonic() - began) / 60})
    if given.page:
        page.write(report.RESULTS / ("bench-quick.json" if quick else "bench.json"))
    sys.exit(any(system["failure"] for group in found["flow"]["groups"] for system in group["systems"]))


if __name__ == "__main__":
    main()
