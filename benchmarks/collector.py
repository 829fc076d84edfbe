"""When Python's cycle collector should run: ``python -m benchmarks.collector [--rounds 5] [--jobs json-file] [--systems …]``.

The same job with the collector set in different ways, in turns: CPU time for an event and the most memory that was held. What is run
otherwise is `lc-pipeline` as it is; its own setting (`pipeline/cli/run.py`) is one of those compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.corpus import corpus, first
from benchmarks.flow import ours
from benchmarks.flow.job import JOBS, Command, Job, Place
from benchmarks.flow.measure import Bench, Run, measure

WAYS = {
    "700, Python's own": "gc.set_threshold(700, 10, 10)",
    "10,000": "gc.set_threshold(10_000, 20, 20)",
    "10,000, start frozen": "gc.set_threshold(10_000, 20, 20); threading.Timer(1, lambda: (gc.collect(), gc.freeze())).start()",
    "50,000": "gc.set_threshold(50_000, 20, 20)",
    "never": "gc.disable()",
}
"""New containers after which it starts -> how that is said."""
SET = """import gc, runpy, threading
{way}
gc.set_threshold = lambda *_: None
runpy.run_module("pipeline.cli", None, "__main__", True)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", default="json-file")
    parser.add_argument("--systems", default="lc-pipeline,lc-pipeline (full decode)")
    given = parser.parse_args()
    whole = first(corpus(given.events), given.events)
    systems = [system for system in ours.systems() if system.name in given.systems.split(",")]
    cases = [(JOBS[job], system, way) for job in given.jobs.split(",") for system in systems for way in WAYS]
    runs: dict[int, list[Run]] = {number: [] for number in range(len(cases))}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collector-")))
        bench = Bench.ready(folder)
        for _ in range(given.rounds):
            for number, (job, system, way) in enumerate(cases):
                seen = dataclasses.replace(system, command=_set(system.command, WAYS[way]))
                runs[number].append(measure(bench, job, "blocks", seen, whole))
                print(f"{job.name} {system.name} {way}: {runs[number][-1].cost:.2f}", file=sys.stderr)
    print(
        "| Job | System | Collector starts after | CPU s per million (least–most) | Peak MiB |\n|---|---|---|---|---|"
    )
    for number, (job, system, way) in enumerate(cases):
        costs = [run.cost for run in runs[number]]
        peak = statistics.median(run.peak_mib for run in runs[number])
        spread = f"{statistics.median(costs):.2f} ({min(costs):.2f}–{max(costs):.2f})"
        print(f"| {job.name} | {system.name} | {way} | {spread} | {peak:.0f} |")


def _set(command: Callable[[Job, Place], Command], way: str) -> Callable[[Job, Place], Command]:
    def made(job: Job, place: Place) -> Command:
        (interpreter, _, _, *arguments), environment = command(job, place)
        return [interpreter, "-c", SET.format(way=way), *arguments], environment

    return made


if __name__ == "__main__":
    main()
