"""A firehose whose connections another process accepts."""

import asyncio
import socket

import structlog

from pipeline import Listen, Org
from pipeline.core.component import Context
from pipeline.engine.channel import HandedOver
from pipeline.kit.clock import SystemClock
from pipeline.sources.firehose import Firehose, FirehoseConfig

from .conftest import GatedOutlet, Reports

OIDS = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


class Worker:
    """One of the processes that share the listener."""

    def __init__(self, *, leads):
        self.told, self.report, self.outlet, self.stopping = [], Reports(), GatedOutlet(), asyncio.Event()
        self.door = HandedOver(Listen("127.0.0.1", 4443), leads=leads, tell=self.told.append)
        orgs = [Org(name, oid) for name, oid in zip(("acme", "globex"), OIDS, strict=True)]
        context = Context(
            "hose", structlog.get_logger(), SystemClock(), self.report, self.stopping, orgs, handover=self.door
        )
        self.source = Firehose(FirehoseConfig.model_validate({"tls": "off"}), context)

    async def __aenter__(self):
        self.outlet.gate.set()
        await self.source.open()
        self.task = asyncio.create_task(self.source.run(self.outlet))
        return self

    async def __aexit__(self, *_):
        self.door.put(None)
        self.stopping.set()
        async with asyncio.timeout(10):
            await self.task
        await self.source.close()

    async def connect(self, oid):
        """A peer's end of a connection that has brought one record."""
        ours, theirs = socket.socketpair()
        self.door.put(theirs)
        _, writer = await asyncio.open_connection(sock=ours)
        before = len(self.told)
        writer.write(b'{"routing":{"oid":"%s"}}\n' % oid.encode())
        await self.heard(lambda: any(self.told[before:]))
        return writer

    async def heard(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


async def test_records_of_connections_that_are_handed_over_are_taken():
    """What comes over such a connection is sent on, and the process says whose connections it has."""
    async with Worker(leads=False) as worker:
        writer = await worker.connect(OIDS[0])
        await worker.heard(lambda: {"acme": 1} in worker.told)
        writer.close()
        await worker.heard(lambda: worker.told[-1] == {})


async def test_an_organization_that_another_process_serves_is_not_away():
    """A gap is from the last connection of all processes to the next one of any, told by the one that leads alone."""
    async with Worker(leads=True) as worker:
        writer = await worker.connect(OIDS[0])
        worker.door.changed({"acme": 2})
        writer.close()
        await worker.heard(lambda: worker.told[-1] == {})
        worker.door.changed({"acme": 1})
        assert worker.report.gaps == []
        worker.door.changed({})
        worker.door.changed({"acme": 1, "globex": 1})
        assert worker.report.gaps == [("no_connection", "acme")]


async def test_one_that_does_not_lead_tells_no_gap():
    """The end of the last connection of a process that does not lead is no gap: others may have more."""
    async with Worker(leads=False) as worker:
        for _ in range(2):
            writer = await worker.connect(OIDS[0])
            writer.close()
            await worker.heard(lambda: worker.told[-1] == {})
    assert worker.report.gaps == []
