"""Where the time of one job goes: ``python -m benchmarks.profile [json-file] [--systems lc-pipeline,…] [--top 25]``.

Runs `lc-pipeline` under cProfile while it does the job and prints what each function of the event loop's thread costs for an event,
itself and with what it calls: the thread's CPU time with many events less that with few, so that the start is not in it. The profiler
makes many small calls look dearer than they are: compare lines with each other, and not with the table of `benchmarks.flow`.
"""

from __future__ import annotations

import argparse
import dataclasses
import pstats
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.broker import NoKafka, broker
from benchmarks.corpus import corpus, first
from benchmarks.flow import ours
from benchmarks.flow.job import JOBS, Command, Job, Place
from benchmarks.flow.measure import Bench, measure

PROFILED = Path(__file__).parent / "flow" / "profiled.py"
Costs = dict[str, tuple[int, float, float]]
"""Function -> calls, seconds in itself, seconds with what it calls."""
Row = tuple[float, float, int, str]
"""µs for an event in the function itself and with what it calls, calls, its name."""


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.profile", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("jobs", nargs="*", default=["json-file"], help=", ".join(JOBS))
    parser.add_argument("--systems", default="lc-pipeline", help="which ways of running it, as in the table")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--framing", default="blocks", choices=["blocks", "single"])
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--quick", action="store_true", help="few events: does it run?")
    found = parser.parse_args(arguments)
    if found.quick:
        found.events = 8000
    return found


def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Profile each job; returns what `report.profile` makes text of."""
    path = corpus(given.events)
    whole = first(path, given.events)
    jobs = [JOBS[name] for name in given.jobs]
    systems = [system for system in ours.systems() if system.name in given.systems.split(",")]
    found = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="profile-")))
        try:
            kafka = stack.enter_context(broker()) if any(job.sink == "kafka" for job in jobs) else ""
        except NoKafka as error:
            raise SystemExit(f"No Kafka: {error}") from None
        bench = Bench.ready(folder, bootstrap=kafka)
        for job, system in [(job, system) for job in jobs for system in systems if job.name in system.jobs]:
            costs: dict[int, Costs] = {}
            for events in (given.events // 10, given.events):
                stats = folder / f"{events}.stats"
                seen = dataclasses.replace(system, command=_profiled(system.command, stats))
                profiled = measure(bench, job, given.framing, seen, first(path, events)).cost
                costs[events] = _read(stats)
            plain = measure(bench, job, given.framing, system, whole).cost
            rows = _rows(*costs.values(), events=given.events - given.events // 10)
            loop = sum(own for own, *_ in rows)
            figures = {"cost": plain, "profiled": profiled, "loop": loop, "rows": rows[: given.top]}
            found.append({"job": job.name, "system": system.name, **figures})
    return found


def _profiled(command: Callable[[Job, Place], Command], stats: Path) -> Callable[[Job, Place], Command]:
    def made(job: Job, place: Place) -> Command:
        (interpreter, _, module, *arguments), environment = command(job, place)
        return [interpreter, str(PROFILED), str(stats), module, *arguments], environment

    return made


def _read(path: Path) -> Costs:
    found: Costs = {}
    for (file, line, name), (_, calls, own, whole, _) in pstats.Stats(str(path)).stats.items():  # type: ignore[attr-defined]  # typeshed
        place = re.sub(r".*/(site-packages|python3\.\d+|pipeline)/", "", file)
        key = re.sub(r" at 0x\w+", "", name) if file == "~" else f"{place}:{line} {name}"
        before = found.get(key, (0, 0.0, 0.0))
        found[key] = (before[0] + calls, before[1] + own, before[2] + whole)
    return found


def _rows(few: Costs, many: Costs, events: int) -> list[Row]:
    """What each function cost for an event that only the many had, dearest first."""
    found: list[Row] = []
    for name, (calls, own, whole) in many.items():
        calls_before, own_before, whole_before = few.get(name, (0, 0.0, 0.0))
        found.append(
            ((own - own_before) / events * 1e6, (whole - whole_before) / events * 1e6, calls - calls_before, name)
        )
    return sorted(found, reverse=True)


if __name__ == "__main__":
    print(report.profile(run(options(sys.argv[1:]))))
