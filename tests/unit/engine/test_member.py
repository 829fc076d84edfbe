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


ONCE = """
import json, socket, sys, time
from pipeline.engine.channel import receive
control = socket.socket(fileno=int(sys.argv[1]))
def say(**message):
    body = json.dumps(message).encode()
    control.sendall(len(body).to_bytes(4) + body)
receive(control)
say(kind="ready", sources=[])
say(kind="report", id=receive(control)["id"], body=[["seen", "x", "counter", [["seen_total", {}, 7.0]]]])
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


async def test_counts_of_one_that_is_late_are_those_of_the_last_time(monkeypatch):
    """A worker that does not answer a scrape in time does not make the sum of all go back; one that has ended counts as past."""
    monkeypatch.setattr(members, "ANSWER", 10)
    ready = asyncio.Event()
    one = member(lambda one: ready.set() if one.ready else None)
    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        life = group.create_task(one.run([sys.executable, "-c", ONCE], {}))
        await ready.wait()
        counts = await one.report("metrics")
        assert counts == [["seen", "x", "counter", [["seen_total", {}, 7.0]]]]
        monkeypatch.setattr(members, "ANSWER", 0.05)
        assert await one.report("metrics") == counts
        assert await one.report("state") is None
        one.kill()
        assert await life == -9
    assert await one.report("metrics") is None
    assert one.past == counts
