"""What goes wrong with a service costs a bounded number of requests, counted where they arrive, and is told in clear words."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pipeline.core.errors import (
    AuthenticationError,
    PermissionDeniedError,
    PipelineError,
    RateLimitedError,
    UnavailableError,
)
from pipeline.emulator.knobs import parse
from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings
from pipeline.limacharlie import transport
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.extensions import NotSubscribedError

MANY = 25
TOKEN = "POST /"


class Lab:
    """An emulator that counts, and clients of it."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.ready = emulator.ready()

    def turn(self, knob: str, **arguments):
        return parse(knob, arguments).turn(self.emulator.panel)

    def account(self, **given) -> LimaCharlie:
        key = given.pop("api_key", self.ready["api_key"])
        section = LimaCharlieConfig(oid=self.ready["oid"], api_key=key, url=self.ready["url"])
        return LimaCharlie(section, environ={}, **given)

    def count(self, call: str) -> int:
        """Requests of one kind that arrived, whatever the answer was."""
        return sum(self.emulator.panel.requests[call].values())


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    emulator = Emulator(Settings(port=0, rate=0, events=0))
    await emulator.start()
    yield Lab(emulator)
    await emulator.stop()


async def errors(*calls) -> list[PipelineError]:
    """Make all calls at once; each must fail with an error of the product's."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, PipelineError) for one in found), found
    return found


async def test_a_missing_permission(lab):
    """Many tasks at once without the right to task: it is named, no token is made in vain twice, nothing is repeated after."""
    key = lab.turn("key", permissions=["sensor.get", "sensor.list"])["api_key"]
    async with lab.account(api_key=key) as account:
        sid = next(iter([sensor.sid async for sensor in account.sensors.list("plat == linux")]))
        send = lambda: account.tasks.send(sid, "os_version", if_offline="unchecked")  # noqa: E731 - one call, many times
        found = await errors(*(send() for _ in range(MANY)))
        assert {type(one) for one in found} == {PermissionDeniedError}
        assert {one.fix for one in found} == {"Give the API key the permission sensor.task."}
        assert all("401" in one.what and "missing permission sensor.task" in one.what for one in found)
        assert lab.count(TOKEN) <= 2
        sent = lab.count("POST /v1/{sid}")
        assert sent <= 2 * MANY
        await errors(*(send() for _ in range(MANY)))
        assert lab.count("POST /v1/{sid}") - sent == MANY
        assert lab.count(TOKEN) <= 2


async def test_an_expired_token(lab):
    """Many requests with an old token cost one new token and each at most one repetition, and nobody is told."""
    async with lab.account() as account:
        await account.organization.info()
        lab.turn("expire_tokens")
        await asyncio.gather(*(account.organization.info() for _ in range(MANY)))
    assert lab.count(TOKEN) == 2
    assert lab.count("GET /v1/orgs/{oid}") <= 1 + 2 * MANY


async def test_a_wrong_key(lab):
    """Many requests with a key that is not known ask for a token once, and say where the key is from."""
    async with lab.account(api_key="00000000-0000-4000-8000-000000000000") as account:
        found = await errors(*(account.organization.info() for _ in range(MANY)))
        found += await errors(account.organization.info())
    assert {type(one) for one in found} == {AuthenticationError}
    assert all("unknown api key" in one.what and "oid, uid and api_key" in one.fix for one in found)
    assert {one.where for one in found} == {"the configuration"}
    assert lab.count(TOKEN) <= 2


async def test_a_storm_of_429(lab, monkeypatch):
    """While LimaCharlie says 429 the key as a whole waits: few requests, then an error that tells what would help."""
    monkeypatch.setattr(transport, "MAX_WAIT", 1.5)
    lab.turn("respond", route="orgs", status=429, times=None, headers={"Retry-After": "1"})
    async with lab.account() as account:
        found = await errors(*(account.organization.info() for _ in range(MANY)))
    assert {type(one) for one in found} == {RateLimitedError}
    refused = [one for one in found if "429" in one.what]
    assert refused
    assert all(one.after == 1 and "[bulk]" in one.fix for one in refused)
    assert lab.count("GET /v1/orgs/{oid}") <= 3 * MANY


async def test_a_504(lab, no_pauses):
    """A read is tried four times, a write that may have come through once; both errors say 504 and what was asked."""
    lab.turn("respond", route="orgs", status=504, times=None)
    async with lab.account() as account:
        (read,) = await errors(account.organization.info())
        (write,) = await errors(account.api_keys.create("k", ["sensor.list"]))
    assert (type(read), type(write)) == (UnavailableError, UnavailableError)
    assert ("504" in read.what, read.where) == (True, "GET /orgs/*")
    assert ("504" in write.what, write.where) == (True, "POST /orgs/*/keys")
    assert lab.count("GET /v1/orgs/{oid}") == 4
    assert lab.count("POST /v1/orgs/{oid}/keys") == 1


async def test_a_504_that_passes(lab, no_pauses):
    """One that is over at the next try is nobody's business."""
    lab.turn("respond", route="orgs", status=504, times=2)
    async with lab.account() as account:
        assert (await account.organization.info()).oid == lab.ready["oid"]
    assert lab.count("GET /v1/orgs/{oid}") == 3


async def test_a_missing_subscription(lab):
    """One request, and the error says how to subscribe; subscribing mends it."""
    request = "POST /v1/extension/request/{name}"
    async with lab.account() as account:
        await account.extensions.unsubscribe("ext-reliable-tasking")
        (found,) = await errors(account.reliable_tasking.task("os_version", everywhere=True))
        assert type(found) is NotSubscribedError
        assert "403" in found.what
        assert "extensions.subscribe('ext-reliable-tasking')" in found.fix
        assert lab.count(request) == 1
        await account.extensions.subscribe("ext-reliable-tasking")
        assert (await account.reliable_tasking.task("os_version", everywhere=True)).total
