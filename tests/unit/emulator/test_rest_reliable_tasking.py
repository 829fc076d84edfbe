"""Reliable Tasking and the extensions beside it."""

import base64
import gzip
import json
import time

import pytest

EXT = "/v1/extension/request/ext-reliable-tasking"


async def ask(local, action: str, data: dict | None = None, *, status: int = 200):
    """Send a request as the documentation's curl lines do; gives the data inside the envelope."""
    form = {"oid": local.oid, "action": action, "data": json.dumps(data or {})}
    answer = await local.api("POST", EXT, form, status=status)
    return answer["data"] if status == 200 else answer["error"]


async def kinds(stream, count: int) -> list[str]:
    return [json.loads(await stream.line())["routing"]["event_type"] for _ in range(count)]


async def test_online_sensor_is_tasked_at_once(emulate):
    """A task for a sensor that is online is delivered, answered with the context, and leaves the queue."""
    local = await emulate(events=0)
    sid = (await local.sensor("windows"))["sid"]
    async with local.stream(inv_id="version") as stream:
        await stream.line()
        result = await ask(local, "task", {"task": "os_version", "sid": sid, "context": "version"})
        records = [json.loads(await stream.line()) for _ in range(2)]
    assert (result["total_sensors"], result["tasked_sensors"], result["queued_sensors"]) == (1, 1, 0)
    assert [record["routing"]["event_type"] for record in records] == ["CLOUD_NOTIFICATION", "OS_VERSION_REP"]
    assert await ask(local, "list") == {}


async def test_offline_sensor_is_tasked_when_it_comes(emulate):
    """A task waits for a sensor that is offline, is listed, and is delivered once when the sensor comes."""
    local = await emulate(events=0)
    sid = (await local.sensor(online=False))["sid"]
    task = {"task": "run --shell-command whoami", "selector": f"sid=='{sid}'", "context": "later", "ttl": 3600}
    result = await ask(local, "task", task)
    assert (result["tasked_sensors"], result["queued_sensors"]) == (0, 1)
    row = (await ask(local, "list"))[sid][result["task_id"]]
    assert (row["command"], row["context"], row["sensor_selector"]) == (task["task"], "later", task["selector"])
    assert 3590 < row["expiry"] - time.time() <= 3600
    async with local.stream(sid=sid) as stream:
        await stream.line()
        await local.turn("presence", sensor=sid, online=True)
        assert await kinds(stream, 3) == ["CONNECTED", "CLOUD_NOTIFICATION", "RECEIPT"]
        assert await ask(local, "list") == {}
        await local.turn("presence", sensor=sid, online=False)
        await local.turn("presence", sensor=sid, online=True)
        await local.api("POST", f"/v1/{sid}", {"tasks": "netstat"})
        assert await kinds(stream, 3) == ["CONNECTED", "CLOUD_NOTIFICATION", "NETSTAT_REP"]


async def test_at_least_once(emulate):
    """A task whose confirmation is lost is run, stays in the queue, and is delivered again."""
    local = await emulate(events=0)
    sid = (await local.sensor("linux"))["sid"]
    await local.turn("tasks", lose_confirmations=1)
    async with local.stream(sid=sid) as stream:
        await stream.line()
        await ask(local, "task", {"task": "os_version", "sid": sid})
        assert await kinds(stream, 1) == ["OS_VERSION_REP"]
        assert sid in await ask(local, "list")
        await local.turn("presence", sensor=sid, online=False)
        await local.turn("presence", sensor=sid, online=True)
        assert await kinds(stream, 3) == ["CONNECTED", "CLOUD_NOTIFICATION", "OS_VERSION_REP"]
    assert await ask(local, "list") == {}


async def test_too_late(emulate):
    """A task whose time is over is not listed and not delivered."""
    local = await emulate(events=0)
    sid = (await local.sensor(online=False))["sid"]
    await ask(local, "task", {"task": "os_version", "sid": sid, "ttl": 0.01})

    async def expired() -> bool:
        return await ask(local, "list") == {}

    await local.until(expired)
    async with local.stream(sid=sid) as stream:
        await stream.line()
        await local.turn("presence", sensor=sid, online=True)
        await local.api("POST", f"/v1/{sid}", {"tasks": "netstat"})
        assert await kinds(stream, 3) == ["CONNECTED", "CLOUD_NOTIFICATION", "NETSTAT_REP"]


async def test_untask(emulate):
    """Queued tasks are taken back: one by its id, or all of a target."""
    local = await emulate()
    sid = (await local.sensor(online=False))["sid"]
    first, _, _ = [await ask(local, "task", {"task": "os_version", "sid": sid}) for _ in range(3)]
    assert await ask(local, "untask", {"sid": sid, "task_id": first["task_id"]}) == {"deleted": 1}
    assert len((await ask(local, "list", {"sid": sid}))[sid]) == 2
    assert await ask(local, "untask", {"selector": "*"}) == {"deleted": 2}
    assert "required" in await ask(local, "untask", {}, status=400)


@pytest.mark.parametrize(
    ("target", "count"),
    [
        ({}, 10),
        ({"selector": "*"}, 10),
        ({"selector": "plat==windows"}, 4),
        ({"tag": "windows"}, 4),
        ({"tag": "nope"}, 0),
    ],
)
async def test_targets(emulate, target, count):
    """A selector or tag means all agents that match, no target all agents; adapters take no tasks."""
    local = await emulate()
    result = await ask(local, "task", {"task": "os_version", **target})
    assert result["total_sensors"] == count == result["tasked_sensors"] + result["queued_sensors"]


async def test_one_target(emulate):
    """In its other version a task must name exactly one target; more than one is too many in both."""
    local = await emulate()
    sid = (await local.sensor())["sid"]
    assert "exactly one" in await ask(local, "task", {"task": "os_version", "sid": sid, "tag": "x"}, status=400)
    await local.turn("reliable_tasking", one_target=True)
    assert "exactly one" in await ask(local, "task", {"task": "os_version"}, status=400)
    assert (await ask(local, "task", {"task": "os_version", "selector": "*"}))["total_sensors"] == 10


@pytest.mark.parametrize(
    ("action", "data", "said"),
    [
        ("task", {}, "missing parameter task"),
        ("task", {"task": "bogus"}, "unknown command"),
        ("task", {"task": "os_version", "selector": "nonsense"}, "invalid selector"),
        ("task", {"task": "os_version", "ttl": "long"}, "ttl"),
        ("fly", {}, "unknown action"),
    ],
)
async def test_refused(emulate, action, data, said):
    """A request that makes no sense is a 400 with the reason."""
    local = await emulate()
    assert said in await ask(local, action, data, status=400)


async def test_mixed_fleet(emulate):
    """A command that some platforms lack runs on the others, and its failure there is reported by the extension."""
    local = await emulate(events=0)
    async with local.stream(event_white_list="task_failure\ntask_done") as stream:
        await stream.line()
        await ask(local, "task", {"task": "os_drivers", "selector": "plat == windows or plat == linux"})
        told = [json.loads(await stream.line()) for _ in range(4)]
    assert sorted(record["routing"]["event_type"] for record in told) == ["task_done"] * 2 + ["task_failure"] * 2
    failure = next(record for record in told if record["routing"]["event_type"] == "task_failure")
    assert "UNSUPPORTED_FOR_PLATFORM" in failure["event"]["error"]


async def test_telemetry(emulate):
    """The extension tells of what it does as an adapter in the event stream."""
    local = await emulate(events=0)
    sid = (await local.sensor())["sid"]
    async with local.stream(tag="ext:ext-reliable-tasking") as stream:
        await stream.line()
        await ask(local, "task", {"task": "os_version", "sid": sid, "ttl": 60})
        records = [json.loads(await stream.line()) for _ in range(4)]
    assert [record["routing"]["event_type"] for record in records] == ["add_task", "try_task", "task_sent", "task_done"]
    assert {record["routing"]["hostname"] for record in records} == {"ext-reliable-tasking"}
    assert (records[0]["event"]["ttl"], records[2]["event"]["sid"]) == (60, sid)


async def test_subscription(emulate):
    """Without a subscription a request is a 403 that names the extension; subscribing mends it."""
    local = await emulate()
    path = f"/v1/orgs/{local.oid}/subscription/extension/ext-reliable-tasking"
    assert "ext-reliable-tasking" in await local.api("GET", f"/v1/orgs/{local.oid}/subscriptions")
    await local.api("DELETE", path)
    assert "not subscribed" in await ask(local, "list", status=403)
    assert "ext-reliable-tasking" not in await local.api("GET", f"/v1/orgs/{local.oid}/subscriptions")
    await local.api("POST", path)
    assert await ask(local, "list") == {}
    await local.api("PATCH", path)
    await local.api("POST", path.replace("ext-reliable", "ext-unknown"), status=404)


async def test_compressed_and_bare(emulate):
    """A request may be compressed, and the answer come without its envelope."""
    local = await emulate()
    await local.turn("reliable_tasking", bare=True)
    data = base64.b64encode(gzip.compress(b"{}")).decode()
    assert await local.api("POST", EXT, {"oid": local.oid, "action": "list", "gzdata": data}) == {}
    await local.api("POST", EXT, {"oid": local.oid, "action": "list", "gzdata": "!"}, status=400)


async def test_bomb(emulate):
    """Compressed data that unpacks to too much is refused."""
    local = await emulate()
    data = base64.b64encode(gzip.compress(bytes(65 << 20))).decode()
    answer = await local.api("POST", EXT, {"oid": local.oid, "action": "list", "gzdata": data}, status=400)
    assert "too large" in answer["error"]


async def test_schema_and_definition(emulate):
    """An extension shows its actions with their parameters, and is among the definitions."""
    local = await emulate()
    schema = await local.api("GET", f"/v1/extension/schema/ext-reliable-tasking?oid={local.oid}")
    assert set(schema["request_schema"]) == {"task", "list", "untask"}
    names = [one["name"] for one in (await local.api("GET", "/v1/extension/definition"))["definitions"]]
    assert "ext-reliable-tasking" in names
    assert (await local.api("GET", "/v1/extension/definition/ext-exfil"))["name"] == "ext-exfil"


async def test_services(emulate):
    """The older service requests reach the same extensions, subscribed or not."""
    local = await emulate()

    async def service(which: str, **data):
        form = {"request_data": base64.b64encode(json.dumps(data).encode()).decode(), "is_async": "False"}
        return await local.api("POST", f"/v1/service/{local.oid}/{which}", form)

    await service(
        "exfil", action="add_watch", name="w", event="NEW_PROCESS", operator="is", value="x", path=["FILE_PATH"]
    )
    assert (await service("exfil", action="list_rules"))["watch"]["w"]["event"] == "NEW_PROCESS"
    await service("exfil", action="remove_watch", name="w")
    assert (await service("exfil", action="list_rules"))["watch"] == {}
    await service("integrity", action="add_rule", name="r", patterns=["/etc/*"], tags=["a"], platforms=[])
    assert (await service("integrity", action="list_rules"))["r"]["patterns"] == ["/etc/*"]
    assert await service("reliable-tasking", action="list") == {}


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (r"""{"context":"version","selector":"plat==windows","task":"run --shell-command whoami","ttl":3600}""", 4),
        (r"""{"task":"os_version","selector":"sid=='sensor-123-abc'","ttl":86400}""", 0),
        (
            r"""{"task":"file_get -f /etc/passwd","selector":"plat==linux and linux in tags","context":"a","ttl":172800}""",
            3,
        ),
        (r"""{"task":"os_version","selector":"plat==linux and int_ip matches '^10\\..*'"}""", 3),
        (r"""{"task":"os_version","ttl":3600}""", 10),
        (r"""{"task":"mem_map --pid 4","selector":"windows in tags"}""", 4),
    ],
)
async def test_guide_requests(emulate, data, count):
    """The requests of the guide run as they are written there: a form that is not encoded at all."""
    local = await emulate()
    body = f"oid={local.oid}&action=task&data={data}".encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    total = (await local.api("POST", EXT, body, headers=headers))["data"]["total_sensors"]
    assert total == count
    listing = f"oid={local.oid}&action=list&data={{}}".encode()
    assert set(await local.api("POST", EXT, listing, headers=headers)) >= {"data", "error"}
