"""One of several processes: a pipeline with its part of the sources, told what to do by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from pipeline.config.load import Loaded
from pipeline.core.handover import Presence
from pipeline.core.types import Listen
from pipeline.engine import replay_server
from pipeline.engine.accounts import accounts
from pipeline.engine.build import build
from pipeline.engine.channel import Channel, HandedOver, Message, SocketInbox, pairs_of, presence_of
from pipeline.engine.merge import families
from pipeline.engine.observe import Observation
from pipeline.engine.placement import Place
from pipeline.engine.runner import Runner
from pipeline.engine.status import Status
from pipeline.kit.clock import SystemClock


async def work(loaded: Loaded, start: Message, control: socket.socket, sockets: socket.socket) -> int:
    """Run this process's part until told to stop, or until its sources are at their end; return the exit code."""
    channel = await Channel.over(control)
    doors = {
        name: HandedOver(
            Listen.parse(address),
            leads=start["leads"],
            tell=partial(_tell, channel, name),
        )
        for name, address in start["listeners"].items()
    }
    inbox = SocketInbox(sockets, list(doors.values()))
    place = Place(start["worker"], start["workers"], drains=start["drains"], handovers=doors)
    try:
        async with accounts(loaded.config, loaded.registry) as orgs:
            plan = build(loaded.config, orgs, SystemClock(), loaded.registry, place)
            plan.board.listeners.append(lambda status: channel.send("status", **_status(status)))

            @contextlib.asynccontextmanager
            async def announce(runner: Runner) -> AsyncIterator[None]:
                """Say that the spool accepts, before the first connection is taken."""
                channel.send("ready", sources=[_status(status) for status in runner.plan.board.of("source")])
                yield

            runner = Runner(plan, [announce, replay_server.serve], alone=False)
            async with asyncio.TaskGroup() as group:
                obeying = [
                    group.create_task(_obey(channel, runner, doors)),
                    group.create_task(_end_with(plan.stopping, inbox)),
                ]
                summary = await runner.run()
                for task in obeying:
                    task.cancel()
        channel.send("summary", asked=runner.asked, summary=_plain(asdict(summary)))
        return summary.exit_code
    finally:
        inbox.close()
        await channel.close()


async def _obey(channel: Channel, runner: Runner, doors: Mapping[str, HandedOver]) -> None:
    seen = Observation(runner)
    async for message in channel.messages():
        match message["kind"]:
            case "stop":
                runner.stop(message["reason"])
            case "presence":
                doors[message["source"]].changed(presence_of(message["presence"]))
            case "report":
                match message["what"]:
                    case "metrics":
                        body: Any = families(runner.plan.meters.registry)
                    case "state":
                        body = await seen.state()
                    case _:
                        body = None
                channel.send("report", id=message["id"], body=body)
    runner.stop("the supervisor has gone")


async def _end_with(stopping: asyncio.Event, inbox: SocketInbox) -> None:
    """Whoever told us to stop has handed over all connections before."""
    await stopping.wait()
    inbox.close()


def _tell(channel: Channel, source: str, presence: Presence) -> None:
    channel.send("presence", source=source, presence=pairs_of(presence))


def _status(status: Status) -> dict[str, Any]:
    return {
        "component": status.component, "component_kind": status.kind, "org": status.org, "state": status.current,
        "code": status.code, "text": status.text,
    }  # fmt: skip


def _plain(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, Sequence) else value for name, value in summary.items()}
