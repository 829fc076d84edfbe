"""One pipeline with its disk spool, and all that is done to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from accounts import STREAMS, Accounts, OracleError, Snapshot, hold, snapshot
from moody import CONTROL, MOODS, Control
from world import LC_PIPELINE, Cloud, Lake, environment

_RECEIVED = re.compile(r'^pipeline_source_received_records_total\{[^}]*source="(\w+)"[^}]*\} (\S+)$', re.MULTILINE)
_OFF = re.compile(r"^pipeline_conservation_error_records(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
SETTLE = 90.0
"""Seconds within which everything has to be delivered once nothing is wrong any more."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Disk:
    """A small tmpfs where it may be mounted, so that it can be full."""

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Take what room there is, as fast as somebody else may take it."""
        with self._ballast.open("wb") as file, contextlib.suppress(OSError):
            for _ in range(10_000):
                found = os.statvfs(self.path)
                os.pwrite(
                    file.fileno(), bytes(min(1 << 20, found.f_bavail * found.f_frsize)), os.fstat(file.fileno()).st_size
                )
                if not found.f_bavail:
                    return

    def clear(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """What is on it stays to be looked at, in a folder of its name and ``-kept``."""
        if self.mounted:
            self.clear()
            kept = self.path.with_name(f"{self.path.name}-kept")
            shutil.copytree(self.path, kept, ignore=shutil.ignore_patterns("*.sock"))
            subprocess.run(["umount", "-l", str(self.path)], check=False)
            self.mounted = False


class Slot:
    def __init__(self, number: int, folder: Path, cloud: Cloud, lake: Lake, site: Path) -> None:
        self.number = number
        self.cloud = cloud
        self.lake = lake
        self.done: Counter[str] = Counter()
        """What was done, how often."""
        self.story: list[str] = []
        """The same of this round, in words."""
        org = cloud.ready["orgs"][number]
        self.oid: str = org["oid"]
        self.topic = f"oracle-{number}-{os.urandom(4).hex()}"
        folder.mkdir(parents=True)
        self.disk = Disk(folder / "disk", 128 << 20) if number % 2 else None
        self.folder = self.disk.path if self.disk is not None and self.disk.mounted else folder
        self.accounts = Accounts(self.folder, cloud, self.oid)
        (self.folder / "moody").mkdir()
        control = self.folder / "control"
        control.write_bytes(bytes(CONTROL.size))
        self.control = Control(control)
        self.offset, self.mood = 0.0, "well"
        self.reader = lake.reader(self.topic)
        self.admin = free_port()
        self._logs = folder
        self._site = site
        self._process: asyncio.subprocess.Process | None = None
        self._lives = 0
        self._began = time.monotonic()
        self._disturbed = 0
        self._small = False
        self._killed = [False, False]
        """In the stretch before this one, and in this one."""
        self._ends = dict.fromkeys(STREAMS, 0)
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5))
        self.config = folder / "pipeline.json"
        self.config.write_text(json.dumps(self._config(org["api_key"]), indent=1))

    def _config(self, key: str) -> dict[str, object]:
        ready, folder = self.cloud.ready, self.folder
        listen = f"127.0.0.1:{free_port()}"
        retry = {"base": "20ms", "cap": "200ms"}
        wait = {"base": "50ms", "cap": "200ms", "refused_base": "100ms", "refused_cap": "300ms"}
        lake = {"type": "kafka", "bootstrap_servers": self.lake.bootstrap, "topic": self.topic, "retry": retry}
        moody = {"type": "moody", "folder": str(folder / "moody"), "control": str(folder / "control"), "retry": retry}
        return {
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "limacharlie": {"url": ready["url"], "oid": self.oid, "api_key": key, "tls": {"ca": ready["ca"]}},
            "sources": {
                "telemetry": {
                    "type": "firehose", "stream": "event", "listen": listen, "max_record": "200KiB",
                    "output": {"name": "oracle", "address": listen},
                },
                "detections": {"type": "spout", "stream": "detect", "reconnect": wait, "max_record": "200KiB"},
            },
            "sinks": {
                "archive": {
                    "type": "file", "path": f"{folder}/archive/{{stream}}.jsonl", "batch": {"max_wait": "50ms"}, "retry": retry,
                },
                "lake": {**lake, "batch": {"max_wait": "50ms"}},
                "moody": {**moody, "batch": {"max_wait": "50ms"}, "timeout": "700ms"},
            },
            "routes": {"all": {"from": list(STREAMS), "to": ["archive", "lake", "moody"]}},
            "spool": {
                "type": "disk", "path": str(folder / "spool"), "max_size": "1MiB" if self.number % 4 < 2 else "8MiB",
                "sync": "normal" if self.number % 3 == 2 else "full",
            },
            "dead_letter": {"path": str(folder / "letters"), "max_size": "4MiB"},
            "stop_timeout": "20s",
            "event_loop": "asyncio",
        }  # fmt: skip

    def say(self, text: str) -> None:
        self.story.append(f"{time.monotonic() - self._began:8.3f}  {text}")

    # --- the process

    @property
    def alive(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        self._lives += 1
        self.say(f"start number {self._lives}")
        with (self._logs / f"log.{self._lives}").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *LC_PIPELINE, "--log-format", "json", "run", str(self.config), "--no-summary",
                stdout=log, stderr=log, env=environment(PYTHONPATH=str(self._site)),
            )  # fmt: skip

    async def ready(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            hold(self._process and self._process.returncode is None, f"the process ended by itself: {self._tail()}")
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._http.get(f"http://127.0.0.1:{self.admin}/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.05)
        raise OracleError("not ready in 60 s")

    def _tail(self) -> str:
        return (self._logs / f"log.{self._lives}").read_text(errors="replace")[-3000:]

    async def kill(self) -> None:
        """kill -9, with a look at what it had counted just before."""
        received: dict[str, int] = {}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            received = self._received(await self.metrics())
        await self._end(signal.SIGKILL)
        self._killed[1] = True
        self._examine(received)

    async def terminate(self) -> None:
        await self._end(signal.SIGTERM)
        self._examine({})

    async def _end(self, number: signal.Signals) -> None:
        process = self._process
        assert process is not None
        hold(process.returncode is None, f"the process ended by itself: {self._tail()}")
        self.say(number.name)
        process.send_signal(number)
        try:
            code = await asyncio.wait_for(process.wait(), 40)
        except TimeoutError:
            raise OracleError(f"it is still there 40 s after {number.name}") from None
        self._process = None
        wanted = (
            (0, -signal.SIGTERM) if number is signal.SIGTERM else (-number,)
        )  # before it handles signals: the latter
        hold(code in wanted, f"exit code {code} after {number.name}: {self._tail()}")

    def _examine(self, received: dict[str, int]) -> None:
        """The process is dead: its spool must be whole and have at least what the process said that it had."""
        if not (self.folder / "spool" / "lock").exists():
            return
        if not (self.folder / "spool" / "state.db").exists():
            return
        ends = self.accounts.witness()
        for source, count in received.items():
            least = self._ends[source] + count
            hold(ends[source] >= least, f"{source}: {least} records were accepted, the spool ends at {ends[source]}")
        self._ends = ends

    async def metrics(self) -> str:
        async with self._http.get(f"http://127.0.0.1:{self.admin}/metrics") as response:
            return await response.text()

    def _received(self, metrics: str) -> dict[str, int]:
        found = dict.fromkeys(STREAMS, 0)
        for source, value in _RECEIVED.findall(metrics):
            found[source] += int(float(value))
        return found

    # --- what is done to it

    def set_mood(self, mood: str) -> None:
        self.mood = mood
        self.control.set(self.offset, mood)

    async def round(self, rng: random.Random, *, outage: bool) -> None:
        """Do some of everything, then see that all is well."""
        self.story.clear()
        if not self.alive:
            await self.start()
            if rng.random() < 0.25:
                await asyncio.sleep(rng.uniform(0, 0.9))
                self.done["kill -9 while it starts"] += 1
                await self._end(signal.SIGKILL)
                self._killed[1] = True
                self._examine({})
                await self.start()
            await self.ready()
        actions = self._actions(rng)
        steps = rng.choices(list(actions), [weight for weight, _ in actions.values()], k=rng.randint(2, 4))
        if outage:
            steps.insert(rng.randrange(len(steps) + 1), "Kafka down and up")
        for step in steps:
            if not self.alive:
                await self.start()
                await self.ready()
            self.done[step] += 1
            self.say(step)
            await actions[step][1]()
            await asyncio.sleep(rng.uniform(0.0, 0.25))
        await self._settle()
        await (self.kill if rng.random() < 0.5 else self.terminate)()
        await self._check()

    def _actions(self, rng: random.Random) -> dict[str, tuple[float, Callable[[], Awaitable[None]]]]:
        async def mood() -> None:
            self.set_mood(rng.choice(MOODS[1:]))
            self.say(f"mood {self.mood}")

        async def jump() -> None:
            self.offset = rng.choice((-86_400.0, -3600.0, -60.0, -2.0, 0.0, 2.0, 60.0, 3000.0, 86_400.0))
            self.say(f"to {self.offset}")
            self.control.set(self.offset, self.mood)

        async def cut() -> None:
            via, how = rng.choice(("firehose", "spout")), rng.choice(("abort", "clean", "midline"))
            self.say(f"{how} of {via}")
            await self.cloud.turn("close", oid=self.oid, via=via, how=how)

        async def silence() -> None:
            await self.cloud.turn("stall", oid=self.oid, seconds=rng.uniform(0.1, 0.5))

        async def freeze() -> None:
            assert self._process is not None
            self._process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(rng.uniform(0.05, 0.5))
            self._process.send_signal(signal.SIGCONT)

        async def full() -> None:
            assert self.disk is not None
            self.disk.fill()
            await asyncio.sleep(rng.uniform(0.1, 0.6))
            if rng.random() < 0.3:
                self.say("while the disk is full:")
                await self.kill()
                await self.start()
                await asyncio.sleep(rng.uniform(0, 1))
            self.disk.clear()

        async def burst() -> None:
            """More than the spool may hold, while a sink takes nothing."""
            self.set_mood("away")
            await asyncio.sleep(rng.uniform(0.8, 1.6))

        async def small() -> None:
            self._small = True
            async with self.lake.quiet:
                await self.lake.limit(self.topic, rng.choice((800, 1200)))

        actions: dict[str, tuple[float, Callable[[], Awaitable[None]]]] = {
            "kill -9": (3, self.kill),
            "SIGTERM": (2, self.terminate),
            "sink refuses, fails or is slow": (4, mood),
            "sink away until the spool is full": (0.5, burst),
            "clock jump": (1, jump),
            "network cut": (3, cut),
            "network silence": (1, silence),
            "SIGSTOP": (1, freeze),
            "Kafka hangs": (0.5, lambda: self.lake.pause(rng.uniform(0.1, 0.6))),
            "Kafka refuses records": (0.5, small),
            "Kafka down and up": (0, lambda: self.lake.outage(rng.uniform(0.2, 1.0), kill=rng.random() < 0.5)),
        }
        if self.disk is not None and self.disk.mounted:
            actions["disk full"] = (3, full)
        return actions

    # --- what must hold

    async def _settle(self) -> None:
        """Nothing is wrong any more: what was accepted is delivered, fresh records come, and the accounts add up."""
        self.say("all is well again")
        self.offset = min(self.offset, 3000.0)  # Kafka refuses what is from more than an hour ahead
        self.set_mood("well")
        if self._small:
            self._small = False
            async with self.lake.quiet:
                await self.lake.limit(self.topic, 1 << 20)
        if not self.alive:
            await self.start()
        await self.ready()
        clean = self.accounts.clean_ends()
        lanes = [f"all/{sink}" for sink in ("archive", "lake", "moody")]
        deadline = time.monotonic() + SETTLE
        wanted: dict[str, int] | None = None
        goal = {source: self._ends[source] + 5 for source in STREAMS}
        now: Snapshot | None = None
        begun = self._received(await self.metrics())
        while True:
            metrics = await self.metrics()
            received = self._received(metrics)
            off = _OFF.findall(metrics)
            hold(off and not any(map(float, off)), f"conservation is off by {off} records")
            if wanted is None and all(received[source] >= begun[source] + 5 for source in STREAMS):
                wanted = {source: self._ends[source] + received[source] for source in STREAMS}
                self.say(f"fresh records came; everything before {wanted} is to be delivered")
            with contextlib.suppress(sqlite3.OperationalError):
                now = snapshot(self.folder / "spool")
                goal = wanted or goal
                if wanted and all(now.positions.get((lane, log), 0) >= goal[log] for lane in lanes for log in goal):
                    break
            if time.monotonic() > deadline:
                where = now.positions if now else "unknown"
                raise OracleError(
                    f"not delivered in {SETTLE:.0f} s: received {received}, wanted {wanted}, positions {where}"
                )
            await asyncio.sleep(0.1)
        self.accounts.check_archive(now)
        self.accounts.check_clean(clean)

    async def _check(self) -> None:
        now = snapshot(self.folder / "spool")
        self.accounts.check_archive(now)
        for path in sorted((self.folder / "moody").glob("*.jsonl")):
            self.accounts.lanes["moody"].take(path.read_bytes().splitlines(), self.accounts.lanes["moody"].seen)
            path.unlink()
        disturbed = self.lake.disturbed
        self.accounts.lanes["lake"].take(await self.reader.more(), self.accounts.lanes["lake"].seen)
        crashed = any(self._killed)
        self.accounts.check_lanes(now, explained={"lake": crashed or disturbed != self._disturbed, "moody": crashed})
        self._disturbed = disturbed
        self._killed = [self._killed[1], False]

    async def close(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._http.close()
        await self.reader.close()
        if self.disk is not None:
            self.disk.unmount()
