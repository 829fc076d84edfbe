"""Throughput from a TLS port to a file: `lc-pipeline run` beside the bare loop and the official SDK's Firehose, in one run.

    python benchmarks/flow.py [--events 200000] [--rounds 3] [--connections 3] [--systems ours,floor,sdk] [--jobs filter,raw]

Jobs: `filter` decodes each record and keeps the events of type NEW_PROCESS; `raw` keeps all. Framings: TLS records of 16 KiB, or
one for each event. The figure is the CPU time of the system under test for a million events: user + system, from listening to
the last record in the file. Wall rates share the machine with the sender. Rounds are interleaved and medians count, with the least
and the most behind them. What comes out must be exactly what should; only the SDK may lose, and what it lost is shown.

Results are also written to benchmarks/results/; the corpus is kept in .cache/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import _sender
import orjson
import trustme

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.generator import Generator

HERE = Path(__file__).parent
OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
FRAMINGS = {"blocks": "16 KiB TLS records", "single": "one TLS record per event"}
SDK_SHARE = 4
"""The SDK gets one event in this many: it is slow, and its rate does not change with time."""
CONFIG = """
sources:
  hose: {{type: firehose, stream: event, listen: "127.0.0.1:{port}", tls: {{cert: {cert}, key: {key}}}}}
sinks:
  # What the others promise too: the operating system writes when it likes.
  out: {{type: file, path: {output}, sync: normal, batch: {{max_events: 100000, max_bytes: 4MiB, max_wait: 50ms}}}}
routes:
  all: {{from: hose, filters: [{filters}], to: out}}
spool: {{type: memory}}
admin: {{listen: "127.0.0.1:0"}}
dead_letter: {{path: {folder}/dead-letter}}
"""
KEEP = "{type: match, op: is, path: routing/event_type, value: NEW_PROCESS}"


@dataclass(frozen=True)
class Content:
    """Lines, whatever their order."""

    records: int = 0
    bytes: int = 0
    checksum: int = 0

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> Content:
        records = size = checksum = 0
        for line in lines:
            records, size, checksum = records + 1, size + len(line), checksum + zlib.crc32(line)
        return cls(records, size, checksum)


@dataclass(frozen=True)
class Run:
    """One system doing one job once."""

    sent: int
    received: int
    cpu: float
    wall: float
    peak_mib: float
    sender_cpu: float
    sender_wall: float

    @property
    def cpu_per_million(self) -> float:
        return self.cpu / self.sent * 1e6

    @property
    def rate(self) -> float:
        return self.sent / self.wall


@dataclass(frozen=True)
class Corpus:
    path: Path
    size: int
    """Bytes that are sent of it."""
    records: int
    expected: dict[str, Content]
    """What each job must let through."""


def corpus(path: Path, events: int) -> None:
    """Write the events unless an earlier run did."""
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    generator = Generator(Fleet(OID, seed=7), "event", 7, 1_700_000_000_000, 1000.0)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        for start in range(0, events, 1000):
            file.writelines(record.raw + b"\n" for record in generator.take(min(1000, events - start)))
    unfinished.rename(path)


def part(path: Path, events: int) -> Corpus:
    """The first events of the corpus, and what is to come of them."""

    def lines() -> Iterator[bytes]:
        with path.open("rb") as file:
            for _, line in zip(range(events), file, strict=False):
                yield line

    everything = Content.of(lines())
    kept = Content.of(line for line in lines() if orjson.loads(line)["routing"]["event_type"] == "NEW_PROCESS")
    return Corpus(path, everything.bytes, everything.records, {"raw": everything, "filter": kept})


class Subject:
    """A system under test, listening."""

    def __init__(self, arguments: list[str], port: int, folder: Path) -> None:
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)
        wanted = f"0100007F:{port:04X} 00000000:0000 0A"
        while wanted not in Path("/proc/net/tcp").read_text():
            if self.process.poll() is not None:
                raise SystemExit(f"{arguments} ended:\n{self.log.read_text()}")
            time.sleep(0.02)
        # What a process still does to start is not the work.
        seen = -1.0
        while seen != self.cpu:
            seen = self.cpu
            time.sleep(0.3)

    @property
    def cpu(self) -> float:
        """User and system seconds of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def peak_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise SystemExit(f"It did not stop:\n{self.log.read_text()}") from None


def ours(port: int, output: Path, cert: Path, key: Path, job: str) -> list[str]:
    config = output.with_name("pipeline.yaml")
    filters = KEEP if job == "filter" else ""
    config.write_text(
        CONFIG.format(port=port, cert=cert, key=key, output=output, folder=output.parent, filters=filters)
    )
    return [sys.executable, "-m", "pipeline.cli", "--log-level", "warning", "run", str(config)]


def script(name: str) -> Callable[..., list[str]]:
    def arguments(port: int, output: Path, cert: Path, key: Path, job: str) -> list[str]:
        return [sys.executable, str(HERE / name), str(port), str(output), str(cert), str(key), job]

    return arguments


SYSTEMS = {"ours": ours, "floor": script("_floor.py"), "sdk": script("_sdk.py")}


def measure(
    system: str, job: str, framing: str, given: Corpus, connections: int, sender: list[str], certs: tuple[Path, Path]
) -> Run:
    with tempfile.TemporaryDirectory(prefix="flow-") as name:
        output = Path(name) / "out.jsonl"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        subject = Subject(SYSTEMS[system](port, output, *certs, job), port, Path(name))
        try:
            before = subject.cpu
            began = time.monotonic()
            arguments = [*sender, str(port), str(given.path), str(given.size), str(connections), framing]
            sending = subprocess.Popen(arguments, stdout=subprocess.PIPE)
            ended = _end(subject, sending, output, given.expected[job].bytes)
            cpu, peak = subject.cpu - before, subject.peak_mib
            told = json.loads(sending.communicate(timeout=10)[0])
        finally:
            subject.stop()
        with output.open("rb") as file:
            found = Content.of(file)
        if system != "sdk" and found != given.expected[job]:
            raise SystemExit(f"{system}, {job}: {found} instead of {given.expected[job]}\n{subject.log.read_text()}")
    # What the filter drops and what is lost look alike from outside; a loss is taken to hit all events alike.
    received = round(given.records * found.records / given.expected[job].records)
    return Run(given.records, received, cpu, ended - began, peak, told["cpu"], told["wall"])


def _end(subject: Subject, sending: subprocess.Popen[bytes], output: Path, size: int) -> float:
    """When everything was in the output, or nothing moved any more."""
    seen, moved = (0.0, 0), time.monotonic()
    while True:
        written = output.stat().st_size if output.exists() else 0
        now = time.monotonic()
        if (subject.cpu, written) != seen:
            seen, moved = (subject.cpu, written), now
        done = sending.poll() is not None
        if done and (written >= size or now - moved > 3):
            return moved
        if now - moved > 30:
            sending.kill()
            raise SystemExit(f"Nothing moves any more.\n{subject.log.read_text()}")
        time.sleep(0.01)


def machine() -> dict[str, str]:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "cpu": f"{os.cpu_count()} x {names[0] if names else platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "openssl": sys.modules["ssl"].OPENSSL_VERSION,
        **{name: metadata.version(name) for name in ("lc-pipeline", "orjson", "limacharlie")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=3)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--jobs", default="filter,raw")
    parser.add_argument("--framings", default=",".join(FRAMINGS))
    options = parser.parse_args()
    path = HERE.parent / ".cache" / f"corpus-{options.events}.jsonl"
    corpus(path, options.events)
    whole = part(path, options.events)
    given = {"ours": whole, "floor": whole, "sdk": part(path, options.events // SDK_SHARE)}
    about = machine()
    cases = [
        (job, framing, system)
        for job in options.jobs.split(",")
        for framing in options.framings.split(",")
        for system in options.systems.split(",")
        if (system, job) != ("sdk", "raw")
    ]
    runs: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="flow-") as folder:
        certs = (Path(folder) / "cert.pem", Path(folder) / "key.pem")
        issued = trustme.CA().issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(certs[0])
        issued.private_key_pem.write_to_path(certs[1])
        sender, language = _sender.command(Path(folder))
        about["sender"] = language
        print(", ".join(f"{name}: {value}" for name, value in about.items()))
        print(
            f"{whole.records} events of {whole.size / whole.records:.0f} bytes, {options.connections} connections; the filter keeps"
            f" {whole.expected['filter'].records}; medians of {options.rounds} rounds"
        )
        for number in range(options.rounds):
            for case in cases:
                job, framing, system = case
                runs[case].append(measure(system, job, framing, given[system], options.connections, sender, certs))
                print(f"round {number + 1} {' '.join(case)}: {runs[case][-1].cpu_per_million:.2f}", file=sys.stderr)
    print(table(cases, runs))
    report = {
        "machine": about,
        "options": vars(options),
        "mean_bytes": whole.size / whole.records,
        "cases": [
            {
                "job": job,
                "framing": framing,
                "system": system,
                "runs": [asdict(run) for run in runs[job, framing, system]],
            }
            for job, framing, system in cases
        ],
    }
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    target = results / f"flow-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    target.write_text(json.dumps(report, indent=1))
    print(f"\nWritten to {target.relative_to(HERE.parent)}.")


def table(cases: Iterable[tuple[str, str, str]], runs: dict[tuple[str, str, str], list[Run]]) -> str:
    lines = [
        "",
        "| Job | Framing | System | CPU s per million (least–most) | of the floor | Events/s | Peak MiB | Lost | Sender CPU s, idle |",
        "|---|---|---|---|---|---|---|---|---|",
    ]

    def median(case: tuple[str, str, str], value: Callable[[Run], float]) -> float:
        return statistics.median(value(run) for run in runs[case])

    for case in cases:
        job, framing, system = case
        costs = [run.cpu_per_million for run in runs[case]]
        cost = statistics.median(costs)
        floor = (job, framing, "floor")
        share = f"{median(floor, lambda run: run.cpu_per_million) / cost:.0%}" if floor in runs else ""
        lost = median(case, lambda run: 1 - run.received / run.sent)
        sender_cpu = median(case, lambda run: run.sender_cpu)
        idle = median(case, lambda run: 1 - run.sender_cpu / run.sender_wall)
        lines.append(
            f"| {job} | {FRAMINGS[framing]} | {system} | {cost:.2f} ({min(costs):.2f}–{max(costs):.2f}) | {share}"
            f" | {median(case, lambda run: run.rate):,.0f} | {median(case, lambda run: run.peak_mib):.0f}"
            f" | {f'{lost:.1%}' if lost else '0'} | {sender_cpu:.2f}, {idle:.0%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
