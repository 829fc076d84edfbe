"""Minutes at half of what one core can: ``python -m benchmarks.soak [--quick] [--minutes 3] [--sync full|normal]``.

TLS → decode + field filter → file. First a short run at full speed says what an event costs; then events come at half the rate that
one core could take. Each second: throughput, memory, CPU and the time from the receipt of a record until the file had it (`stored`)
and until it was on the disk (`synced`). Draws `benchmarks/results/soak.png` where matplotlib is installed (the extra `bench`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.corpus import corpus, first
from benchmarks.flow import ours
from benchmarks.flow.job import JOBS, Place
from benchmarks.flow.measure import Bench, measure
from benchmarks.report import RESULTS
from benchmarks.subject import Subject
from benchmarks.wire import free_port

JOB = JOBS["json-file"]
LOAD = 0.5
POINTS = """[pipeline.sinks]
timed_file = benchmarks.soak.timed:TimedFile
"""


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--events", type=int, default=100_000, help="of the corpus, which is sent over and over")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=3)
    parser.add_argument("--sync", default="full", choices=["full", "normal"])
    parser.add_argument("--quick", action="store_true", help="a few seconds: does it run?")
    found = parser.parse_args(arguments)
    if found.quick:
        found.events, found.minutes = 8000, 0.1
    return found


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Soak; returns what `report.soak` makes a table of."""
    whole = first(corpus(given.events), given.events)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        bench = Bench.ready(folder, given.connections)
        system = next(system for system in ours.systems() if system.name == "lc-pipeline")
        cost = statistics.median(measure(bench, JOB, "blocks", system, whole).cost for _ in range(3))
        rate = LOAD * 1e6 / cost
        print(f"An event costs {cost:.2f} µs; {rate:,.0f} events/s are half of a core.", file=sys.stderr)
        (folder / "timed-0.dist-info").mkdir()
        (folder / "timed-0.dist-info" / "entry_points.txt").write_text(POINTS)
        (folder / "timed-0.dist-info" / "METADATA").write_text("Name: timed\nVersion: 0\n")
        admin = free_port()
        place = Place(folder, free_port(), bench.cert, bench.key, bench.ca)
        sink = {"type": "timed_file", "times": str(folder / "times"), "sync": given.sync}
        # Files are made to be written in large blocks and wait up to 5 s by default; who wants records soon says so.
        sink["batch"] = {**ours.BATCH, "max_wait": "5ms"}
        command = ours.run(lambda _: {"admin": {"listen": f"127.0.0.1:{admin}"}}, sink)
        arguments, environment = command(JOB, place)
        environment = {"PYTHONPATH": f"{environment['PYTHONPATH']}:{folder}"}
        subject = Subject(arguments, folder, environment)
        stack.callback(subject.stop)
        subject.wait(subject.listening(place.port), "it listens")
        seconds = given.minutes * 60
        numbers = [place.port, whole.path, whole.size, given.connections, "blocks", rate, seconds]
        sender = subprocess.Popen(
            [str(bench.wire), "send", *map(str, numbers)], stdout=subprocess.PIPE, text=True, cwd=folder
        )
        samples = _watch(subject, sender, seconds)
        told = json.loads(sender.communicate()[0])
        counts = _counts(admin, told["lines"])
        subject.stop()
        times = [json.loads(line) for line in (folder / "times").read_text().splitlines()]
    return _figures(given, rate, samples, counts, times, told)


def _watch(subject: Subject, sender: subprocess.Popen[str], seconds: float) -> list[dict[str, float]]:
    """CPU and memory, once a second while events come."""
    samples: list[dict[str, float]] = []
    began, cpu = time.monotonic(), subject.cpu
    before = began
    while sender.poll() is None:
        time.sleep(1)
        now, used = time.monotonic(), subject.cpu
        if now - began > seconds + 60:
            sender.kill()
            raise SystemExit(f"The sender does not come to its end.\n{subject.said()}")
        rss = subject.memory_mib("VmRSS")
        samples.append({"at": time.time(), "cpu": (used - cpu) / (now - before), "rss_mib": rss})
        cpu, before = used, now
    return samples[:-1] or samples


def _counts(admin: int, sent: int) -> dict[str, float]:
    """What its metrics say once it has everything. Ends the program when that is not what was sent."""
    end = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as response:
            families = text_string_to_metric_families(response.read().decode())
        found: dict[str, float] = {}
        for family in families:
            for sample in family.samples:
                name = f"{sample.name} {sample.labels.get('outcome', '')}".strip()
                found[name] = found.get(name, 0) + sample.value
        received = found.get("pipeline_source_received_records_total", 0)
        outcomes = {kind: found.get(f"pipeline_lane_records_total {kind}", 0) for kind in ("delivered", "filtered")}
        if received == sent == sum(outcomes.values()):
            return {"sent": sent, "received": received, **outcomes}
        if time.monotonic() > end:
            raise SystemExit(f"{sent} were sent, {received} received, {outcomes}.")
        time.sleep(0.2)


def percentile(seen: list[list[float]], share: float) -> float:
    """Of values with their counts."""
    total = sum(count for _, count in seen)
    passed = 0.0
    for value, count in sorted(map(tuple, seen)):
        passed += count
        if passed >= total * share:
            return value
    return 0.0


def _figures(
    given: argparse.Namespace,
    rate: float,
    samples: list[dict[str, float]],
    counts: dict[str, float],
    times: list[dict[str, Any]],
    told: dict[str, float],
) -> dict[str, Any]:
    series = [
        {
            "at": line["at"],
            "records": sum(count for _, count in line["written"]),
            **{
                f"{kind} p{round(share * 100)}": percentile(line[kind], share) * 1000
                for kind in ("written", "synced")
                for share in (0.5, 0.99)
            },
        }
        for line in times
        if line["written"]
    ]
    written = [pair for line in times for pair in line["written"]]
    synced = [pair for line in times for pair in line["synced"]]
    rss = [sample["rss_mib"] for sample in samples]
    warm = rss[len(rss) // 4 :] or rss
    figures = {
        "sent, received, delivered + filtered": f"{counts['sent']:,.0f}, {counts['received']:,.0f},"
        f" {counts['delivered'] + counts['filtered']:,.0f}",
        "rate reached": f"{counts['sent'] / told['wall']:,.0f} events/s",
        "CPU of one core": f"{statistics.mean(sample['cpu'] for sample in samples):.0%}",
        "stored after, ms: p50, p99, most": _three(written),
        f"on the disk after (sync: {given.sync}), ms: p50, p99, most": _three(synced),
        "memory, MiB: after a quarter, at the end, most": f"{warm[0]:.0f}, {warm[-1]:.0f}, {max(rss):.0f}",
    }
    found = {
        "minutes": given.minutes,
        "rate": rate,
        "figures": figures,
        "rss_mib": max(rss),
        "p99_ms": percentile(written, 0.99) * 1000,
        "samples": samples,
        "series": series,
    }
    draw(found, RESULTS / "soak.png")
    return found


def _three(seen: list[list[float]]) -> str:
    most = max((value for value, _ in seen), default=0.0)
    return ", ".join(f"{value * 1000:.1f}" for value in (percentile(seen, 0.5), percentile(seen, 0.99), most))


def draw(found: dict[str, Any], path: Path) -> None:
    """Throughput, memory and latency over time."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("No picture: pip install 'lc-pipeline[bench]' brings matplotlib.", file=sys.stderr)
        return
    mpl.use("agg")
    from matplotlib import pyplot as plt

    series, samples = found["series"], found["samples"]
    start = samples[0]["at"]
    figure, (speed, memory, latency) = plt.subplots(3, 1, sharex=True, figsize=(9, 8), layout="constrained")
    at = [point["at"] - start for point in series]
    speed.plot(at, [point["records"] for point in series], label="records stored")
    speed.set_ylabel("records/s")
    load = speed.twinx()
    load.plot([s["at"] - start for s in samples], [s["cpu"] * 100 for s in samples], color="tab:orange")
    load.set_ylabel("CPU, % of one core", color="tab:orange")
    load.set_ylim(0, 110)
    memory.plot([s["at"] - start for s in samples], [s["rss_mib"] for s in samples], color="tab:green")
    memory.set_ylabel("resident, MiB")
    memory.set_ylim(0)
    for name, label in (("written p50", "stored, p50"), ("written p99", "stored, p99"), ("synced p99", "on disk, p99")):
        latency.plot(at, [point[name] for point in series], label=label)
    latency.set_ylabel("ms after receipt")
    latency.set_yscale("log")
    latency.set_xlabel("seconds")
    latency.legend()
    speed.set_ylim(0)
    speed.set_title(f"{found['rate']:,.0f} events/s sent: half of what one core does")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
