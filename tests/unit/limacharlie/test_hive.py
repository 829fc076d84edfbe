"""Hives, batches, and rules in both of their APIs."""

from dataclasses import replace

import orjson
import pytest

from pipeline.core.errors import NotFoundError, PermissionDeniedError, RequestRefusedError, UnavailableError, UsageError
from pipeline.limacharlie.answers import gunzip
from pipeline.limacharlie.failures import ConflictError
from pipeline.limacharlie.hive import HiveRecord

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
BASE = f"/v1/hive/dr-general/{OID}"
DATA = {"detect": {"op": "exists", "path": "event"}, "respond": [{"action": "report", "name": "x"}]}
STORED = {
    "data": DATA,
    "usr_mtd": {
        "enabled": True,
        "tags": ["a"],
        "comment": "why",
        "expiry": 1_700_000_000_000,
        "ui_actions": [{"l": 1}],
    },
    "sys_mtd": {"etag": "e1", "created_by": "me", "last_mod": 1},
}
READ = HiveRecord(
    "r 1/2",
    DATA,
    enabled=True,
    tags=("a",),
    comment="why",
    expires_at=1_700_000_000.0,
    ui_actions=({"l": 1},),
    etag="e1",
    system=STORED["sys_mtd"],
)


@pytest.fixture
def hive(account):
    return account.hive("dr-general")


@pytest.mark.parametrize("data", [DATA, orjson.dumps(DATA).decode()])
async def test_a_record_is_read_whole(hive, service, data):
    """Its data may be an object or the text of one; its name is one part of the path."""
    service.reply({**STORED, "data": data})
    assert await hive.get("r 1/2") == READ
    assert service.asked[0].path == f"{BASE}/r%201%2F2/data"


async def test_metadata_comes_without_data(hive, service):
    """The service writes an empty object there, which is not the data."""
    service.reply({**STORED, "data": {}})
    assert await hive.metadata("r 1/2") == replace(READ, data=None)
    assert service.asked[0].path == f"{BASE}/r%201%2F2/mtd"


async def test_a_record_is_written_with_all_that_is_said_of_it(hive, service):
    """Writing replaces all of it, so all of it is sent."""
    await hive.put(READ)
    form = service.asked[0].form
    assert service.asked[0].route == f"POST {BASE}/r%201%2F2/data"
    assert orjson.loads(form.pop("data")) == DATA
    assert orjson.loads(form.pop("usr_mtd")) == STORED["usr_mtd"]
    assert form == {"etag": "e1"}


async def test_without_data_only_the_metadata_is_written(hive, service):
    """On the path of its own."""
    await hive.put(HiveRecord("r", enabled=False))
    assert (service.asked[0].route, service.asked[0].form) == (f"POST {BASE}/r/mtd", {"usr_mtd": '{"enabled":false}'})


async def test_large_data_travels_compressed(hive, service):
    """A lookup may be megabytes."""
    data = {"rows": ["x" * 100] * 1000}
    await hive.put(HiveRecord("r", data))
    assert orjson.loads(await gunzip(service.asked[0].form["gzdata"], "x")) == data
    assert "data" not in service.asked[0].form


async def test_a_record_does_not_show_its_data():
    """It may be a secret."""
    assert "hunter2" not in repr(HiveRecord("r", {"secret": "hunter2"}))


async def test_a_write_with_an_etag_is_not_repeated(hive, service):
    """It would meet itself; one without is the same twice."""
    service.answers = [service.refusal(503), service.refusal(503), service.refusal(200)]
    with pytest.raises(UnavailableError):
        await hive.put(READ)
    await hive.put(replace(READ, etag=None))
    assert len(service.asked) == 3


async def test_an_update_meets_another_and_starts_over(hive, service, no_pauses):
    """It changes what is there now, with the etag of now."""
    get, post = f"GET {BASE}/r/data", f"POST {BASE}/r/data"
    other = {**STORED, "sys_mtd": {"etag": "e2"}, "usr_mtd": {"enabled": True, "tags": ["a", "b"]}}
    service.route(get, STORED, other)
    service.routes[post] = [service.refusal(400, "lc_error_code:ETAG_MISMATCH - other"), service.refusal(200)]
    written = await hive.update("r", lambda found: replace(found, enabled=False))
    assert (written.enabled, written.tags) == (False, ("a", "b"))
    forms = [asked.form for asked in service.asked if asked.method == "POST"]
    assert [form["etag"] for form in forms] == ["e1", "e2"]
    assert orjson.loads(forms[1]["usr_mtd"]) == {"enabled": False, "tags": ["a", "b"]}


@pytest.mark.parametrize("status", [400, 409])
async def test_an_update_gives_up_after_a_few_conflicts(hive, service, no_pauses, status):
    """With an error that says what happened."""
    service.route(f"GET {BASE}/r/data", STORED)
    service.routes[f"POST {BASE}/r/data"] = [service.refusal(status, "lc_error_code:ETAG_MISMATCH - other")]
    with pytest.raises(ConflictError, match="changed in the meantime"):
        await hive.update("r", lambda found: found)
    assert len(service.asked) == 10


async def test_an_update_may_leave_all_as_it_is(hive, service):
    """Then nothing is written."""
    service.reply(STORED)
    assert await hive.update("r", lambda _: None) is None
    assert [asked.method for asked in service.asked] == ["GET"]


async def test_a_missing_record_is_not_found_though_the_status_is_400(hive, service):
    """The truth is in the text."""
    service.answers = [service.refusal(400, "lc_error_code:RECORD_NOT_FOUND - no such record")]
    with pytest.raises(NotFoundError, match="no such record"):
        await hive.get("r")


async def test_a_denied_hive_is_a_permission_though_the_status_is_400(hive, service):
    """And it is named."""
    service.answers = [service.refusal(400, "lc_error_code:UNAUTHORIZED - missing permission dr.set")]
    with pytest.raises(PermissionDeniedError, match=r"Give the API key the permission dr\.set"):
        await hive.put(READ)


async def test_a_hive_is_listed_at_once(hive, service):
    """By name, with or without data."""
    service.reply({"r 1/2": STORED})
    assert await hive.list() == {"r 1/2": READ}
    assert await hive.list(metadata_only=True) == {"r 1/2": replace(READ, data=None)}
    assert [asked.query for asked in service.asked] == [{}, {"mtd_only": "true"}]


async def test_a_hive_too_large_for_one_answer_is_read_in_pages(hive, service):
    """Without the caller's doing."""
    service.answers = [service.refusal(413, "lc_error_code:HIVE_LISTING_TOO_LARGE - use limit")]
    with pytest.raises(RequestRefusedError):
        await hive.list()
    pages = [{"records": {"a": STORED}, "next_cursor": "c"}, {"records": {"b": STORED}, "next_cursor": ""}]
    service.reply(*pages)
    service.answers.insert(0, service.refusal(413, "lc_error_code:HIVE_LISTING_TOO_LARGE - use limit"))
    assert set(await hive.list()) == {"a", "b"}
    assert [asked.query.get("cursor") for asked in service.asked[-2:]] == [None, "c"]


@pytest.mark.parametrize(
    ("answers", "names"),
    [
        ([{"records": {"a": STORED}, "next_cursor": "c"}, {"records": None, "next_cursor": None}], ["a"]),
        ([{"records": {"a": STORED}}], ["a"]),
        ([{"a": STORED, "next_cursor": STORED}], ["a", "next_cursor"]),
        ([{"records": STORED}], ["records"]),
        ([{}], []),
    ],
)
async def test_pages_and_plain_tables_are_told_apart(hive, service, answers, names):
    """A service that knows no pages answers with a table, in which a record may have any name."""
    service.reply(*answers)
    assert [name async for name, _ in hive.walk(page_size=2)] == names


async def test_a_walk_by_tag_holds_where_the_service_does_not_know_it(hive, service):
    """What has another tag is left out here."""
    service.reply({"a": STORED, "b": {**STORED, "usr_mtd": {"tags": ["x"]}}, "c": {**STORED, "usr_mtd": {}}})
    assert [name async for name, _ in hive.walk(tag_prefix="x")] == ["b"]
    assert service.asked[0].query == {"limit": "500", "tag_prefix": "x"}


async def test_a_walk_that_does_not_lead_on_is_an_error(hive, service):
    """Else it would not end."""
    service.reply({"records": {}, "next_cursor": "c"})
    with pytest.raises(UnavailableError, match="do not lead on"):
        async for _ in hive.walk():
            pass


async def test_records_are_checked_renamed_removed_and_described(hive, service):
    """Each on its path."""
    service.reply({}, {}, {}, {"schema": {"type": "object"}})
    await hive.validate(HiveRecord("r", DATA))
    await hive.rename("r", "new name")
    await hive.delete("r")
    assert await hive.schema() == {"type": "object"}
    assert [asked.route for asked in service.asked] == [
        f"POST {BASE}/r/validate",
        f"POST {BASE}/r/rename",
        f"DELETE {BASE}/r",
        "GET /v1/hive/dr-general/schema",
    ]
    assert service.asked[1].query == {"new_name": "new name"}


@pytest.mark.parametrize("name", ["", "..", "."])
async def test_a_record_cannot_be_named_like_a_step_in_a_path(hive, service, name):
    """`..` would lead to another hive's path."""
    for call in (hive.get, hive.delete, hive.metadata):
        with pytest.raises(UsageError):
            await call(name)
    with pytest.raises(UsageError):
        await hive.rename("r", name)
    assert service.asked == []


async def test_a_batch_answers_each_operation(account, service):
    """In order, each with what was read or why it failed."""
    batch = account.hive_batch()
    batch.get("dr-general", "r 1/2")
    batch.metadata("secret", "s")
    batch.put("dr-general", READ)
    batch.put("dr-general", HiveRecord("m", enabled=True))
    batch.delete("fp", "gone")
    service.reply(
        {
            "responses": [
                {"data": STORED, "error": ""},
                {"data": {**STORED, "data": {}}},
                {"data": {"guid": "g"}},
                {"data": None, "error": "lc_error_code:ETAG_MISMATCH - other"},
                {"error": "lc_error_code:RECORD_NOT_FOUND - gone"},
            ]
        }
    )
    answers = await batch.run()
    assert answers[0].record == READ
    assert answers[1].record.data is None
    assert [answer.error and type(answer.error) for answer in answers] == [
        None,
        None,
        None,
        ConflictError,
        NotFoundError,
    ]
    requests = [orjson.loads(text) for key, text in service.asked[0].fields if key == "request"]
    assert service.asked[0].route == "POST /v1/hive"
    assert [next(iter(request)) for request in requests] == [
        "get_record",
        "get_record_mtd",
        "set_record",
        "set_record_mtd",
        "delete_record",
    ]
    assert requests[0]["get_record"]["record_id"]["hive"] == {"name": "dr-general", "partition": OID}
    assert requests[2]["set_record"]["record"] == {
        "data": DATA,
        "usr_mtd": STORED["usr_mtd"],
        "sys_mtd": {"etag": "e1"},
    }


async def test_a_batch_without_an_answer_for_each_is_a_failure(account, service):
    """One cannot know which is missing."""
    batch = account.hive_batch()
    assert await batch.run() == []
    batch.get("fp", "a")
    service.reply({"responses": []})
    with pytest.raises(UnavailableError, match="each operation"):
        await batch.run()


async def test_rules_live_in_hives(account, service):
    """One hive for each namespace; switching one on or off leaves the rest of it."""
    service.reply({"r 1/2": STORED})
    assert await account.rules.list() == {"r 1/2": READ}
    service.reply(STORED)
    assert await account.rules.get("r 1/2", "managed") == READ
    service.reply({}, STORED, {})
    await account.rules.put("r", DATA["detect"], DATA["respond"], tests={"match": []}, tags=["t"])
    await account.rules.enable("r", False)
    assert [asked.route for asked in service.asked] == [
        f"GET {BASE}",
        f"GET /v1/hive/dr-managed/{OID}/r%201%2F2/data",
        f"POST {BASE}/r/data",
        f"GET {BASE}/r/data",
        f"POST {BASE}/r/data",
    ]
    assert orjson.loads(service.asked[2].form["data"]) == {**DATA, "tests": {"match": []}}
    assert orjson.loads(service.asked[2].form["usr_mtd"]) == {"enabled": True, "tags": ["t"]}
    assert orjson.loads(service.asked[4].form["usr_mtd"]) == {**STORED["usr_mtd"], "enabled": False}
    await account.rules.false_positives.delete("f")
    assert service.asked[5].route == f"DELETE /v1/hive/fp/{OID}/f"


async def test_a_rule_without_a_response_is_refused(account, service):
    """It would do nothing."""
    with pytest.raises(UsageError):
        await account.rules.put("r", DATA["detect"], [])
    assert service.asked == []


async def test_rules_by_the_old_api(account, service):
    """Forms with JSON in them; a time in milliseconds."""
    service.reply({"r": {"detect": {}}, "x": 1}, {}, {})
    assert await account.legacy_rules.list("managed") == {"r": {"detect": {}}}
    await account.legacy_rules.put("r", DATA["detect"], DATA["respond"], replace=True, expires_at=1_700_000_000)
    await account.legacy_rules.delete("r", "managed")
    assert service.asked[0].path == f"/v1/rules/{OID}?namespace=managed"
    form = service.asked[1].form
    assert orjson.loads(form.pop("detection")) == DATA["detect"]
    assert orjson.loads(form.pop("response")) == DATA["respond"]
    assert form == {"name": "r", "is_replace": "true", "is_enabled": "true", "expire_on": "1700000000000"}
    assert (service.asked[2].route, service.asked[2].form) == (
        f"DELETE /v1/rules/{OID}",
        {"name": "r", "namespace": "managed"},
    )


async def test_false_positives_by_the_old_api(account, service):
    """One rule over the detection."""
    service.reply({"f": {"data": {}}}, {}, {})
    assert await account.legacy_false_positives.list() == {"f": {"data": {}}}
    await account.legacy_false_positives.put("f", DATA["detect"])
    await account.legacy_false_positives.delete("f")
    form = service.asked[1].form
    assert orjson.loads(form.pop("rule")) == DATA["detect"]
    assert form == {"name": "f", "is_replace": "false"}
    assert service.asked[2].route == f"DELETE /v1/fp/{OID}"
