"""What is done to a pipeline, chosen at random."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from accounts import STREAMS, hold
from moody import MOODS

if TYPE_CHECKING:
    from slot import Slot

JUMPS = (-86_400.0, -3600.0, -60.0, -2.0, 0.0, 2.0, 60.0, 3000.0, 86_400.0)
FLOOD_RECORDS = 1200
"""So many are more than a spool of 1 MiB holds."""
PATIENCE = 60.0
"""Seconds in which what a fault is meant to bring about has to happen."""


class Faults:
    def __init__(self, slot: Slot, rng: random.Random) -> None:
        self.slot = slot
        self.rng = rng
        shape, lake = slot.shape, slot.lake
        self.all: dict[str, tuple[float, Callable[[], Awaitable[None]]]] = {
            "kill -9": (3, slot.kill),
            "SIGTERM": (2, slot.terminate),
            "sink refuses, fails or is slow": (4, self.mood),
            "network cut": (3, self.cut),
            "network silence": (1, self.silence),
            "SIGSTOP": (1, self.freeze),
            "Kafka hangs": (0.5, lambda: lake.pause(rng.uniform(0.1, 0.6))),
            "Kafka refuses records": (0.5, self.small),
            "Kafka down and up": (0, lambda: lake.outage(rng.uniform(0.2, 1.0), kill=rng.random() < 0.5)),
        }
        """What is done -> its weight, and how."""
        if slot.disk is not None and slot.disk.mounted:
            self.all["disk full"] = (3, self.full)
        if shape.spool == "1MiB":
            self.all["sink away until the spool is full"] = (1, self.burst)
        if not shape.fills:  # what is missing is asked for by the clock
            self.all["clock jump"] = (1, self.jump)
        if shape.sheds:
            self.all["drop_oldest: its sink away until records are given up"] = (3, self.shed)
        if shape.copies or shape.fills:
            self.all["records come twice"] = (4, self.copies)

    def choose(self, *, outage: bool) -> list[str]:
        steps = self.rng.choices(list(self.all), [weight for weight, _ in self.all.values()], k=self.rng.randint(2, 4))
        if outage:
            steps.insert(self.rng.randrange(len(steps) + 1), "Kafka down and up")
        return steps

    async def mood(self) -> None:
        sink = self.rng.choice(sorted(self.slot.controls))
        mood = self.rng.choice(MOODS[1:])
        self.slot.set_mood(mood, sink)
        self.slot.say(f"{sink} is {mood}")

    async def jump(self) -> None:
        self.slot.offset = self.rng.choice(JUMPS)
        self.slot.say(f"to {self.slot.offset}")
        self.slot.tell()

    async def cut(self) -> None:
        via, how = self.rng.choice(("firehose", "spout")), self.rng.choice(("abort", "clean", "midline"))
        self.slot.say(f"{how} of {via}")
        await self.slot.timely()
        await self.slot.cloud.turn("close", oid=self.slot.oid, via=via, how=how)

    async def silence(self) -> None:
        await self.slot.cloud.turn("stall", oid=self.slot.oid, seconds=self.rng.uniform(0.1, 0.5))

    async def freeze(self) -> None:
        self.slot.process.signal(signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(0.05, 0.5))
        self.slot.process.signal(signal.SIGCONT)

    async def full(self) -> None:
        disk = self.slot.disk
        assert disk is not None
        await self.slot.timely()
        disk.fill()
        await asyncio.sleep(self.rng.uniform(0.1, 0.6))
        if self.rng.random() < 0.3:
            self.slot.say("while the disk is full:")
            await self.slot.kill(timely=False)
            await self.slot.start()
            await asyncio.sleep(self.rng.uniform(0, 1))
        disk.clear()

    async def flood(self) -> None:
        """More than a small spool may hold, at once, as soon as somebody is connected to get it."""
        slot = self.slot
        end = time.monotonic() + PATIENCE
        while True:
            lines = slot.cloud.fresh(slot.oid, "event", FLOOD_RECORDS)
            if lines and await slot.cloud.emit(slot.oid, "event", lines):
                return
            hold(time.monotonic() < end, f"no connection for {PATIENCE} s")
            await asyncio.sleep(0.1)

    async def burst(self) -> None:
        self.slot.set_mood("away", "moody")
        await self.flood()
        await asyncio.sleep(self.rng.uniform(0.2, 1.0))

    async def small(self) -> None:
        self.slot.small = True
        async with self.slot.lake.quiet:
            await self.slot.lake.limit(self.slot.topic, self.rng.choice((800, 1200)))

    async def shed(self) -> None:
        """Its lane gives records up, and all others go on as if nothing had happened."""
        slot = self.slot
        slot.set_mood("well")
        mood = self.rng.choice(("away", "hanging"))
        slot.set_mood(mood, "scrap")
        slot.say(f"scrap is {mood}")
        await slot.process.ready()
        before = await slot.process.metrics()
        end = time.monotonic() + PATIENCE
        await self.flood()
        flooded = time.monotonic()
        while True:
            now = await slot.process.metrics()
            given_up = sum(now.outcome("loose/scrap", source, "discarded") for source in STREAMS)
            if given_up > sum(before.outcome("loose/scrap", source, "discarded") for source in STREAMS):
                break
            if time.monotonic() - flooded > 5:  # what was on the way when a connection broke is gone
                await self.flood()
                flooded = time.monotonic()
            hold(time.monotonic() < end, f"nothing is given up in {PATIENCE} s")
            await asyncio.sleep(0.1)
        slot.say(f"{given_up} are given up")
        goal = {source: now.received[source] + 20 for source in STREAMS}
        delivered = {
            (lane, source): now.outcome(lane, source, "delivered") + now.outcome(lane, source, "rejected") + 20
            for lane in ("all/archive", "all/moody") for source in STREAMS
        }  # fmt: skip
        while True:
            now = await slot.process.metrics()
            waiting = [source for source in STREAMS if now.received[source] < goal[source]] + [
                f"{lane} of {source}" for (lane, source), least in delivered.items()
                if now.outcome(lane, source, "delivered") + now.outcome(lane, source, "rejected") < least
            ]  # fmt: skip
            if not waiting:
                return
            hold(time.monotonic() < end, f"a lane that may give records up holds these up: {waiting}")
            await asyncio.sleep(0.1)

    async def copies(self) -> None:
        """New records twice at once, or such as were delivered before, at once or after a cut."""
        slot, rng = self.slot, self.rng
        source, stream = rng.choice(list(STREAMS.items()))
        count, how = rng.randint(1, 40), rng.choice(("at once", "again", "after a cut"))
        slot.say(f"{count} of {stream} {how}")
        if how == "at once":
            lines = slot.cloud.fresh(slot.oid, stream, count)
            lines = [*lines, *lines] if rng.random() < 0.5 else [line for line in lines for _ in range(2)]
        else:
            recent = slot.accounts.logs[source].recent
            # each once only: where a line was sent three times it would be unknown which of them arrived
            lines = [recent.popleft() for _ in range(min(len(recent), count))]
        if how == "after a cut":
            await slot.timely()
            await slot.cloud.turn("close", oid=slot.oid, stream=stream, how=rng.choice(("abort", "clean", "midline")))
            await asyncio.sleep(rng.uniform(0.0, 0.4))
        if lines:
            await slot.cloud.emit(slot.oid, stream, lines, again=True)
