"""Sensors, their tags, and commands to them."""

import pytest

from pipeline.core.errors import NotFoundError, PermissionDeniedError, UnavailableError, UsageError
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.tasks import OfflineError

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
SID = "9cbed57a-6d6a-4af0-b881-803a99b177d9"
OTHER = "00000000-0000-4000-8000-000000000000"
DOC = {
    "sid": SID,
    "hostname": "desk-1",
    "plat": 0x10000000,
    "arch": 2,
    "tags": ["prod"],
    "alive": "2023-11-14 22:13:20",
    "should_isolate": True,
}


def guide(service, **options):
    section = LimaCharlieConfig(oid=OID, api_key="k", url=service.url)
    return LimaCharlie(section, environ={}, **options)


@pytest.mark.parametrize("compressed", [True, False])
async def test_sensors_are_listed_page_by_page(account, service, compressed):
    """Until there is no token, or an empty one; pages may come either way, whatever was asked for."""
    service.reply(
        {"sensors": service.packed([DOC]) if compressed else [DOC], "continuation_token": "t1"},
        {"sensors": [{**DOC, "sid": OTHER}], "continuation_token": ""},
    )
    found = [sensor async for sensor in account.sensors.list("plat == windows", page_size=1, compressed=compressed)]
    assert [sensor.sid for sensor in found] == [SID, OTHER]
    expected = {"selector": "plat == windows", "limit": "1"} | ({"is_compressed": "true"} if compressed else {})
    assert [asked.query for asked in service.asked] == [expected, expected | {"continuation_token": "t1"}]


async def test_sensors_are_found_by_address_name_and_presence(account, service):
    """Each as LimaCharlie names it."""
    service.reply({"sensors": []})
    assert [s async for s in account.sensors.list(with_ip="10.0.0.1", hostname_prefix="d", online_only=True)] == []
    assert service.asked[0].query == {
        "with_ip": "10.0.0.1",
        "with_hostname_prefix": "d",
        "is_online_only": "true",
        "is_compressed": "true",
    }


async def test_a_token_that_leads_nowhere_ends_in_an_error(account, service):
    """Else the list would never end."""
    service.reply({"sensors": [DOC], "continuation_token": "t1"})
    with pytest.raises(UnavailableError, match="same token"):
        async for _ in account.sensors.list():
            pass


@pytest.mark.parametrize(
    ("state", "online"),
    [
        ({"online": {SID: 123}}, True),
        ({"online": {}}, False),
        ({"online": {"error": "offline"}}, False),
        ({}, False),
        ({"online": {}, "is_online": True}, True),
        ({"online": {SID: 1}, "is_online": False}, False),
    ],
)
async def test_a_sensor_says_whether_it_is_online(account, service, state, online):
    """In the old and in the new way."""
    service.reply({"info": DOC, **state})
    sensor = await account.sensors.get(SID)
    assert (sensor.sid, sensor.hostname, sensor.platform, sensor.architecture) == (SID, "desk-1", "windows", "x64")
    assert (sensor.tags, sensor.alive_at, sensor.isolated, sensor.sealed) == ({"prod"}, 1_700_000_000.0, True, False)
    assert sensor.online is online
    assert service.asked[0].path == f"/v1/{SID}"


@pytest.mark.parametrize(
    ("number", "name"), [(0x24000000, "falconcloud"), (0x31000000, "harmony"), (0x77000000, "0x77000000"), (None, "")]
)
async def test_a_platform_is_not_guessed_from_its_first_digit(account, service, number, name):
    """An adapter is no Linux because its number begins like Linux's; an unknown one stays unknown."""
    service.reply({"info": {**DOC, "plat": number}})
    assert (await account.sensors.get(SID)).platform == name


async def test_an_unknown_sensor_is_not_found(account, service):
    """With LimaCharlie's words."""
    service.answers = [service.refusal(404, "unknown sensor")]
    with pytest.raises(NotFoundError, match="unknown sensor"):
        await account.sensors.get(SID)


async def test_who_is_online_of_many(account, service, monkeypatch):
    """Asked in parts; a sensor that is not in the answer is not online."""
    monkeypatch.setattr("pipeline.limacharlie.sensors._AT_ONCE", 2)
    third = OTHER.replace("0000", "0001", 1)
    service.reply({SID: True, OTHER: False}, {})
    assert await account.sensors.online([SID, OTHER, third]) == {SID: True, OTHER: False, third: False}
    assert [asked.fields for asked in service.asked] == [[("sids", SID), ("sids", OTHER)], [("sids", third)]]
    service.reply({"count": 7})
    assert await account.sensors.online_count() == 7


async def test_sensors_are_found_by_hostname(account, service):
    """LimaCharlie calls the list `sid`."""
    service.reply({"sid": [{"sid": SID, "hostname": "desk-1"}]})
    assert await account.sensors.by_hostname("de") == {SID: "desk-1"}
    assert service.asked[0].query == {"hostname": "de"}


@pytest.mark.parametrize(
    ("verb", "route"),
    [
        ("isolate", "POST /v1/{}/isolation"),
        ("rejoin", "DELETE /v1/{}/isolation"),
        ("seal", "POST /v1/{}/seal"),
        ("unseal", "DELETE /v1/{}/seal"),
        ("delete", "DELETE /v1/{}"),
    ],
)
async def test_a_sensor_is_changed(account, service, verb, route):
    """Each is safe to repeat, and is after a temporary failure."""
    service.answers = [service.refusal(503), service.refusal(200)]
    await getattr(account.sensors, verb)(SID)
    assert [asked.route for asked in service.asked] == [route.format(SID)] * 2


async def test_tags_are_read_with_who_and_when(account, service):
    """And in the short form that some answers have."""
    service.reply({"tags": {SID: {"prod": [SID, "prod", "me", "2023-11-14 22:13:20"], "x": None}}}, {"tags": ["a"]})
    tags = await account.tags.of(SID)
    assert (tags["prod"].added_by, tags["prod"].added_at, tags["x"].added_at) == ("me", 1_700_000_000.0, None)
    assert set(await account.tags.of(SID)) == {"a"}


async def test_tags_are_added_for_a_time_and_removed(account, service):
    """Several at once; one alone has a field of its own on removal."""
    await account.tags.add(SID, "a", "b", ttl=3600.5)
    await account.tags.remove(SID, "a")
    await account.tags.remove(SID, "a", "b")
    assert [asked.fields for asked in service.asked] == [
        [("tags", "a"), ("tags", "b"), ("ttl", "3600")],
        [("tag", "a")],
        [("tags", "a,b")],
    ]
    assert {asked.path for asked in service.asked} == {f"/v1/{SID}/tags"}


@pytest.mark.parametrize("tags", [(), ("",), ("a,b",)])
async def test_what_is_no_tag_is_refused(account, service, tags):
    """A comma would make two of one."""
    with pytest.raises(UsageError):
        await account.tags.add(SID, *tags)
    with pytest.raises(UsageError):
        await account.tags.add(SID, "a", ttl=0)
    assert service.asked == []


async def test_tags_of_the_organization(account, service):
    """All of them, and who has one."""
    service.reply({"tags": ["a", "b"]}, {SID: ["a", "b"]})
    assert await account.tags.all() == ("a", "b")
    assert await account.tags.sensors("a/b") == {SID: {"a", "b"}}
    assert service.asked[1].path == f"/v1/tags/{OID}/a%2Fb"


async def test_a_command_goes_to_a_sensor_that_is_online(account, service):
    """After a look whether it is, with a key that makes repeating it safe."""
    service.route(f"GET /v1/{SID}", {"info": DOC, "online": {SID: 1}})
    service.routes[f"POST /v1/{SID}"] = [service.refusal(503), service.refusal(200)]
    sent = await account.tasks.send(SID, "os_processes", "netstat", inv_id="inc-1")
    assert (sent.online, sent.investigation_id, sent.tasks) == (True, "inc-1", ("os_processes", "netstat"))
    tries = service.asked[1:]
    assert [asked.fields for asked in tries] == [
        [("tasks", "os_processes"), ("tasks", "netstat"), ("investigation_id", "inc-1")]
    ] * 2
    assert len({asked.headers["x-idempotent-key"] for asked in tries}) == 1


async def test_a_command_to_an_offline_sensor_is_refused_with_the_way_out(account, service):
    """Nobody would hear it."""
    service.reply({"info": DOC, "online": {}})
    with pytest.raises(OfflineError, match=r"desk-1 is offline.*reliable tasking"):
        await account.tasks.send(SID, "os_processes")
    assert len(service.asked) == 1


async def test_a_command_is_sent_to_an_offline_sensor_where_that_is_wanted(account, service):
    """And the result says that it is offline, or that nobody looked."""
    service.reply({"info": DOC, "online": {}})
    assert (await account.tasks.send(SID, "os_processes", if_offline="send")).online is False
    assert (await account.tasks.send(SID, "os_processes", if_offline="unchecked", key="k1")).online is None
    assert [asked.method for asked in service.asked] == ["GET", "POST", "POST"]
    assert service.asked[2].headers["x-idempotent-key"] == "k1"


async def test_one_investigation_id_tracks_an_operation(service):
    """It is the client's; a context follows it after a slash."""
    service.reply({"info": DOC, "online": {SID: 1}})
    async with guide(service, inv_id="incident-2024-001") as account:
        await account.tasks.send(SID, "netstat")
        await account.tasks.send(SID, "netstat", context="c1")
    forms = [asked.form for asked in service.asked if asked.method == "POST"]
    assert [form["investigation_id"] for form in forms] == ["incident-2024-001", "incident-2024-001/c1"]


@pytest.mark.parametrize("tasks", [(), ("",), ("netstat", " ")])
async def test_an_empty_command_is_refused(account, service, tasks):
    """Before anything is sent."""
    with pytest.raises(UsageError, match="no command"):
        await account.tasks.send(SID, *tasks)
    assert service.asked == []


async def test_a_key_cannot_break_the_request(account, service):
    """It travels in a header."""
    with pytest.raises(UsageError, match="printable"):
        await account.tasks.send(SID, "netstat", if_offline="unchecked", key="a\r\nX: y")
    assert service.asked == []


async def test_the_paths_of_the_integration_guide(service):
    """Where they differ from those that the SDKs call."""
    service.reply({"info": DOC, "online": {SID: 1}})
    async with guide(service, paths="guide") as account:
        await account.tasks.send(SID, "netstat")
        await account.tags.add(SID, "a")
        await account.tags.remove(SID, "a")
    assert [asked.route for asked in service.asked] == [
        f"GET /v1/sensor/{OID}/{SID}",
        f"POST /v1/sensor/{OID}/{SID}/task",
        f"POST /v1/sensor/{OID}/{SID}/tag",
        f"DELETE /v1/sensor/{OID}/{SID}/tag",
    ]


async def test_a_missing_permission_is_named(account, service):
    """As LimaCharlie names it."""
    service.route(f"GET /v1/{SID}", {"info": DOC, "online": {SID: 1}})
    service.routes[f"POST /v1/{SID}"] = [service.refusal(401, "missing permission: sensor.task")]
    with pytest.raises(PermissionDeniedError, match=r"permission sensor\.task"):
        await account.tasks.send(SID, "netstat")
