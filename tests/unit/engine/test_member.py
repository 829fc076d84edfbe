"""One worker, as the supervisor sees it."""

import asyncio
import sys

import structlog

from pipeline.engine import member as members
from pipeline.engine.member import Member

SILENT = """
import socket, sys, time
from pipeline.engine.channel import receive
control = socket.socket(fileno=int(sys.argv[1]))
receive(control)
body = b'{"kind":"ready","sources":[]}'
control.sendall(len(body).to_bytes(4) + body)
time.sleep(600)
"""


def member(changed=lambda one: None):
    return Member(1, leads=True, drains=False, changed=changed, log=structlog.get_logger())


async def test_a_worker_that_hangs_is_killed(monkeypatch):
    """One that was ready and says nothing more is killed, so that another takes its place."""
    monkeypatch.setattr(members, "CHECK", 0.05)
    monkeypatch.setattr(members, "PATIENCE", 0.2)
    one = member()
    async with asyncio.timeout(15):
        assert await one.run([sys.executable, "-c", SILENT], {}) == -9
    assert one.started
    assert not one.ready


async def test_one_that_does_not_answer_is_left_out_of_a_report(monkeypatch):
    """A question to a worker that is silent comes back empty after a while, and at once when it ends."""
    monkeypatch.setattr(members, "ANSWER", 0.1)
    ready = asyncio.Event()
    one = member(lambda one: ready.set() if one.ready else None)
    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        life = group.create_task(one.run([sys.executable, "-c", SILENT], {}))
        await ready.wait()
        assert await one.report("state") is None
        monkeypatch.setattr(members, "ANSWER", 60)
        question = group.create_task(one.report("state"))
        await asyncio.sleep(0)
        one.kill()
        assert await question is None
        assert await life == -9
