"""An Output whose errors LimaCharlie does not let us read."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from pipeline.core.component import Org
from pipeline.sources.firehose import Firehose, FirehoseConfig
from pipeline.sources.firehose_output import OutputConfig
from pipeline.sources.firehose_registration import Registration
from pipeline.testing import context

EVENTS = 40
UNREADABLE = "The Output is registered, but its errors cannot be read."
NOBODY = "LimaCharlie does not connect to this listener."


@pytest.fixture
async def org(cloud, turn) -> Org:
    """An organization whose key has the documented permissions and no other."""
    permissions = ["output.list", "output.set", "output.del"]
    await turn(cloud[0], "permissions", oid=cloud[0].oid, permissions=permissions)
    return cloud[0]


def section(port: int, recheck: float = 60.0) -> dict[str, Any]:
    return {"name": "hose", "address": f"127.0.0.1:{port}", "recheck": recheck}


def warnings(lab) -> list[str]:
    return [entry["event"] for entry in lab.log if entry["log_level"] == "warning"]


async def asked(org: Org, route: str) -> int:
    """How often a route was asked, with whatever result."""
    url = f"{org.account.config.url}/_emulator/requests"
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return sum((await answer.json()).get(route, {}).values())


async def until_read(org: Org, times: int) -> None:
    """Wait until reading the errors was tried this many times."""
    async with asyncio.timeout(10):
        while await asked(org, "GET /v1/errors/{oid}") < times:
            await asyncio.sleep(0.02)


async def test_the_documented_permissions_are_enough(start, org, free_port):
    """A key with output.list, .set and .del registers and is ok; that its errors are hidden is one warning with the remedy."""
    async with start(orgs=[org], listen=f"127.0.0.1:{free_port}", output=section(free_port)) as lab:
        await lab.outlet.until(EVENTS)
        await lab.until(lambda: len(lab.report.states) == 2)
        assert [state for state, _, _ in lab.report.states] == ["ok", "ok"]
        assert lab.report.errors == []
        assert warnings(lab) == [UNREADABLE]
        assert "org.get" in next(entry["error"] for entry in lab.log if entry["event"] == UNREADABLE)


async def test_no_connection_is_still_one_warning(start, org, free_port, monkeypatch):
    """Without a connection there is the one warning, which says that the errors cannot be read; the state stays ok."""
    async with start(orgs=[org], listen=f"127.0.0.1:{free_port}", output=section(1, 0.05)) as lab:
        await until_read(org, 4)
        assert warnings(lab) == [UNREADABLE, NOBODY]
        assert "its errors cannot be read" in next(entry["error"] for entry in lab.log if entry["event"] == NOBODY)
        assert {state for state, _, _ in lab.report.states} == {"ok"}


async def test_it_is_updated_once_each_time_that_nobody_connects(org, monkeypatch):
    """Looks without a connection update the Output once, since it may serve another replica; after a connection, once more."""
    looks = iter((0, 0, 0, 1, 0, 0))
    done = asyncio.Event()

    def connections(_org: str) -> int:
        look = next(looks, None)
        if look is None:
            done.set()
        return look or 0

    config = OutputConfig(**section(1, 0.02))
    source = Firehose(FirehoseConfig(), context("hose", orgs=[org]))
    registration = Registration(config, config.output("event", tls=None, token=None), source, connections)
    keeping = asyncio.create_task(registration.keep())
    await done.wait()
    keeping.cancel()
    await asyncio.wait([keeping])
    assert await asked(org, "POST /v1/outputs/{oid}") == 1 + 2


async def test_one_that_may_be_disabled_is_enabled_at_the_start(start, org, turn, free_port):
    """An Output that is as we want it is updated nevertheless, because LimaCharlie may have disabled it."""
    await org.account.outputs.put(OutputConfig(**section(free_port)).output("event", tls=None, token=None))
    await turn(org, "output", name="hose", oid=org.oid, enabled=False)
    async with start(orgs=[org], listen=f"127.0.0.1:{free_port}", output=section(free_port)) as lab:
        await lab.outlet.until(EVENTS)


async def test_one_that_is_disabled_later_is_enabled_again(start, org, turn, free_port, monkeypatch):
    """When the connections are gone, an update enables the Output, and the records go on."""
    async with start(orgs=[org], listen=f"127.0.0.1:{free_port}", output=section(free_port, 0.1)) as lab:
        await lab.outlet.until(EVENTS)
        await turn(org, "output", name="hose", oid=org.oid, enabled=False)
        await lab.outlet.until(2 * EVENTS)


async def test_a_refused_dismissal_is_no_failure(start, cloud, turn, free_port, monkeypatch):
    """Where errors can be read but not dismissed, the Output is enabled and ok, and that is one warning."""
    org = cloud[0]
    dismiss = org.account.errors.dismiss

    async def refuse(component):
        await turn(org, "respond", route="errors", status=403)
        await dismiss(component)

    await org.account.outputs.put(OutputConfig(**section(free_port)).output("event", tls=None, token=None))
    await turn(org, "output", name="hose", oid=org.oid, enabled=False)
    monkeypatch.setattr(org.account.errors, "dismiss", refuse)
    async with start(orgs=[org], listen=f"127.0.0.1:{free_port}", output=section(free_port)) as lab:
        await lab.outlet.until(EVENTS)
        await lab.until(lambda: len(lab.report.states) == 2)
        assert [state for state, _, _ in lab.report.states] == ["ok", "ok"]
        assert warnings(lab) == ["The Output is enabled, but its old error cannot be dismissed."]


async def test_a_key_that_is_revoked_later_is_degraded(start, org, turn, free_port, monkeypatch):
    """A revoked key is no hidden error: without a connection the organization is reported as degraded."""
    async with start(orgs=[org], listen=f"127.0.0.1:{free_port}", output=section(1, 0.05)) as lab:
        await until_read(org, 2)
        await turn(org, "revoke", oid=org.oid)
        await lab.until(lambda: lab.report.states[-1][0] == "degraded")
        assert lab.report.states[-1][2] == "authentication"
