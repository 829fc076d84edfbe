"""Whatever JSON LimaCharlie answers, each call gives a result or an error of the product's, and ends."""

import asyncio

import orjson
import pytest

from pipeline.core.errors import PipelineError
from pipeline.limacharlie.hive import HiveRecord
from pipeline.limacharlie.outputs import Output
from pipeline.limacharlie.search import SavedQuery

SID = "9cbed57a-6d6a-4af0-b881-803a99b177d9"
OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
RULE = {"detect": {"op": "exists", "path": "event"}, "respond": [{"action": "report", "name": "x"}]}
KEYS = (
    "sensors", "continuation_token", "info", "online", "is_online", "count", "sid", "tags", "events", "detects", "artifacts",
    "logs", "next_cursor", "records", "data", "usr_mtd", "sys_mtd", "guid", "users", "user_permissions", "permissions", "api_keys",
    "api_key", "key_hash", "iid", "keys", "url", "urls", "ident", "perms", "user_perms", "oid", "name", "errors", "subscriptions",
    "schema", "error", "retriable", "task_id", "total_sensors", "deleted", "tasks", "queryId", "results", "completed", "stats",
    "estimatedPrice", "queries", "truncated", "did_match", "traces", "payload", "export", "responses", "query", "jwt", OID, SID,
)  # fmt: skip
"""What our client looks for in an answer."""

VALUES = (
    None, True, 0, -1, 1e308, "", "x", "AAAA", [], [None], [1, "x"], [[]], [{}], [{"sid": 1, "data": 1, "payload_id": []}], {},
    {"a": 1}, {"a": []}, {"a": {"b": 1}}, {"x": {"data": 1, "usr_mtd": 2, "sys_mtd": 3}}, {SID: {"x": {"command": 1}}},
    {"x": {"data": "{", "usr_mtd": {"tags": 1, "expiry": "x", "enabled": 2}, "sys_mtd": {"etag": 1}}},
)  # fmt: skip
WHOLE = (None, 1, "x", [], [1], [{}], {}, {"a": None}, {"next_cursor": 1})


async def drain(walk):
    return [each async for each in walk]


async def search(account):
    async with account.search.run("* | * | / exists") as found:
        return await drain(found.rows())


CALLS = {
    "who": lambda a: a.organization.who(),
    "info": lambda a: a.organization.info(),
    "usage": lambda a: a.organization.usage(),
    "errors": lambda a: a.errors.list(),
    "users": lambda a: a.users.list(),
    "permissions": lambda a: a.users.permissions(),
    "role": lambda a: a.users.set_role("a@x", "Viewer"),
    "invite": lambda a: a.users.invite("a@x"),
    "keys": lambda a: a.api_keys.list(),
    "new key": lambda a: a.api_keys.create("k", ["dr.list"]),
    "installation keys": lambda a: a.installation_keys.list(),
    "installation key": lambda a: a.installation_keys.get(SID),
    "new installation key": lambda a: a.installation_keys.create("d"),
    "ingestion keys": lambda a: a.ingestion_keys.list(),
    "new ingestion key": lambda a: a.ingestion_keys.create("k"),
    "sensors": lambda a: drain(a.sensors.list()),
    "sensor": lambda a: a.sensors.get(SID),
    "online": lambda a: a.sensors.online([SID]),
    "online count": lambda a: a.sensors.online_count(),
    "hostname": lambda a: a.sensors.by_hostname("d"),
    "tags": lambda a: a.tags.of(SID),
    "all tags": lambda a: a.tags.all(),
    "tagged": lambda a: a.tags.sensors("t"),
    "task": lambda a: a.tasks.send(SID, "os_version"),
    "events": lambda a: drain(a.history.events(SID)),
    "detections": lambda a: drain(a.history.detections()),
    "detection": lambda a: a.history.detection("d"),
    "audit": lambda a: drain(a.history.audit()),
    "rules": lambda a: a.rules.list(),
    "rule": lambda a: a.rules.get("r"),
    "enable": lambda a: a.rules.enable("r"),
    "legacy rules": lambda a: a.legacy_rules.list(),
    "legacy false positives": lambda a: a.legacy_false_positives.list(),
    "hive": lambda a: a.hive("lookup").list(),
    "hive pages": lambda a: drain(a.hive("lookup").walk()),
    "hive metadata": lambda a: a.hive("lookup").metadata("m"),
    "hive put": lambda a: a.hive("lookup").put(HiveRecord("m", {"a": 1})),
    "hive validate": lambda a: a.hive("lookup").validate(HiveRecord("m", {"a": 1})),
    "hive schema": lambda a: a.hive("lookup").schema(),
    "artifacts": lambda a: drain(a.artifacts.list()),
    "artifact": lambda a: a.artifacts.read("x"),
    "artifact rules": lambda a: a.artifacts.rules(),
    "outputs": lambda a: a.outputs.list(),
    "output": lambda a: a.outputs.put(Output("o", "s3", "event")),
    "subscriptions": lambda a: a.extensions.subscriptions(),
    "extension schema": lambda a: a.extensions.schema("e"),
    "extension": lambda a: a.extensions.request("e", "x"),
    "reliable task": lambda a: a.reliable_tasking.task("os_version", sid=SID),
    "reliable tasks": lambda a: a.reliable_tasking.list(),
    "untask": lambda a: a.reliable_tasking.untask(sid=SID),
    "replay": lambda a: a.replay.events(RULE, [{}]),
    "validate query": lambda a: a.search.validate("* | * | / exists"),
    "search": search,
    "saved query": lambda a: a.search.saved("q"),
    "saved queries": lambda a: a.search.all_saved(),
    "save": lambda a: a.search.save(SavedQuery("q", "* | * | / exists")),
    "open queries": lambda a: drain(a.search.open_queries()),
    "search limits": lambda a: a.search.limits(),
}


async def batch(account):
    whole = account.hive_batch()
    whole.get("lookup", "a")
    whole.put("lookup", HiveRecord("b", {"a": 1}))
    return await whole.run()


CALLS["batch"] = batch


@pytest.mark.parametrize("name", CALLS)
async def test_any_answer(account, service, no_pauses, monkeypatch, name):
    """Each key that is looked for holds each kind of value, or the whole is something else."""
    # or a search waits for its next page, which never comes, between two looks
    monkeypatch.setattr("pipeline.limacharlie.search_run._POLL", (0.0, 0.0))
    monkeypatch.setattr("pipeline.limacharlie.search_run.PAGE_TIME", 0.01)
    # what stops a call early must not hide what comes after it
    calm = {"error": None, "next_cursor": ""}
    documents = [*WHOLE, *(dict.fromkeys(KEYS, value) for value in VALUES[1:6])]
    documents += [dict.fromkeys(KEYS, value) | calm for value in VALUES]
    address = f"GET /v1/orgs/{OID}/url"
    for document in documents:
        service.reply(document)
        service.route(address, {"url": {"search": service.url, "replay": service.url}})
        try:
            async with asyncio.timeout(5):
                await CALLS[name](account)
        except PipelineError:
            pass
        except TimeoutError:
            pytest.fail(f"does not end: {orjson.dumps(document)[:200]!r}")
