"""Real processes for end-to-end tests: the emulator and the pipeline, as a user starts them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

LC_PIPELINE = [sys.executable, "-m", "pipeline.cli"]
START = 40.0
"""Seconds in which a process has to start, or to do what it is asked for, on a machine with other work."""


@contextlib.contextmanager
def fetching(name: str) -> Iterator[Path]:
    """The folder of the project where what tests fetch is kept; the processes of a test run fetch ``name`` one after the other."""
    cache = Path(__file__).parents[2] / ".cache"
    cache.mkdir(exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Emulator:
    """`lc-pipeline emulate` with a ledger."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ledger = folder / "ledger"
        ready = folder / "ready.json"
        command = [*LC_PIPELINE, "emulate", "--listen", "127.0.0.1:0", "--ready-file", str(ready)]
        self.process = subprocess.Popen([*command, "--ledger", str(self.ledger), *arguments], stderr=subprocess.DEVNULL)
        until(ready.exists, "the emulator is ready", process=self.process)
        self.ready: dict[str, Any] = json.loads(ready.read_text())

    def turn(self, knob: str, **arguments: Any) -> Any:
        request = urllib.request.Request(f"{self.ready['url']}/_emulator/{knob}", json.dumps(arguments).encode())
        with urllib.request.urlopen(request, timeout=10, context=self._context()) as response:
            return json.load(response)

    def _context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.ready["ca"]) if self.ready["ca"] else None

    def requests(self) -> dict[str, dict[str, int]]:
        with urllib.request.urlopen(
            f"{self.ready['url']}/_emulator/requests", timeout=10, context=self._context()
        ) as response:
            found: dict[str, dict[str, int]] = json.load(response)
        return found

    def sent(self, via: str, stream: str) -> list[bytes]:
        """The lines handed to the transport, over all connections in their order."""
        files = sorted(self.ledger.glob(f"{via}-{stream}-*.jsonl"), key=lambda path: int(path.stem.rsplit("-", 1)[1]))
        return [line for path in files for line in path.read_bytes().splitlines()]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class Pipeline:
    """`lc-pipeline run` on a configuration, with its log lines and metrics."""

    def __init__(self, folder: Path, config: dict[str, Any], environment: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        path = folder / "pipeline.json"
        path.write_text(
            json.dumps({"admin": {"listen": "127.0.0.1:0"}, "dead_letter": {"path": str(folder / "letters")}, **config})
        )
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
        self.log: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self.stdout = (folder / "stdout").open("wb")
        self.process = subprocess.Popen(
            [*LC_PIPELINE, "--log-format", "json", "run", str(path)],
            stdout=self.stdout,
            stderr=subprocess.PIPE,
            env=clean | {"LC_EPHEMERAL_CREDS": "1"} | (environment or {}),
            cwd=folder,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": line.decode(errors="replace").rstrip(), "level": "raw"}
            with self._news:
                self.log.append(entry)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_log(self, pattern: str, timeout: float = START) -> dict[str, Any]:
        """The first log line whose sentence matches."""

        def found() -> dict[str, Any] | None:
            return next((entry for entry in self.log if re.search(pattern, str(entry.get("event")))), None)

        with self._news:
            ok = self._news.wait_for(lambda: found() is not None or self.process.poll() is not None, timeout)
        entry = found()
        if not ok or entry is None:
            pytest.fail(f"no log line like {pattern!r}:\n" + "\n".join(map(str, self.log[-20:])))
        return entry

    @property
    def admin(self) -> str:
        return str(self.wait_log("Serving metrics")["url"])

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.admin + path, timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        families = text_string_to_metric_families(self.get("metrics")[1])
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of a name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (found, pairs), value in self.metrics().items() if found == name and wanted <= pairs)

    def wait_metric(self, name: str, at_least: float, timeout: float = START, **labels: str) -> None:
        until(lambda: self.metric(name, **labels) >= at_least, f"{name}{labels} >= {at_least}", timeout, self.process)

    def wait_delivered(self, timeout: float = START) -> None:
        """Return when every lane is past all that was accepted."""
        until(lambda: self.metric("pipeline_lane_waiting_records") == 0, "nothing waits", timeout, self.process)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30.0) -> int:
        """With a disk spool what waits stays there."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(5)
        self.stdout.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


def until(
    holds: Callable[[], object], what: str, timeout: float = START, process: subprocess.Popen[bytes] | None = None
) -> None:
    """Wait until something outside of this process holds; it can only be asked for, not awaited."""
    end = time.monotonic() + timeout
    while not holds():
        assert process is None or process.poll() is None, f"the process ended before: {what}"
        assert time.monotonic() < end, f"not in {timeout} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Callable[..., Emulator]]:
    started: list[Emulator] = []

    def start(*arguments: str) -> Emulator:
        started.append(Emulator(tmp_path / f"emulator-{len(started)}", *arguments))
        return started[-1]

    yield start
    for process in started:
        process.stop()


@pytest.fixture(scope="module")
def shared_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Emulator]]:
    """As `emulator`, for all tests of a file: each leaves it as it found it, or works on names of its own."""
    started: list[Emulator] = []

    def start(*arguments: str) -> Emulator:
        started.append(Emulator(tmp_path_factory.mktemp("emulator"), *arguments))
        return started[-1]

    yield start
    for process in started:
        process.stop()


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Callable[..., Pipeline]]:
    started: list[Pipeline] = []

    def start(config: dict[str, Any], environment: dict[str, str] | None = None) -> Pipeline:
        started.append(Pipeline(tmp_path / f"pipeline-{len(started)}", config, environment))
        return started[-1]

    yield start
    for process in started:
        if process.process.poll() is None:
            process.process.kill()
        process.stop()


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., None]:
    return until


@pytest.fixture(name="free_port")
def free_port_fixture() -> Callable[[], int]:
    return free_port


def lines(path: Path) -> list[bytes]:
    """All lines of the files under a folder, file by file."""
    return [line for file in sorted(path.rglob("*.jsonl")) for line in file.read_bytes().splitlines()]


@pytest.fixture(name="lines")
def lines_fixture() -> Callable[[Path], list[bytes]]:
    return lines


@pytest.fixture
def lc_pipeline() -> list[str]:
    """The beginning of each command line."""
    return LC_PIPELINE
