"""The API about sensors, and sensors at work."""

import asyncio
import base64
import gzip
import json
from contextlib import AsyncExitStack

import pytest


async def replies(
    local, task: str, *, platform: str = "windows", investigation: str = "hunt/1", count: int = 2
) -> list[dict]:
    """Task a sensor that is online and give what then comes in the stream of the investigation."""
    sensor = await local.sensor(platform)
    async with AsyncExitStack() as stack:
        stream = await stack.enter_async_context(local.stream(inv_id=investigation.partition("/")[0]))
        assert await stream.line() == b'{"__trace":"connected"}'
        form = {"tasks": task, "investigation_id": investigation}
        assert await local.api("POST", f"/v1/{sensor['sid']}", form) == {}
        return [json.loads(await stream.line()) for _ in range(count)]


async def test_list_in_pages(emulate):
    """A listing ends without a continuation token, plain and compressed pages say the same."""
    local = await emulate()
    everything = await local.api("GET", f"/v1/sensors/{local.oid}")
    assert list(everything) == ["sensors"]
    rows, token = [], ""
    while True:
        page = await local.api("GET", f"/v1/sensors/{local.oid}?limit=5&is_compressed=true&continuation_token={token}")
        rows += json.loads(gzip.decompress(base64.b64decode(page["sensors"])))
        if "continuation_token" not in page:
            break
        token = page["continuation_token"]
    assert [row["sid"] for row in rows] == [row["sid"] for row in everything["sensors"]]
    assert len(rows) == 12


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("selector=", 12),
        ("selector=*&limit=0&is_online_only=false", 12),
        ("selector=plat%20%3D%3D%20linux", 3),
        ("is_online_only=true", 8),
        ("with_hostname_prefix=ZZZ", 0),
        ("with_ip=internal", 2),
        ("selector=plat%20%3D%3D%20linux&is_online_only=true", 2),
    ],
)
async def test_list_filters(emulate, query, count):
    """Filters narrow the listing, and hold together."""
    local = await emulate()
    assert len((await local.api("GET", f"/v1/sensors/{local.oid}?{query}"))["sensors"]) == count


@pytest.mark.parametrize("query", ["selector=nonsense", "continuation_token=!", "limit=many"])
async def test_list_refused(emulate, query):
    """What cannot be understood in a listing's query is a 400."""
    local = await emulate()
    assert "error" in await local.api("GET", f"/v1/sensors/{local.oid}?{query}", status=400)


async def test_get(emulate):
    """A sensor tells whether it is online; a guide's path means the same; an unknown one is not found."""
    local = await emulate()
    on, off = await local.sensor(), await local.sensor(online=False)
    shown = await local.api("GET", f"/v1/{on['sid']}")
    assert (shown["info"]["hostname"], shown["is_online"], list(shown["online"])) == (on["hostname"], True, [on["sid"]])
    away = await local.api("GET", f"/v1/sensor/{local.oid}/{off['sid']}")
    assert (away["is_online"], away["online"]) == (False, {})
    await local.api("GET", "/v1/00000000-0000-4000-8000-000000000000", status=404)


async def test_tags(emulate):
    """Tags are added, told with who added them, found in the organization, and removed, alone or several."""
    local = await emulate()
    sid = (await local.sensor())["sid"]
    await local.api("POST", f"/v1/{sid}/tags", {"tags": "one,two"})
    await local.api("POST", f"/v1/sensor/{local.oid}/{sid}/tag", {"tags": "three"})
    rows = (await local.api("GET", f"/v1/{sid}/tags"))["tags"][sid]
    assert {"one", "two", "three"} <= set(rows)
    assert rows["one"][:3] == [sid, "one", "emulated-1-key"]
    assert "three" in (await local.api("GET", f"/v1/tags/{local.oid}"))["tags"]
    assert list(await local.api("GET", f"/v1/tags/{local.oid}/three")) == [sid]
    await local.api("DELETE", f"/v1/{sid}/tags", {"tags": "one,two"})
    await local.api("DELETE", f"/v1/sensor/{local.oid}/{sid}/tag", {"tag": "three"})
    assert not {"one", "two", "three"} & set((await local.api("GET", f"/v1/{sid}/tags"))["tags"][sid])


async def test_tag_for_a_while(emulate):
    """A tag with a time to live is gone after it."""
    local = await emulate()
    sid = (await local.sensor())["sid"]
    await local.api("POST", f"/v1/{sid}/tags", {"tags": "brief", "ttl": "1"})
    assert "brief" in (await local.api("GET", f"/v1/{sid}/tags"))["tags"][sid]

    async def gone() -> bool:
        return "brief" not in (await local.api("GET", f"/v1/{sid}/tags"))["tags"][sid]

    await local.until(gone)


async def test_isolation(emulate):
    """A sensor that is online is isolated at once; one that is not should be, and is when it comes."""
    local = await emulate()
    for online in (True, False):
        sid = (await local.sensor(online=online))["sid"]
        await local.api("POST", f"/v1/{sid}/isolation")
        info = (await local.api("GET", f"/v1/{sid}"))["info"]
        assert (info["should_isolate"], info["isolated"]) == (True, online)
        await local.turn("presence", sensor=sid, online=True)
        assert (await local.api("GET", f"/v1/{sid}"))["info"]["isolated"]
        await local.api("DELETE", f"/v1/{sid}/isolation")
        info = (await local.api("GET", f"/v1/{sid}"))["info"]
        assert (info["should_isolate"], info["isolated"]) == (False, False)


async def test_seal_and_delete(emulate):
    """A sensor is sealed and unsealed, and deleted for good."""
    local = await emulate()
    sid = (await local.sensor())["sid"]
    await local.api("POST", f"/v1/{sid}/seal")
    assert (await local.api("GET", f"/v1/{sid}"))["info"]["should_seal"]
    await local.api("DELETE", f"/v1/{sid}/seal")
    assert not (await local.api("GET", f"/v1/{sid}"))["info"]["should_seal"]
    await local.api("DELETE", f"/v1/{sid}")
    await local.api("GET", f"/v1/{sid}", status=404)


async def test_online_and_hostnames(emulate):
    """Presence is told by name or for all, and sensors are found by the beginning of their host name."""
    local = await emulate()
    sensor = await local.sensor()
    assert await local.api("POST", f"/v1/online/{local.oid}", {"sids": [sensor["sid"], "x"]}) == {
        sensor["sid"]: True,
        "x": False,
    }
    assert (await local.api("GET", f"/v1/online/{local.oid}"))["count"] == 8
    found = await local.api("GET", f"/v1/hostnames/{local.oid}?hostname={sensor['hostname'][:6].upper()}")
    assert {"sid": sensor["sid"], "hostname": sensor["hostname"]} in found["sid"]


async def test_task(emulate):
    """A task is confirmed in the stream first, then answered, both with the whole investigation id."""
    local = await emulate(events=0)
    confirmed, reply = await replies(local, "os_version", investigation="hunt/123")
    assert confirmed["routing"]["event_type"] == "CLOUD_NOTIFICATION"
    assert confirmed["event"]["NOTIFICATION_ID"] == "OS_VERSION_REQ"
    assert confirmed["event"]["NOTIFICATION"] == {"INVESTIGATION_ID": "hunt/123"}
    assert (reply["routing"]["event_type"], reply["event"]["BUILD_NUMBER"]) == ("OS_VERSION_REP", 20348)
    assert {record["routing"]["investigation_id"] for record in (confirmed, reply)} == {"hunt/123"}
    assert reply["routing"]["event_id"] != confirmed["routing"]["event_id"]
    assert set(reply) == {"event", "routing", "ts"}


async def test_several_tasks(emulate):
    """Several tasks in one request are all answered; the guide's path takes a task too."""
    local = await emulate(events=0)
    sid = (await local.sensor("linux"))["sid"]
    async with local.stream(inv_id="both") as stream:
        await stream.line()
        form = {"tasks": ["os_version", "netstat"], "investigation_id": "both"}
        await local.api("POST", f"/v1/sensor/{local.oid}/{sid}/task", form)
        kinds = [json.loads(await stream.line())["routing"]["event_type"] for _ in range(4)]
    assert sorted(kinds) == ["CLOUD_NOTIFICATION", "CLOUD_NOTIFICATION", "NETSTAT_REP", "OS_VERSION_REP"]


async def test_repeated_request(emulate):
    """A task that is sent again with the same idempotency key is run once."""
    local = await emulate(events=0)
    sid = (await local.sensor())["sid"]
    async with local.stream(event_white_list="CLOUD_NOTIFICATION") as stream:
        await stream.line()
        for key in ("a", "a", "b"):
            form = {"tasks": "os_version", "investigation_id": key}
            await local.api("POST", f"/v1/{sid}", form, headers={"x-idempotent-key": key})
        seen = [json.loads(await stream.line())["routing"]["investigation_id"] for _ in range(2)]
    assert seen == ["a", "b"]


async def test_unknown_tasks(emulate):
    """An unknown command, one of another platform, and an adapter's are refused; guides' names only as long as they are taken."""
    local = await emulate()
    sid = (await local.sensor("linux"))["sid"]
    assert "unknown command" in (await local.api("POST", f"/v1/{sid}", {"tasks": "bogus"}, status=400))["error"]
    assert (
        "UNSUPPORTED_FOR_PLATFORM"
        in (await local.api("POST", f"/v1/{sid}", {"tasks": "os_users"}, status=400))["error"]
    )
    sensors = (await local.api("GET", f"/v1/sensors/{local.oid}"))["sensors"]
    adapter = next(one["sid"] for one in sensors if one["arch"] == 9)
    assert "UNSUPPORTED" in (await local.api("POST", f"/v1/{adapter}", {"tasks": "os_version"}, status=400))["error"]
    await local.api("POST", f"/v1/{sid}", {"tasks": "os_info"})
    await local.turn("tasks", aliases=False)
    await local.api("POST", f"/v1/{sid}", {"tasks": "os_info"}, status=400)
    await local.api("POST", f"/v1/{sid}", {}, status=400)


async def test_offline_sensor_answers_nothing(emulate):
    """A task for a sensor that is offline is taken, and lost."""
    local = await emulate(events=0)
    off, on = await local.sensor(online=False), await local.sensor()
    async with local.stream() as stream:
        await stream.line()
        await local.api("POST", f"/v1/{off['sid']}", {"tasks": "os_version", "investigation_id": "x"})
        await local.api("POST", f"/v1/{on['sid']}", {"tasks": "os_version", "investigation_id": "x"})
        sids = {json.loads(await stream.line())["routing"]["sid"] for _ in range(2)}
    assert sids == {on["sid"]}


async def test_hidden_investigation(emulate):
    """Answers to an investigation that begins with two underscores are kept, but not sent out."""
    local = await emulate(events=0)
    sid = (await local.sensor())["sid"]
    async with local.stream() as stream:
        await stream.line()
        await local.turn("tasks", delay=0)
        await local.api("POST", f"/v1/{sid}", {"tasks": "os_version", "investigation_id": "__quiet"})
        await local.api("POST", f"/v1/{sid}", {"tasks": "os_version", "investigation_id": "loud"})
        seen = {json.loads(await stream.line())["routing"]["investigation_id"] for _ in range(2)}
    assert seen == {"loud"}

    async def kept() -> bool:
        page = await local.api("GET", f"/v1/insight/{local.oid}/{sid}?event_type=OS_VERSION_REP")
        return len(page["events"]) == 2

    await local.until(kept)


async def test_presence(emulate):
    """A sensor that comes online says so; one that goes is told of in the deployment stream."""
    local = await emulate(events=0)
    sensor = await local.sensor(online=False)
    async with local.stream() as events, local.stream(type="deployment") as deployment:
        await events.line(), await deployment.line()
        assert await local.turn("presence", sensor=sensor["hostname"], online=True) == {"changed": [sensor["sid"]]}
        assert await local.turn("presence", sensor=sensor["hostname"], online=True) == {"changed": []}
        record = json.loads(await events.line())
        assert (record["routing"]["event_type"], record["routing"]["sid"]) == ("CONNECTED", sensor["sid"])
        assert record["event"]["HOST_NAME"] == sensor["hostname"]
        await local.turn("presence", sensor=sensor["sid"], online=False)
        assert json.loads(await deployment.line())["routing"]["event_type"] == "disconnected"


async def test_some_come_and_go(emulate, monkeypatch):
    """In live mode some sensors come and go by themselves."""
    monkeypatch.setattr("pipeline.emulator.agents.FLAP_SECONDS", 0.01)
    local = await emulate(rate=1)
    before = await local.api("POST", f"/v1/online/{local.oid}")
    presence = {sensor.sid: sensor.presence for sensor in local.emulator.hub.cloud.first.fleet.sensors}
    for expected in (True, False):
        for sid in (sid for sid, kind in presence.items() if kind == "flapping"):

            async def changed(sid: str = sid, expected: bool = expected) -> bool:
                return (await local.api("POST", f"/v1/online/{local.oid}", {"sids": sid}))[sid] == expected

            await local.until(changed)
    after = await local.api("POST", f"/v1/online/{local.oid}")
    assert {sid for sid in after if presence[sid] != "flapping" and after[sid] != before[sid]} == set()


async def test_restart(emulate):
    """A restart is confirmed, not answered; the sensor goes and comes again."""
    local = await emulate(events=0)
    sid = (await local.sensor())["sid"]
    async with local.stream(sid=sid) as stream:
        await stream.line()
        await local.turn("tasks", delay=0)
        await local.api("POST", f"/v1/{sid}", {"tasks": "restart"})
        kinds = [json.loads(await stream.line())["routing"]["event_type"] for _ in range(2)]
    assert kinds == ["CLOUD_NOTIFICATION", "CONNECTED"]


async def test_permissions(emulate):
    """A key without the right to task may look, and is told which right is missing."""
    local = await emulate()
    sid = (await local.sensor())["sid"]
    await local.turn("permissions", api_key=local.api_key, permissions=["sensor.get", "sensor.list"])
    token = await local.token()
    assert (await local.call("GET", f"/v1/{sid}", token=token))[0] == 200
    status, body = await local.call("POST", f"/v1/{sid}", {"tasks": "os_version"}, token)
    assert (status, body["error"]) == (401, "unauthorized: missing permission sensor.task")


async def test_tags_of_now_are_in_answers(emulate):
    """What a sensor answers carries the tags that it has now."""
    local = await emulate(events=0)
    sid = (await local.sensor())["sid"]
    await local.api("POST", f"/v1/{sid}/tags", {"tags": "fresh"})
    async with local.stream(tag="fresh") as stream:
        await stream.line()
        await local.api("POST", f"/v1/{sid}", {"tasks": "os_version"})
        record = json.loads(await asyncio.wait_for(stream.line(), 5))
    assert "fresh" in record["routing"]["tags"]
    assert "investigation_id" not in record["routing"]
