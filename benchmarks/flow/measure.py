"""One system doing one job once."""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import trustme

from benchmarks import wire
from benchmarks.broker import Topic
from benchmarks.corpus import Content, Corpus
from benchmarks.flow.job import Job, Place, System
from benchmarks.subject import Broken, Subject
from benchmarks.wire import free_port

STUCK = 30.0
"""Seconds without any progress after which a run counts as failed."""
LOST = 3.0
"""Seconds without progress after which what is missing counts as lost, for a system that may lose."""


@dataclass(frozen=True)
class Run:
    sent: int
    received: int
    cpu: float
    """Seconds, user and system, of all processes of the system, from before the first byte to after the last record."""
    wall: float
    peak_mib: float
    far_cpu: float
    """CPU seconds of the sender or the stream service."""
    far_wall: float

    @property
    def cost(self) -> float:
        """CPU seconds for a million events: microseconds for one."""
        return self.cpu / self.sent * 1e6

    @property
    def rate(self) -> float:
        return self.sent / self.wall


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    wire: Path
    cert: Path
    key: Path
    ca: Path
    connections: int
    bootstrap: str = ""

    @classmethod
    def ready(cls, folder: Path, connections: int = 3, bootstrap: str = "") -> Self:
        """With a sender and certificates made in ``folder``."""
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        cert, key, ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
        authority.cert_pem.write_to_path(ca)
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        return cls(wire.build(folder), cert, key, ca, connections, bootstrap)


def measure(bench: Bench, job: Job, framing: str, system: System, given: Corpus) -> Run:
    """Raises `Broken` when the system did not do its job exactly."""
    expected = given.kept if job.decide else given.everything
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flow-")))
        topic = stack.enter_context(Topic(bench.bootstrap)) if job.sink == "kafka" else None
        place = Place(
            folder, free_port(), bench.cert, bench.key, bench.ca, bench.bootstrap, topic.name if topic else ""
        )
        arguments, environment = system.command(job, place)
        far: subprocess.Popen[str] | None = None
        if job.source == "spout":
            far = _serve(bench, place, given, framing)
            stack.callback(_end, far)
        subject = Subject(arguments, folder, environment)
        stack.callback(subject.stop)
        if far is not None:
            assert far.stdout is not None
            subject.wait(lambda: "connected" in far.stdout.readline(), "it asks for the stream")
        else:
            subject.wait(subject.listening(place.port), "it listens")
        _touch(folder, given.size)
        before, began = subject.cpu, time.monotonic()
        if far is not None:
            assert far.stdin is not None
            far.stdin.write("go\n")
            far.stdin.flush()
        else:
            far = _send(bench, place, given, framing)
            stack.callback(_end, far)
        if topic is not None:
            seen = topic.count
            wanted = expected.records
        else:
            seen = place.written
            wanted = expected.bytes
        ended = _ended(subject, seen, wanted, system)
        cpu, peak = subject.cpu - before, subject.memory_mib()
        assert far.stdout is not None
        told = json.loads(far.stdout.readline())
        subject.stop()
        found = topic.content(expected.records) if topic else _content(place)
    exact = found.records == expected.records if system.recodes else found == expected
    if not exact and not system.loses:
        raise Broken(f"{found} instead of {expected}\n{subject.said() if subject.log.exists() else ''}")
    # What the filter drops and what is lost look alike from outside; a loss is taken to hit all events alike.
    received = round(given.records * found.records / expected.records)
    return Run(given.records, received, cpu, ended - began, peak, told["cpu"], told["wall"])


def _touch(folder: Path, size: int) -> None:
    """Have the kernel use so much page cache and let it go: a virtual machine may have given memory that is not used back to its
    host, and who needs it first pays for all that come after."""
    path, piece = folder / "touched", bytes(1 << 20)
    with path.open("wb") as file:
        for _ in range(0, size, len(piece)):
            file.write(piece)
    path.unlink()


def ceiling(bench: Bench, framing: str, given: Corpus) -> Run:
    """What the sender reaches when the other side, native too, only decrypts and discards."""
    with tempfile.TemporaryDirectory(prefix="flow-") as name, ExitStack() as stack:
        place = Place(Path(name), free_port(), bench.cert, bench.key, bench.ca)
        subject = Subject([str(bench.wire), "drain", str(place.port), str(bench.cert), str(bench.key)], Path(name), {})
        stack.callback(subject.stop)
        subject.wait(subject.listening(place.port), "it listens")
        before, began = subject.cpu, time.monotonic()
        told = json.loads(_send(bench, place, given, framing).communicate()[0])
        cpu, wall = subject.cpu - before, time.monotonic() - began
        return Run(given.records, given.records, cpu, wall, subject.memory_mib(), told["cpu"], told["wall"])


def _content(place: Place) -> Content:
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in place.outputs]
        return Content.of(line for file in files for line in file)


def _send(bench: Bench, place: Place, given: Corpus, framing: str) -> subprocess.Popen[str]:
    arguments = ["send", place.port, given.path, given.size, bench.connections, framing, 0, 0]
    return subprocess.Popen([str(bench.wire), *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def _serve(bench: Bench, place: Place, given: Corpus, framing: str) -> subprocess.Popen[str]:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": int(time.time()) + 3600}).encode()).decode().rstrip("=")
    arguments = ["serve", place.port, bench.cert, bench.key, given.path, given.size, f"e30.{claims}.e30", framing]
    command = [str(bench.wire), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def _ended(subject: Subject, seen: Callable[[], int], wanted: int, system: System) -> float:
    """When everything was there, or, where it may be lost, nothing moved any more."""
    last, moved = 0, time.monotonic()
    while True:
        now, count = time.monotonic(), seen()
        if count != last:
            last, moved = count, now
        if count >= wanted and not system.recodes:
            return now
        if (system.loses or system.recodes) and now - moved > LOST and count:
            return moved
        if subject.process.poll() is not None:
            raise Broken(f"it ended:\n{subject.said()}")
        if now - moved > STUCK:
            raise Broken(f"nothing moves any more at {count} of {wanted}\n{subject.said()}")
        time.sleep(0.02)
