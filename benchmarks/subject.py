"""A system under test: its processes, what they cost and what they hold."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

CPU_CLOCK = 2
"""Which clock of a process, in the number by which Linux names it (`clock_getcpuclockid`)."""
RESTS, PAUSE = 0.03, 0.3
"""It rests when it used less than this share of a core for so many seconds."""


class Broken(Exception):  # noqa: N818 - states what it is
    """The system did not do its job; the text says what was seen."""


class Subject:
    """Its first process and all that come from it."""

    def __init__(self, arguments: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                arguments, stdout=log, stderr=log, cwd=folder, env={**os.environ, **environment}
            )

    def wait(self, ready: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        """Until it is ready and rests: what a process does to start is not the work."""
        end = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None:
                raise Broken(f"it ended:\n{self.said()}")
            if time.monotonic() > end:
                raise Broken(f"not within {seconds:.0f} s: {what}\n{self.said()}")
            time.sleep(0.02)
        seen = 0.0
        while self.cpu - seen > RESTS * PAUSE:
            seen = self.cpu
            time.sleep(PAUSE)

    def listening(self, port: int) -> Callable[[], bool]:
        wanted = f":{port:04X} 00000000:0000 0A"
        return lambda: wanted in Path("/proc/net/tcp").read_text()

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    @property
    def processes(self) -> list[int]:
        """Process ids, the first one's and its descendants'."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue  # it has just ended
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self.process.pid]
        for process in found:
            found.extend(children.get(process, ()))
        return found

    @property
    def cpu(self) -> float:
        """User and system seconds of all its processes and threads, to the nanosecond where /proc counts in ticks."""
        return sum(map(_cpu, self.processes))

    def memory_mib(self, what: str = "VmHWM") -> float:
        """The most that its processes ever held (`VmHWM`), or what they hold (`VmRSS`)."""
        kib = 0
        for process in self.processes:
            try:
                status = Path(f"/proc/{process}/status").read_text()
            except OSError:
                continue  # it has just ended
            kib += int(status.partition(f"{what}:")[2].split()[0]) if what in status else 0
        return kib / 1024

    def stop(self) -> None:
        """Ask it to end; one that does not is killed."""
        everybody = self.processes
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            for process in everybody:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self.process.wait()


def _cpu(process: int) -> float:
    try:
        return time.clock_gettime(~process << 3 | CPU_CLOCK)
    except OSError:
        return 0.0  # it has just ended
