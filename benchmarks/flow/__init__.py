"""From a TLS port or a stream to a file or Kafka: `lc-pipeline run` beside others that do the same, in one run.

    python -m benchmarks.flow [--quick] [--events 200000] [--rounds 3] [--jobs json-file,…] [--systems lc-pipeline,rsyslog,…]

Systems that do the same job run in turns, on the same events; what comes out must be exactly what should, only the official SDK may
lose. The figure is the CPU time of all processes of a system for a million events, median of the rounds, with the least and the
most; wall rates share the machine with the sender and, where there is one, with the broker.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trustme

from benchmarks import wire
from benchmarks.broker import broker
from benchmarks.corpus import corpus, first
from benchmarks.flow import ours, peers
from benchmarks.flow.job import FRAMINGS, JOBS, Job, System
from benchmarks.flow.measure import Bench, Run, ceiling, measure
from benchmarks.subject import Broken


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.flow", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=3)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--framings", default=",".join(FRAMINGS))
    parser.add_argument("--systems", default="", help="only those whose name begins like one of these")
    parser.add_argument("--no-peers", action="store_true", help="fetch and start no other program")
    parser.add_argument("--quick", action="store_true", help="few events, one round, no peers: does it run?")
    found = parser.parse_args(arguments)
    if found.quick:
        found.events, found.rounds, found.no_peers, found.framings = 8000, 1, True, "blocks"
    return found


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Measure all; returns what `report.flow` makes a table of."""
    jobs = [JOBS[name] for name in given.jobs.split(",")]
    systems = ours.systems()
    if not given.no_peers:
        peers.fetch()
        systems += peers.systems()
    systems = [system for system in systems if system.name.startswith(tuple(given.systems.split(",")))]
    path = corpus(given.events)
    parts = {part: first(path, given.events // part) for part in {system.part for system in systems} | {1}}
    groups: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flow-")))
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        certs = {"cert": folder / "cert.pem", "key": folder / "key.pem", "ca": folder / "ca.pem"}
        authority.cert_pem.write_to_path(certs["ca"])
        issued.cert_chain_pems[0].write_to_path(certs["cert"])
        issued.private_key_pem.write_to_path(certs["key"])
        kafka = stack.enter_context(broker()) if any(job.sink == "kafka" for job in jobs) else ""
        bench = Bench(wire.build(folder), **certs, connections=given.connections, bootstrap=kafka)
        framings = given.framings.split(",")
        ceilings = {framing: ceiling(bench, framing, parts[1]) for framing in framings}
        for job in jobs:
            # How the stream service frames is its own affair.
            for framing in framings if job.source == "tls" else framings[:1]:
                able = [system for system in systems if job.name in system.jobs and framing in system.framings]
                groups.append(_group(bench, job, framing, able, parts, given.rounds))
    whole = parts[1]
    return {
        "events": whole.records,
        "mean_bytes": whole.mean,
        "kept": whole.kept.records,
        "kept_bytes": whole.kept.bytes / whole.size,
        "beyond_ascii": whole.beyond_ascii / whole.records,
        "rounds": given.rounds,
        "connections": given.connections,
        "ceilings": {framing: asdict(found) for framing, found in ceilings.items()},
        "groups": groups,
    }


def _group(
    bench: Bench, job: Job, framing: str, systems: list[System], parts: dict[int, Any], rounds: int
) -> dict[str, Any]:
    """Systems that do one job, in turns."""
    runs: dict[str, list[Run]] = {system.name: [] for system in systems}
    failures: dict[str, str] = {}
    for number in range(rounds):
        for system in systems:
            if system.name in failures:
                continue
            try:
                found = measure(bench, job, framing, system, parts[system.part])
            except Broken as error:
                failures[system.name] = str(error)
                print(f"{job.name} {framing} {system.name} FAILED: {error}", file=sys.stderr)
                continue
            runs[system.name].append(found)
            print(
                f"{job.name} {framing} round {number + 1} {system.name}: {found.cost:.2f} CPU s per million,"
                f" {found.rate:,.0f}/s",
                file=sys.stderr,
            )
    return {
        "job": job.name,
        "title": job.title,
        "framing": FRAMINGS[framing] if job.source == "tls" else "16 KiB TLS records",
        "systems": [
            {
                "name": system.name,
                "version": system.version,
                "runs": [asdict(run) | {"cost": run.cost, "rate": run.rate} for run in runs[system.name]],
                "failure": failures.get(system.name, ""),
            }
            for system in systems
        ],
    }
