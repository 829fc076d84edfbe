"""Extensions, and reliable tasking, which is one."""

import orjson
import pytest

from pipeline.core.errors import PermissionDeniedError, RequestRefusedError, UnavailableError, UsageError
from pipeline.limacharlie.answers import gunzip
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.extensions import NotSubscribedError

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
SID = "9cbed57a-6d6a-4af0-b881-803a99b177d9"
OTHER = "00000000-0000-4000-8000-000000000000"
PATH = "/v1/extension/request/ext-reliable-tasking"


def sent(asked):
    """The data of a request."""
    return orjson.loads(asked.form["data"])


@pytest.mark.parametrize(
    "answer",
    [{"ext-a": {}, "ext-b": {}}, {"subscriptions": ["ext-a", "ext-b"]}, {"subscriptions": {"ext-a": 1, "ext-b": 1}}],
)
async def test_subscriptions_in_each_shape(account, service, answer):
    """Names are what counts."""
    service.reply(answer)
    assert await account.extensions.subscriptions() == {"ext-a", "ext-b"}


async def test_subscribing_and_its_end(account, service):
    """Both may be repeated."""
    service.answers = [service.refusal(503), service.refusal(200)]
    await account.extensions.subscribe("ext-a")
    await account.extensions.unsubscribe("ext-a")
    path = f"/v1/orgs/{OID}/subscription/extension/ext-a"
    assert [asked.route for asked in service.asked] == [f"POST {path}", f"POST {path}", f"DELETE {path}"]


async def test_a_schema(account, service):
    """For the organization."""
    service.reply({"schema": {}})
    assert await account.extensions.schema("ext-a") == {"schema": {}}
    assert service.asked[0].path == f"/v1/extension/schema/ext-a?oid={OID}"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"data": {"x": 1}, "error": "", "version": 1}, {"x": 1}),
        ({"data": {"x": 1}}, {"x": 1}),
        ({"x": 1}, {"x": 1}),
        ({"data": 1, "x": 1}, {"data": 1, "x": 1}),
        ([1], [1]),
        ({}, {}),
    ],
)
async def test_answers_with_and_without_an_envelope(account, service, answer, expected):
    """The documentation shows the inner part, the wire has both."""
    service.reply(answer)
    assert await account.extensions.request("ext-a", "do", {"a": 1}) == expected
    assert service.asked[0].form == {"oid": OID, "action": "do", "data": '{"a":1}'}


@pytest.mark.parametrize(("compressed", "data"), [(True, {"a": 1}), (None, {"a": "x" * 20_000})])
async def test_data_travels_compressed_where_wanted_or_large(account, service, compressed, data):
    """In the other field."""
    await account.extensions.request("ext-a", "do", data, compressed=compressed)
    assert orjson.loads(await gunzip(service.asked[0].form["gzdata"], "x")) == data


@pytest.mark.parametrize(
    ("retriable", "kind"),
    [({}, UnavailableError), ({"retriable": True}, UnavailableError), ({"retriable": False}, RequestRefusedError)],
)
async def test_an_error_inside_of_a_success(account, service, retriable, kind):
    """An extension says whether trying again helps; silence means that it does."""
    service.reply({"error": "it broke", "data": None, **retriable})
    with pytest.raises(kind, match="it broke"):
        await account.extensions.request("ext-a", "do")


async def test_a_missing_subscription_is_explained(account, service):
    """A 403 alone would send one after permissions."""
    service.answers = [service.refusal(403, "forbidden")]
    with pytest.raises(NotSubscribedError, match=r"ext-reliable-tasking.*not subscribed.*extensions\.subscribe"):
        await account.reliable_tasking.list()
    assert len(service.asked) == 1


async def test_a_403_that_names_a_permission_is_one(account, service):
    """Then that is what is missing."""
    service.answers = [service.refusal(403, "missing permission: ext.request")]
    with pytest.raises(PermissionDeniedError, match=r"permission ext\.request") as caught:
        await account.extensions.request("ext-a", "do")
    assert not isinstance(caught.value, NotSubscribedError)


async def test_impersonation_hands_over_the_token_and_shows_it_nowhere(account, service):
    """Not even where the extension repeats it."""
    service.answers = [lambda asked: service.refusal(400, f"bad {asked.form['impersonator_jwt']}")(asked)]
    with pytest.raises(RequestRefusedError) as caught:
        await account.extensions.request("ext-a", "do", impersonate=True)
    assert service.asked[0].form["impersonator_jwt"] == service.asked[0].token
    assert service.asked[0].token not in str(caught.value)


@pytest.mark.parametrize("envelope", [True, False])
async def test_a_command_waits_for_its_sensors(account, service, envelope):
    """With what LimaCharlie counted."""
    answer = {"task_id": "t1", "total_sensors": 3, "tasked_sensors": 2, "queued_sensors": 1}
    service.reply({"data": answer, "version": 1} if envelope else answer)
    found = await account.reliable_tasking.task(
        "run --shell-command whoami", selector="plat==windows", context="version", ttl=3600
    )
    assert (found.task_id, found.total, found.tasked, found.queued, found.context) == ("t1", 3, 2, 1, "version")
    assert service.asked[0].route == f"POST {PATH}"
    assert service.asked[0].form.keys() == {"oid", "action", "data"}
    assert sent(service.asked[0]) == {
        "task": "run --shell-command whoami",
        "selector": "plat==windows",
        "context": "version",
        "ttl": 3600,
    }


@pytest.mark.parametrize(
    ("target", "selector"),
    [
        ({"sid": SID}, f"sid == `{SID}`"),
        ({"tag": "vip"}, "`vip` in tags"),
        ({"everywhere": True}, "*"),
        ({"selector": "*"}, "*"),
    ],
)
async def test_each_target_is_a_selector(account, service, target, selector):
    """The one word that both versions of the extension know: an unknown one would mean all sensors."""
    service.reply({"task_id": "t1"}, {"deleted": 4})
    found = await account.reliable_tasking.task("os_version", **target)
    assert (found.selector, found.total) == (selector, None)
    assert await account.reliable_tasking.untask(**target, task_id="t1") == 4
    assert sent(service.asked[0]) == {"task": "os_version", "selector": selector}
    assert sent(service.asked[1]) == {"selector": selector, "task_id": "t1"}


@pytest.mark.parametrize(
    "target",
    [{}, {"selector": ""}, {"tag": " "}, {"sid": "x"}, {"sid": SID, "tag": "a"}, {"selector": "*", "everywhere": True}],
)
async def test_a_target_that_is_not_exactly_one_is_refused(account, service, target):
    """Nobody reaches all sensors by leaving something out."""
    with pytest.raises(UsageError):
        await account.reliable_tasking.task("os_version", **target)
    with pytest.raises(UsageError):
        await account.reliable_tasking.untask(**target)
    assert service.asked == []


@pytest.mark.parametrize("ttl", [0, -5, 1e12, float("nan")])
async def test_a_senseless_ttl_is_refused(account, service, ttl):
    """As is an empty command."""
    with pytest.raises(UsageError):
        await account.reliable_tasking.task("os_version", sid=SID, ttl=ttl)
    with pytest.raises(UsageError):
        await account.reliable_tasking.task(" ", sid=SID)
    assert service.asked == []


async def test_a_command_is_not_given_twice(account, service):
    """A failure may have come too late to stop it."""
    service.answers = [service.refusal(504)]
    with pytest.raises(UnavailableError):
        await account.reliable_tasking.task("os_version", sid=SID)
    assert len(service.asked) == 1


async def test_the_clients_investigation_is_the_context(service):
    """Unless another is given."""
    section = LimaCharlieConfig(oid=OID, api_key="k", url=service.url)
    service.reply({"task_id": "t"})
    async with LimaCharlie(section, environ={}, inv_id="inc-1") as account:
        await account.reliable_tasking.task("os_version", sid=SID)
        await account.reliable_tasking.task("os_version", sid=SID, context="c")
    assert [sent(asked)["context"] for asked in service.asked] == ["inc-1", "c"]


async def test_commands_are_listed_by_sensor(account, service):
    """As the present extension does: by sensor, then by id."""
    task = {"command": "os_version", "context": "c", "expiry": 1_700_000_000}
    service.reply({"data": {SID: {"t1": task, "t2": {**task, "context": "d"}}, OTHER: {"t1": task}}})
    found = await account.reliable_tasking.list()
    assert [(each.sid, each.task_id, each.context) for each in found] == [
        (SID, "t1", "c"),
        (SID, "t2", "d"),
        (OTHER, "t1", "c"),
    ]
    assert (found[0].command, found[0].expires_at) == ("os_version", 1_700_000_000.0)
    assert sent(service.asked[0]) == {"selector": "*"}
    assert [each.sid for each in await account.reliable_tasking.list(context="c", sid=SID)] == [SID]
    assert sent(service.asked[1]) == {"selector": f"sid == `{SID}`"}


@pytest.mark.parametrize("shape", ["list", "table", "tasks"])
async def test_commands_are_listed_with_their_selectors(account, service, shape):
    """As the older extension does, which gives everything whatever is asked; here what was not asked for is left out."""
    tasks = [
        {"task_id": "t1", "task": "os_version", "sensor_selector": f"sid=='{SID}'"},
        {"task_id": "t2", "task": "netstat", "sensor_selector": "plat==windows"},
        {"task_id": "t3", "task": "netstat"},
    ]
    table = {task["task_id"]: task for task in tasks}
    service.reply({"list": tasks, "table": table, "tasks": {"tasks": tasks}}[shape])
    listed = account.reliable_tasking.list
    assert [each.task_id for each in await listed()] == ["t1", "t2", "t3"]
    assert [each.task_id for each in await listed(sid=SID)] == ["t1", "t3"]
    assert [each.task_id for each in await listed(selector="plat == windows")] == ["t2", "t3"]
