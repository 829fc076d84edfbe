"""From a TLS port or a stream to a file or Kafka: `lc-pipeline run` beside others that do the same, in one run.

    python -m benchmarks.flow [--quick] [--events 100000] [--rounds 3] [--jobs json-file,…] [--systems lc-pipeline,rsyslog,…]

Systems that do the same job run in turns, on the same events; what comes out must be exactly what should, only the official SDK may
lose. The figure is the CPU time of all processes of a system for a million events, median of the rounds, with the least and the
most; wall rates share the machine with the sender and, where there is one, with the broker.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.broker import NoKafka, broker
from benchmarks.corpus import Corpus, corpus, first
from benchmarks.flow import ours, peers
from benchmarks.flow.job import FRAMINGS, JOBS, Job, System
from benchmarks.flow.measure import Bench, Run, ceiling, measure
from benchmarks.subject import Broken


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.flow", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60.0, help="minutes after which no other round begins")
    parser.add_argument("--connections", type=int, default=3)
    parser.add_argument("--jobs", default="", help=f"of {', '.join(JOBS)}; all, unless there is no Kafka")
    parser.add_argument("--framings", default=",".join(FRAMINGS))
    parser.add_argument("--systems", default="", help="only those whose name begins like one of these")
    parser.add_argument("--no-peers", action="store_true", help="fetch and start no other program")
    parser.add_argument("--quick", action="store_true", help="few events, one round, no peers: does it run?")
    found = parser.parse_args(arguments)
    if found.quick:
        found.events, found.rounds, found.no_peers, found.framings = 8000, 1, True, "blocks"
    return found


def run(given: argparse.Namespace, variants: Sequence[System] | None = None) -> dict[str, Any]:
    """Measure all, or other ways of ours than usual; returns what `report.flow` makes a table of."""
    jobs = [JOBS[name] for name in given.jobs.split(",")] if given.jobs else [*JOBS.values()]
    systems = [*(ours.systems() if variants is None else variants)]
    missing: dict[str, str] = {}
    if not given.no_peers:
        missing = peers.fetch()
        systems += peers.systems()
    systems = [system for system in systems if system.name.startswith(tuple(given.systems.split(",")))]
    path = corpus(given.events)
    parts = {part: first(path, given.events // part) for part in {system.part for system in systems} | {1}}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flow-")))
        try:
            kafka = stack.enter_context(broker()) if any(job.sink == "kafka" for job in jobs) else ""
        except NoKafka as error:
            if given.jobs:
                raise SystemExit(f"No Kafka: {error}") from None
            kafka, missing["Kafka"] = "", str(error)
            jobs = [job for job in jobs if job.sink != "kafka"]
        for name, why in missing.items():
            print(f"Without {name}: {why}.", file=sys.stderr)
        bench = Bench.ready(folder, given.connections, kafka)
        framings = given.framings.split(",")
        ceilings = {framing: ceiling(bench, framing, parts[1]) for framing in framings}
        groups = [
            Group(
                job, framing, [system for system in systems if job.name in system.jobs and framing in system.framings]
            )
            for job in jobs
            for framing in framings
        ]
        rounds = _rounds(bench, groups, parts, given)
    whole = parts[1]
    return {
        "events": whole.records,
        "mean_bytes": whole.mean,
        "kept": whole.kept.records,
        "kept_bytes": whole.kept.bytes / whole.size,
        "beyond_ascii": whole.beyond_ascii / whole.records,
        "rounds": rounds,
        "connections": given.connections,
        "missing": missing,
        "ceilings": {framing: asdict(found) for framing, found in ceilings.items()},
        "groups": [group.told() for group in groups],
    }


@dataclass
class Group:
    """Systems that do one job, in turns."""

    job: Job
    framing: str
    systems: list[System]
    runs: dict[str, list[Run]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def turn(self, bench: Bench, parts: dict[int, Corpus], number: int) -> None:
        """Let each of them do it once."""
        for system in self.systems:
            if system.name in self.failures:
                continue
            head = f"{self.job.name} {self.framing} round {number} {system.name}"
            try:
                found = measure(bench, self.job, self.framing, system, parts[system.part])
            except Broken as error:
                self.failures[system.name] = str(error)
                print(f"{head} FAILED: {error}", file=sys.stderr)
                continue
            self.runs.setdefault(system.name, []).append(found)
            print(f"{head}: {found.cost:.2f} CPU s per million, {found.rate:,.0f}/s", file=sys.stderr)

    def told(self) -> dict[str, Any]:
        return {
            "job": self.job.name,
            "title": self.job.title,
            "framing": FRAMINGS[self.framing],
            "systems": [
                {
                    "name": system.name,
                    "version": system.version,
                    "runs": [
                        asdict(run) | {"cost": run.cost, "rate": run.rate} for run in self.runs.get(system.name, ())
                    ],
                    "failure": self.failures.get(system.name, ""),
                }
                for system in self.systems
            ],
        }


def _rounds(bench: Bench, groups: list[Group], parts: dict[int, Corpus], given: argparse.Namespace) -> int:
    """Round after round, as long as there is time for one more; return how many there were."""
    began = time.monotonic()
    for number in range(1, given.rounds + 1):
        start = time.monotonic()
        for group in groups:
            group.turn(bench, parts, number)
        now = time.monotonic()
        print(f"Round {number} took {(now - start) / 60:.1f} minutes.", file=sys.stderr)
        if now - began + now - start > given.limit * 60:
            return number
    return given.rounds
