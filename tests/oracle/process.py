"""The process of one pipeline, life after life."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
from accounts import STREAMS, OracleError, hold
from world import LC_PIPELINE, environment

_SAMPLE = re.compile(r"^(pipeline_[a-z_]+)(?:\{(.*?)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="(.*?)"')


REFUSED = b"Records that could not be accepted any more went to the dead letter."


class Metrics:
    """What one scrape says."""

    def __init__(self, text: str) -> None:
        self._samples = [
            (name, set(_LABEL.findall(labels or "")), float(value)) for name, labels, value in _SAMPLE.findall(text)
        ]

    def sum(self, name: str, **labels: str) -> int:
        wanted = set(labels.items())
        return int(sum(value for found, pairs, value in self._samples if found == name and wanted <= pairs))

    @property
    def received(self) -> dict[str, int]:
        return {source: self.sum("pipeline_source_received_records_total", source=source) for source in STREAMS}

    def outcome(self, lane: str, source: str, outcome: str) -> int:
        route, _, sink = lane.partition("/")
        return self.sum("pipeline_lane_records_total", route=route, sink=sink, source=source, outcome=outcome)

    def conserves(self) -> bool:
        off = [value for name, _, value in self._samples if name == "pipeline_conservation_error_records"]
        return bool(off) and not any(off)


class Process:
    def __init__(self, config: Path, admin: int, site: Path, say: Callable[[str], None]) -> None:
        self.config = config
        self.lives = 0
        self._admin = admin
        self._site = site
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5))

    @property
    def alive(self) -> bool:
        return self._process is not None

    @property
    def log(self) -> Path:
        return self.config.with_name(f"log.{self.lives}")

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    async def start(self) -> None:
        self.lives += 1
        self._say(f"start number {self.lives}")
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *LC_PIPELINE, "--log-format", "json", "run", str(self.config), "--no-summary",
                stdout=log, stderr=log, env=environment(PYTHONPATH=str(self._site)),
            )  # fmt: skip

    async def ready(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            hold(self._process and self._process.returncode is None, f"the process ended by itself: {self._tail()}")
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._http.get(f"http://127.0.0.1:{self._admin}/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
        raise OracleError("not ready in 60 s")

    async def metrics(self) -> Metrics:
        """Raises aiohttp.ClientError and TimeoutError."""
        async with self._http.get(f"http://127.0.0.1:{self._admin}/metrics") as response:
            return Metrics(await response.text())

    async def command(self, *arguments: str) -> None:
        """Run another command of ours, which has to work."""
        command = [*LC_PIPELINE, *arguments]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment())
        try:
            out, err = await asyncio.wait_for(process.communicate(), 90)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise OracleError(f"{arguments} takes more than 90 s") from None
        hold(process.returncode == 0, f"{arguments}: exit code {process.returncode}: {(out + err).decode()}")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, number: signal.Signals) -> bool:
        """Returns whether it had to refuse records that its sources held, because the spool was full to the end."""
        process = self._process
        assert process is not None
        hold(process.returncode is None, f"the process ended by itself: {self._tail()}")
        self._say(number.name)
        process.send_signal(number)
        try:
            code = await asyncio.wait_for(process.wait(), 40)
        except TimeoutError:
            raise OracleError(f"it is still there 40 s after {number.name}") from None
        self._process = None
        # before it handles signals, SIGTERM ends it like others
        wanted = (0, -signal.SIGTERM) if number is signal.SIGTERM else (-number,)
        refused = code == 1 and REFUSED in self.log.read_bytes()
        hold(code in wanted or refused, f"exit code {code} after {number.name}: {self._tail()}")
        return refused

    async def close(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._http.close()
