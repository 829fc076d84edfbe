"""A firehose that a fault ends: what is missing until its peers are back."""

import asyncio
import time

import pytest

from pipeline import Org
from pipeline.config.load import loads
from pipeline.engine.build import build
from pipeline.engine.intake import Intake
from pipeline.engine.runner import Runner
from pipeline.kit.clock import SystemClock

OIDS = {"acme": "00000000-0000-4000-8000-000000000001", "globex": "00000000-0000-4000-8000-000000000002"}
ORGS = [Org(name, oid) for name, oid in OIDS.items()]
CONFIG = """
orgs: {{acme: {{oid: {acme}}}, globex: {{oid: {globex}}}}}
sources: {{hose: {{type: firehose, listen: "127.0.0.1:0", tls: off}}}}
sinks: {{out: {{type: file, path: "{folder}/{{org}}.jsonl"}}}}
routes: {{all: {{from: hose, to: out}}}}
dead_letter: {{path: "{folder}/letters"}}
"""


async def test_what_a_fault_cuts_off(start, record):
    """A fault is a gap of each organization that was there: `listener_down` or, where bytes were left, `unread`; until it is back."""
    acme, globex = (record(1, oid=oid, size=900) + b"\n" for oid in OIDS.values())
    async with start(orgs=ORGS, tls="off") as lab:
        (_, faulty), (_, waiting) = [await lab.connect(tls=False) for _ in OIDS]
        faulty.write(acme)
        waiting.write(globex)
        await lab.outlet.until(2)
        lab.outlet.gate.clear()
        waiting.write(globex * 3000)
        await lab.until(lambda: any(one.unread for one in lab.source._peers))
        fault = lab.outlet.faulty["acme"] = OSError("a fault")
        faulty.write(acme)
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(lab.task, 10)
        assert caught.value.exceptions == (fault,)
        assert lab.report.open_gaps == {"acme": "listener_down", "globex": "unread"}
        assert [entry["event"] for entry in lab.log if entry["log_level"] == "error"] == [
            "There was no time to read all that peers sent."
        ]
        lab.outlet.faulty.clear()
        lab.outlet.gate.set()
        lab.task = asyncio.create_task(lab.source.run(lab.outlet))
        await lab.until(lambda: len(lab.report.states) == 2)
        await lab.push(acme, tls=False)
        await lab.push(globex, tls=False)
        assert sorted(lab.report.gaps) == [("listener_down", "acme"), ("unread", "globex")]
        for writer in (faulty, waiting):
            writer.transport.abort()


async def test_the_engine_starts_it_again(tmp_path, record, monkeypatch):
    """The engine starts it again on its port; the ledger has a gap `listener_down` from the fault until each peer is back."""
    loaded = loads(CONFIG.format(folder=tmp_path, **OIDS), {})
    runner = Runner(build(loaded.config, dict(zip(OIDS, ORGS, strict=True)), SystemClock(), loaded.registry))
    (hose,) = runner.plan.sources
    ledger = runner.plan.board.gaps
    send, faults = Intake.send, []

    async def sent(self, *given, **named):
        if faults:
            raise faults.pop()
        return await send(self, *given, **named)

    async def connect(number):
        """A peer of each organization that brings one record."""
        for oid in OIDS.values():
            _, writer = await asyncio.open_connection("127.0.0.1", hose.source.address.port)
            writer.write(record(number, oid=oid) + b"\n")
            writers.append(writer)

    def gaps():
        return sorted((gap.org, gap.reason, gap.state) for gap in ledger)

    monkeypatch.setattr(Intake, "send", sent)
    writers = []
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        life = group.create_task(runner.run())
        await until(lambda: hose.status.current == "ok")
        await connect(1)
        await until(lambda: sum(count for count, _ in hose.intake.received.values()) == 2)
        assert gaps() == []
        faults.append(OSError("a fault"))
        began = time.time()
        writers[0].write(record(2, oid=OIDS["acme"]) + b"\n")
        await until(lambda: hose.status.current == "failed")
        assert gaps() == [(org, "listener_down", "open") for org in OIDS]
        await until(lambda: hose.status.current == "ok")
        assert {gap.state for gap in ledger} == {"open"}
        await connect(3)
        await until(lambda: not ledger.lasting)
        assert gaps() == [(org, "listener_down", "closed") for org in OIDS]
        assert all(began <= gap.start < gap.end <= time.time() for gap in ledger)
        runner.stop()
        assert (await life).exit_code == 0
    for org, oid in OIDS.items():
        assert (tmp_path / f"{org}.jsonl").read_bytes().splitlines() == [record(n, oid=oid) for n in (1, 3)]
    for writer in writers:
        writer.transport.abort()


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)
