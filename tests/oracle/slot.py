"""One pipeline with its disk spool, and what has to hold after each round of faults."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import aiohttp
from accounts import STREAMS, Accounts, OracleError, Snapshot, hold, snapshot
from copies import CopiesAccounts, FillingAccounts
from disk import Disk
from faults import Faults
from moody import CONTROL, Control
from process import Process
from shapes import SHAPES, write
from shedding import SheddingAccounts
from world import LATE, PATIENCE, Cloud, Lake

from pipeline.core.errors import UnavailableError

SETTLE = 90.0
"""Seconds within which everything has to be delivered once nothing is wrong any more."""


class Slot:
    def __init__(self, number: int, folder: Path, cloud: Cloud, lake: Lake, site: Path) -> None:
        self.number = number
        self.shape = SHAPES[number % len(SHAPES)]
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
        self.disk = Disk(folder / "disk", 128 << 20) if self.shape.own_disk else None
        self.folder = self.disk.path if self.disk is not None and self.disk.mounted else folder
        kind = (
            SheddingAccounts if self.shape.sheds
            else CopiesAccounts if self.shape.copies
            else FillingAccounts if self.shape.fills
            else Accounts
        )  # fmt: skip
        self.accounts = kind(self.folder, cloud, self.oid, self.shape.lanes)
        self.controls: dict[str, Control] = {}
        self.offset = 0.0
        self.moods = {lane.partition("/")[2]: "well" for lane in self.shape.lanes}
        for sink in self.moods.keys() & {"moody", "scrap", "fancy"}:
            (self.folder / sink).mkdir()
            control = self.folder / f"{sink}.control"
            control.write_bytes(bytes(CONTROL.size))
            self.controls[sink] = Control(control)
        self.reader = lake.reader(self.topic)
        self.small = False
        """Whether Kafka refuses records of a usual size."""
        self._began = time.monotonic()
        config = folder / "pipeline.json"
        kafka = {"bootstrap_servers": lake.bootstrap, "topic": self.topic}
        admin = write(config, self.shape, self.folder, cloud, org, kafka)
        self.process = Process(config, admin, site, self.say)
        self._disturbed = 0
        self._partly: set[str] = set()
        """Sinks that may have stored a part of a write that is to be tried again."""
        self._excused: set[str] = set()
        """Connections whose last records may have found no place before a stop was over."""
        self.ends = dict.fromkeys(STREAMS, 0)
        """Where the logs ended when the process died last."""

    @property
    def possible(self) -> list[str]:
        """What may be done to it."""
        fills = ["gaps filled by request"] if self.shape.fills else []
        return [*Faults(self, random.Random()).all, "kill -9 while it starts", *fills]

    def say(self, text: str) -> None:
        self.story.append(f"{time.monotonic() - self._began:8.3f}  {text}")

    # --- the process

    async def start(self) -> None:
        if isinstance(self.accounts, SheddingAccounts) and (self.accounts.spool / "state.db").exists():
            self.accounts.begin(snapshot(self.accounts.spool))
        await self.process.start()

    async def timely(self) -> None:
        """Before something is done that back-fill is to make good: what is on the way is to be younger than that looks back."""
        if not isinstance(self.accounts, FillingAccounts):
            return
        await self.cloud.timely()
        begun = time.monotonic()
        while (late := self._late(self.accounts)) > LATE:
            waited = time.monotonic() - begun
            hold(
                waited < PATIENCE,
                f"records are {late:.0f} s on their way into the spool; the machine has too much to do",
            )
            if waited > PATIENCE / 4:  # it may be full
                self.set_mood("well")
            await asyncio.sleep(0.2)

    def _late(self, accounts: FillingAccounts) -> float:
        """Seconds that records are on their way; a little more than too long where the spool is just busy."""
        with contextlib.suppress(UnavailableError, OSError):
            return accounts.late()
        return LATE + 1

    async def kill(self, *, timely: bool = True) -> None:
        """kill -9, with a look at what it had counted just before."""
        if timely:
            await self.timely()
        received: dict[str, int] = {}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            received = (await self.process.metrics()).received
        await self.process.end(signal.SIGKILL)
        self._examine(received, crashed=True)

    async def terminate(self) -> None:
        await self.timely()
        if await self.process.end(signal.SIGTERM):
            self.done["stopped with a full spool"] += 1
            self._excused.update(self.accounts.clean_ends())
        self._examine({}, crashed=False)

    def _examine(self, received: dict[str, int], *, crashed: bool) -> None:
        """The process is dead: its spool must be whole and have at least what the process said that it had."""
        if not (self.accounts.spool / "lock").exists():
            return
        if not (self.accounts.spool / "state.db").exists():
            return
        ends = self.accounts.witness()
        for source, count in received.items():
            least = self.ends[source] + count
            hold(ends[source] >= least, f"{source}: {least} records were accepted, the spool ends at {ends[source]}")
        self.ends = ends
        # A stop leaves a write that was stored in part as it is, like a crash.
        again = (
            self.shape.lanes
            if crashed
            else [lane for lane in self.shape.lanes if lane.partition("/")[2] in self._partly]
        )
        self.accounts.repeats(snapshot(self.accounts.spool), again)

    def now(self) -> Snapshot | None:
        """What is committed; None where the database is busy."""
        with contextlib.suppress(sqlite3.OperationalError):
            return snapshot(self.accounts.spool)
        return None

    # --- what is done to it

    def set_mood(self, mood: str, *sinks: str) -> None:
        """Of these sinks, or of all."""
        for name in sinks or self.controls:
            self.moods[name] = mood
            if mood == "partly":
                self._partly.add(name)
        self.tell()

    def tell(self) -> None:
        for name, control in self.controls.items():
            control.set(self.offset, self.moods[name])

    async def round(self, rng: random.Random, *, outage: bool) -> None:
        """Do some of everything, then see that all is well."""
        self.story.clear()
        if not self.process.alive:
            await self.start()
            if rng.random() < 0.25:
                await asyncio.sleep(rng.uniform(0, 0.9))
                self.done["kill -9 while it starts"] += 1
                await self.cloud.timely()
                await self.process.end(signal.SIGKILL)
                self._examine({}, crashed=True)
                await self.start()
            await self.process.ready()
        faults = Faults(self, rng)
        for step in faults.choose(outage=outage):
            if not self.process.alive:
                await self.start()
                await self.process.ready()
            self.done[step] += 1
            self.say(step)
            await faults.all[step][1]()
            await asyncio.sleep(rng.uniform(0.0, 0.25))
        await self._settle()
        if isinstance(self.accounts, FillingAccounts):
            await self._fill(self.accounts, by_request=rng.random() < 0.85)
        await (self.kill if rng.random() < 0.5 else self.terminate)()
        await self._check()

    # --- what must hold

    async def _settle(self) -> None:
        """Nothing is wrong any more: what was accepted is delivered, fresh records come, and the accounts add up."""
        self.say("all is well again")
        self.offset = min(self.offset, 3000.0)  # Kafka refuses what is from more than an hour ahead
        self.set_mood("well")
        if self.small:
            self.small = False
            async with self.lake.quiet:
                await self.lake.limit(self.topic, 1 << 20)
        if not self.process.alive:
            await self.start()
        await self.process.ready()
        clean = self.accounts.clean_ends()
        deadline = time.monotonic() + SETTLE
        wanted: dict[str, int] | None = None
        now: Snapshot | None = None
        begun = (await self.process.metrics()).received
        while True:
            metrics = await self.process.metrics()
            received = metrics.received
            hold(metrics.conserves(), "conservation is off")
            if wanted is None and all(received[source] >= begun[source] + 5 for source in STREAMS):
                wanted = {source: self.ends[source] + received[source] for source in STREAMS}
                self.say(f"fresh records came; everything before {wanted} is to be delivered")
            now = self.now()
            if (
                wanted
                and now
                and all(now.past(lane, log) >= wanted[log] for lane in self.shape.lanes for log in wanted)
            ):
                break
            if time.monotonic() > deadline:
                where = now.positions if now else "unknown"
                raise OracleError(
                    f"not delivered in {SETTLE:.0f} s: received {received}, wanted {wanted}, positions {where}"
                )
            await asyncio.sleep(0.1)
        self._partly.clear()
        self.accounts.check_files(now)
        await self._take_whole([name for name in clean if name not in self._excused], deadline)
        if isinstance(self.accounts, SheddingAccounts):
            await self._count(self.accounts, deadline)

    async def _take_whole(self, names: list[str], deadline: float) -> None:
        """What a connection brought before its clean end may still wait for room in a spool that was full."""
        while True:
            try:
                self.accounts.check_clean(names)
            except OracleError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            await asyncio.sleep(0.1)
            if now := self.now():
                self.accounts.check_files(now)

    async def _count(self, accounts: SheddingAccounts, deadline: float) -> None:
        """What the lane that may shed counted is what is missing."""
        while True:
            before = await self.process.metrics()
            await asyncio.sleep(0.15)  # a commit later
            now = self.now()
            after = await self.process.metrics()
            counts = [
                [one.outcome("loose/scrap", source, "discarded") for source in STREAMS] for one in (before, after)
            ]
            if now and counts[0] == counts[1]:
                accounts.check_files(now)
                if accounts.check_discarded(now, after):
                    return
            hold(time.monotonic() < deadline, f"it goes on to discard: {counts}")

    async def _fill(self, accounts: FillingAccounts, *, by_request: bool) -> None:
        """The gaps are filled, and then everything that was generated is there."""
        if by_request:
            self.done["gaps filled by request"] += 1
            self.say("gaps fill --all")
            await self.process.command("gaps", "fill", str(accounts.spool), "--all")
        deadline = time.monotonic() + SETTLE
        until: dict[str, int] | None = None
        while True:
            now = self.now()
            pending = [gap for gap in now.gaps if gap.state != "filled"] if now else None
            if until is None and pending == []:
                until = accounts.mark()
                self.say(f"all gaps are filled; what was generated before {until} is to be there")
            if now:
                accounts.check_files(now)
            if until is not None and now:
                lacks = accounts.lacks(until)
                if not any(lacks.values()):
                    accounts.filled = sum(gap.added for gap in now.gaps)
                    accounts.settled(until)
                    return
            if time.monotonic() > deadline:
                hold(until, f"gaps are not filled: {pending}")
                count = {source: len(places) for source, places in lacks.items()}
                firsts = {source: [accounts.name(source, at) for at in places[:5]] for source, places in lacks.items()}
                raise OracleError(
                    f"missing after the gaps were filled: {count}, the first {firsts}, gaps {now and now.gaps}"
                )
            await asyncio.sleep(0.2)

    async def _check(self) -> None:
        now = snapshot(self.accounts.spool)
        self.accounts.check_files(now)
        for sink in self.controls:
            route = next(lane for lane in self.shape.lanes if lane.endswith(f"/{sink}"))
            self.accounts.lanes[route].read_files(self.folder / sink)
        disturbed = self.lake.disturbed
        self.accounts.lanes["all/lake"].take(await self.reader.more())
        self.accounts.check_lanes(now, explained={"all/lake": disturbed != self._disturbed})
        self._disturbed = disturbed

    async def close(self) -> None:
        await self.process.close()
        await self.reader.close()
        if self.disk is not None:
            self.disk.unmount()
