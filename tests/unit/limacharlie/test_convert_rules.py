"""Rules for the old service become rules for the extension; the old tool's bugs each have a test that ours does right."""

import pytest

from pipeline.core.errors import UsageError
from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.convert_rules import find, write
from pipeline.limacharlie.extensions import NotSubscribedError
from pipeline.limacharlie.failures import ConflictError
from pipeline.limacharlie.hive import HiveRecord

DETECT = {"op": "exists", "path": "event"}
REPORT = {"action": "report", "name": "r"}


def service(name="reliable-tasking", **request):
    return {"action": "service request", "name": name, "request": request}


def extension(action, **request):
    return {
        "action": "extension request",
        "extension name": "ext-reliable-tasking",
        "extension action": action,
        "extension request": request,
    }


@pytest.fixture
async def account():
    emulator = Emulator(Settings(port=0, rate=0, events=0))
    await emulator.start()
    ready = emulator.ready()
    section = LimaCharlieConfig(oid=ready["oid"], api_key=ready["api_key"], url=ready["url"])
    try:
        async with LimaCharlie(section, environ={}) as account:
            await account.extensions.subscribe("ext-reliable-tasking")
            yield account
    finally:
        await emulator.stop()


async def put(account, name, *respond, hive="dr-general", detect=DETECT, rest=None, **said):
    data = {"detect": detect, "respond": list(respond), **(rest or {})}
    await account.hive(hive).put(HiveRecord(name, data, **{"enabled": True, **said}))


async def converted(account, *respond):
    """Make it a rule, and give the new responses or the problem."""
    await put(account, "x", *respond)
    (found,) = await find(account)
    return found.problem or found.data["respond"]


async def test_the_command_is_kept(account):
    """The old tool dropped it."""
    assert await converted(account, service(action="task", task="os_version", tag="a")) == [
        extension("task", task='{{ "os_version" }}', tag='{{ "a" }}')
    ]


async def test_values_are_kept(account):
    """The old tool wrote the names of the fields instead of tag, selector, context and task id."""
    given = {"tag": "t", "selector": "plat == windows", "context": 'a "b" ü', "task_id": "7", "ttl": 60}
    (response,) = await converted(account, service(action="task", task="x", **given))
    assert response["extension request"] == {
        "task": '{{ "x" }}',
        "tag": '{{ "t" }}',
        "selector": '{{ "plat == windows" }}',
        "context": '{{ "a \\"b\\" ü" }}',
        "task_id": '{{ "7" }}',
        "ttl": 60,
    }


@pytest.mark.parametrize("action", ["untask", "list"])
async def test_fields_may_be_absent(account, action):
    """The old tool failed without sid or ttl."""
    assert await converted(account, service(action=action, tag=None)) == [extension(action)]


@pytest.mark.parametrize(
    ("value", "template"),
    [
        ("<<routing/sid>>", "{{ .routing.sid }}"),
        ("<</routing/sid>>", "{{ .routing.sid }}"),
        ("<<event/a b>>", '{{ index . "event" "a b" }}'),
        ("file_get <<event/FILE_PATH>>", "file_get {{ .event.FILE_PATH }}"),
        ("a{<<event/X>>/<<event/Y>>", '{{ "a{" }}{{ .event.X }}/{{ .event.Y }}'),
        ("{{ .routing.sid }}", "{{ .routing.sid }}"),
    ],
)
async def test_templates_have_their_dot(account, value, template):
    """The old tool left it out, and knew nothing but one path alone."""
    (response,) = await converted(account, service(action="task", task=value))
    assert response["extension request"]["task"] == template


async def test_other_responses_stay(account):
    """The old tool converted requests to other services, too."""
    others = [REPORT, service("dumper", sid="<<routing/sid>>")]
    suppressed = {**service(action="list"), "suppression": {"max_count": 1}}
    assert await converted(account, *others, suppressed) == [
        *others,
        {**extension("list"), "suppression": {"max_count": 1}},
    ]


async def test_rules_that_do_not_ask_the_service_are_not_found(account):
    """Nothing would change."""
    await put(account, "a", REPORT, service("dumper", sid="x"))
    assert await find(account) == []


async def test_all_rules_are_found_and_written(account):
    """The old tool ended after the first, and let one hide another of its name in the other hive."""
    for hive in ("dr-general", "dr-managed"):
        for name in ("a", "b"):
            await put(account, name, service(action="list"), hive=hive)
    found = await find(account)
    assert [(each.hive, each.record.name) for each in found] == [
        ("dr-general", "a"),
        ("dr-general", "b"),
        ("dr-managed", "a"),
        ("dr-managed", "b"),
    ]
    assert [each.changes for each in found] == [((service(action="list"), extension("list")),)] * 4
    for each in found:
        await write(account, each)
    assert await find(account) == []


async def test_the_rest_of_a_rule_is_kept(account):
    """The old tool lost tests, tags, comment and whether it is enabled."""
    said = {"tags": ("t",), "comment": "c", "enabled": False, "expires_at": 4_000_000_000.0}
    await put(account, "a", service(action="list"), rest={"tests": {"match": [[{}]]}}, **said)
    (found,) = await find(account)
    await write(account, found)
    record = await account.hive("dr-general").get("a")
    assert record.data == {"detect": DETECT, "respond": [extension("list")], "tests": {"match": [[{}]]}}
    assert {key: getattr(record, key) for key in said} == said


async def test_a_rule_that_somebody_changed_is_not_overwritten(account):
    """The old tool sent no etag."""
    await put(account, "a", service(action="list"))
    (found,) = await find(account)
    await put(account, "a", REPORT)
    with pytest.raises(ConflictError):
        await write(account, found)
    assert (await account.hive("dr-general").get("a")).data["respond"] == [REPORT]


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({"action": "explode"}, "no action 'explode'"),
        ({"action": ["task"]}, "no action"),
        ({"action": "task", "sid": "x"}, "has no task"),
        ({"action": "list", "colour": "x"}, "takes no colour"),
        ({"action": "task", "task": ["x"]}, "a text or a number"),
        ({"action": "task", "task": "<<event/*/x>>"}, "no path to one value"),
        ({"action": "task", "task": "<<event/x>> {{ .y }}"}, "both forms"),
    ],
)
async def test_what_has_no_counterpart_is_told(account, request_, problem):
    """The old tool would save an error as the rule; ours has nothing to write then."""
    await put(account, "a", service(action="list"), service(**request_))
    (found,) = await find(account)
    assert problem in found.problem
    assert (found.data, found.changes) == (None, ())
    with pytest.raises(UsageError):
        await write(account, found)


async def test_the_service_s_name_for_the_context_is_known(account):
    """It was the investigation's id."""
    (response,) = await converted(account, service(action="task", task="x", inv_id="i"))
    assert response["extension request"]["context"] == '{{ "i" }}'


async def test_the_extension_must_be_there(account):
    """Else nobody would hear what the converted rules ask."""
    await account.extensions.unsubscribe("ext-reliable-tasking")
    with pytest.raises(NotSubscribedError, match="not subscribed"):
        await find(account)
