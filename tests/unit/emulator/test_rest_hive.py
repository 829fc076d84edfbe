"""The hives, and the older APIs of rules."""

import base64
import gzip
import json
from urllib.parse import quote

import pytest
from yarl import URL

RULE = {
    "detect": {"event": "NEW_PROCESS", "op": "exists", "path": "event"},
    "respond": [{"action": "report", "name": "x"}],
}


def form(data: object = None, **fields: object) -> dict[str, str]:
    given = {} if data is None else {"data": json.dumps(data)}
    return given | {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}


async def test_set_and_get(emulate):
    """A record is set, got whole or without its data, listed, and deleted."""
    local = await emulate()
    base = f"/v1/hive/dr-general/{local.oid}"
    made = await local.api("POST", f"{base}/one/data", form(RULE, usr_mtd={"enabled": True, "tags": ["t"]}))
    assert (made["name"], made["hive"]) == ("one", {"name": "dr-general", "partition": local.oid})
    whole = await local.api("GET", f"{base}/one/data")
    assert (whole["data"], whole["usr_mtd"]["enabled"], whole["usr_mtd"]["tags"]) == (RULE, True, ["t"])
    assert (whole["sys_mtd"]["guid"], whole["sys_mtd"]["created_by"]) == (made["guid"], "emulated-1-key")
    assert whole["sys_mtd"]["last_mod"] > 1.7e12
    assert (await local.api("GET", f"{base}/one/mtd"))["data"] == {}
    assert await local.api("GET", base) == {"one": whole}
    assert (await local.api("GET", f"/v1/orgs/{local.oid}"))["n_rules"] == 1
    await local.api("DELETE", f"{base}/one")
    assert await local.api("GET", base) == {}


async def test_missing_record(emulate):
    """A record that is not there is a 400 with LimaCharlie's code, whatever is asked of it."""
    local = await emulate()
    record = f"/v1/hive/secret/{local.oid}/nope"
    for method, path in (
        ("GET", "/data"),
        ("GET", "/mtd"),
        ("DELETE", ""),
        ("POST", "/rename?new_name=x"),
        ("POST", "/mtd"),
    ):
        answer = await local.api(method, record + path, {"usr_mtd": "{}"}, status=400)
        assert answer["error"].startswith("lc_error_code:RECORD_NOT_FOUND - ")


async def test_etag(emulate):
    """A change with the current etag is taken once; with an old one it is a 409."""
    local = await emulate()
    record = f"/v1/hive/secret/{local.oid}/s"
    await local.api("POST", f"{record}/data", form({"secret": "1"}))
    etag = (await local.api("GET", f"{record}/data"))["sys_mtd"]["etag"]
    await local.api("POST", f"{record}/data", form({"secret": "2"}, etag=etag))
    answer = await local.api("POST", f"{record}/data", form({"secret": "3"}, etag=etag), status=409)
    assert "ETAG_MISMATCH" in answer["error"]
    assert (await local.api("GET", f"{record}/data"))["data"] == {"secret": "2"}


async def test_metadata(emulate):
    """A new record is disabled; data alone keeps its metadata, and metadata is replaced as a whole."""
    local = await emulate()
    record = f"/v1/hive/secret/{local.oid}/s"
    await local.api("POST", f"{record}/data", form({"secret": "1"}))
    assert (await local.api("GET", f"{record}/mtd"))["usr_mtd"]["enabled"] is False
    await local.api("POST", f"{record}/mtd", form(usr_mtd={"enabled": True, "comment": "c"}))
    await local.api("POST", f"{record}/data", form({"secret": "2"}))
    assert (await local.api("GET", f"{record}/mtd"))["usr_mtd"]["comment"] == "c"
    await local.api("POST", f"{record}/mtd", form(usr_mtd={"tags": ["t"]}))
    assert (await local.api("GET", f"{record}/mtd"))["usr_mtd"] == {
        "enabled": False,
        "expiry": 0,
        "tags": ["t"],
        "comment": "",
    }


@pytest.mark.parametrize("key", ["a b", "a/b", "ä%2F?#&", "x" * 300])
async def test_keys(emulate, key):
    """A key may hold any characters, percent-encoded."""
    local = await emulate()
    record = f"/v1/hive/lookup/{local.oid}/{quote(key, safe='')}"
    url = URL(local.ready["url"] + record, encoded=True)
    headers = {"Authorization": f"Bearer {await local.token()}"}
    async with local.client.post(f"{url}/data", data=form({"x": 1}), headers=headers) as response:
        made = await response.json()
    assert made["name"] == key
    assert list(await local.api("GET", f"/v1/hive/lookup/{local.oid}")) == [key]


async def test_rename(emulate):
    """A record keeps its data under another name, which must be free."""
    local = await emulate()
    base = f"/v1/hive/secret/{local.oid}"
    for name in ("a", "b"):
        await local.api("POST", f"{base}/{name}/data", form({"secret": name}))
    await local.api("POST", f"{base}/a/rename?new_name=b", status=400)
    await local.api("POST", f"{base}/a/rename?new_name=c")
    assert set(await local.api("GET", base)) == {"b", "c"}


async def test_pages(emulate):
    """With a limit a hive comes in pages in the order of names, narrowed by tag, without data if asked."""
    local = await emulate()
    base = f"/v1/hive/lookup/{local.oid}"
    for number in range(7):
        tags = {"tags": [f"even-{number}"] if number % 2 == 0 else []}
        await local.api("POST", f"{base}/r{number}/data", form({"n": number}, usr_mtd=tags))
    seen, cursor = [], ""
    while True:
        page = await local.api("GET", f"{base}?limit=3&cursor={cursor}&mtd_only=true")
        assert all(record["data"] == {} for record in page["records"].values())
        seen.append(list(page["records"]))
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert seen == [["r0", "r1", "r2"], ["r3", "r4", "r5"], ["r6"]]
    tagged = await local.api("GET", f"{base}?limit=50&tag_prefix=even")
    assert (list(tagged["records"]), tagged["next_cursor"]) == (["r0", "r2", "r4", "r6"], "")
    assert len((await local.api("GET", f"{base}?limit=50&max_bytes=1"))["records"]) == 1
    assert "INVALID_CURSOR" in (await local.api("GET", f"{base}?limit=3&cursor=_", status=400))["error"]


async def test_too_large_to_list(emulate):
    """A hive that is too large to list at once is a 413 with a code, and can be had in pages."""
    local = await emulate()
    base = f"/v1/hive/lookup/{local.oid}"
    await local.api("POST", f"{base}/r/data", form({"n": 1}))
    await local.turn("hive_limit", size=10)
    assert (await local.api("GET", base, status=413))["error_code"] == "HIVE_LISTING_TOO_LARGE"
    assert list((await local.api("GET", f"{base}?limit=5"))["records"]) == ["r"]


async def test_compressed_data(emulate):
    """Data may be sent compressed."""
    local = await emulate()
    data = base64.b64encode(gzip.compress(json.dumps({"secret": "z"}).encode())).decode()
    await local.api("POST", f"/v1/hive/secret/{local.oid}/s/data", {"gzdata": data})
    assert (await local.api("GET", f"/v1/hive/secret/{local.oid}/s/data"))["data"] == {"secret": "z"}


@pytest.mark.parametrize(
    ("hive", "data", "said"),
    [
        ("dr-general", {"detect": {}}, "INVALID_RECORD"),
        ("secret", {"password": "x"}, "INVALID_RECORD"),
        ("query", {"query": "x" * 2000}, "at most 1024"),
        ("nothing", {"x": 1}, "UNKNOWN_HIVE"),
        ("lookup", [1], "expected a JSON object"),
    ],
)
async def test_refused(emulate, hive, data, said):
    """Data that a hive does not take is refused, on validation as well."""
    local = await emulate()
    for action in ("data", "validate"):
        assert (
            said
            in (await local.api("POST", f"/v1/hive/{hive}/{local.oid}/k/{action}", form(data), status=400))["error"]
        )


async def test_validate_and_schema(emulate):
    """Validation stores nothing; the schema names what a record needs."""
    local = await emulate()
    await local.api("POST", f"/v1/hive/dr-general/{local.oid}/r/validate", form(RULE))
    assert await local.api("GET", f"/v1/hive/dr-general/{local.oid}") == {}
    assert (await local.api("GET", "/v1/hive/dr-general/schema"))["schema"]["required"] == ["detect", "respond"]
    await local.api("GET", "/v1/hive/nothing/schema", status=400)


async def test_permission(emulate):
    """A missing right is a 400 with the code UNAUTHORIZED and the right's name."""
    local = await emulate()
    await local.turn("permissions", api_key=local.api_key, permissions=["dr.list"])
    token = await local.token()
    base = f"/v1/hive/dr-general/{local.oid}"
    assert (await local.call("GET", base, token=token))[0] == 200
    status, body = await local.call("POST", f"{base}/r/data", form(RULE), token)
    assert (status, body["error"]) == (400, "lc_error_code:UNAUTHORIZED - missing permission dr.set")


async def test_batch(emulate):
    """A batch does one operation after the other, and tells each result in its place."""
    local = await emulate()
    where = {"hive": {"name": "secret", "partition": local.oid}, "name": "s"}
    operations = [
        {"set_record": {"record_id": where, "record": {"data": {"secret": "1"}, "usr_mtd": {"enabled": True}}}},
        {"get_record": {"record_id": where}},
        {"set_record_mtd": {"record_id": where, "usr_mtd": {"tags": ["t"]}}},
        {"get_record_mtd": {"record_id": where}},
        {"get_record": {"record_id": {**where, "name": "nope"}}},
        {"delete_record": {"record_id": where}},
        {"get_record": {"record_id": where}},
        {"fly": {"record_id": where}},
    ]
    fields = [("request", json.dumps(operation)) for operation in operations]
    results = (await local.api("POST", "/v1/hive", fields))["responses"]
    assert [bool(result["error"]) for result in results] == [False, False, False, False, True, False, True, True]
    assert results[1]["data"]["data"] == {"secret": "1"}
    assert results[3]["data"]["usr_mtd"]["tags"] == ["t"]
    assert "RECORD_NOT_FOUND" in results[4]["error"]


async def test_legacy_rules(emulate):
    """The older rules API works on the same records; it replaces only when told to."""
    local = await emulate()
    given = {"name": "r", "detection": json.dumps(RULE["detect"]), "response": json.dumps(RULE["respond"])}
    await local.api("POST", f"/v1/rules/{local.oid}", given)
    await local.api("POST", f"/v1/rules/{local.oid}", given, status=409)
    await local.api("POST", f"/v1/rules/{local.oid}", given | {"is_replace": "true", "is_enabled": "false"})
    row = (await local.api("GET", f"/v1/rules/{local.oid}"))["r"]
    assert (row["detect"], row["respond"], row["is_enabled"]) == (RULE["detect"], RULE["respond"], False)
    assert (await local.api("GET", f"/v1/hive/dr-general/{local.oid}/r/data"))["data"] == RULE
    assert await local.api("GET", f"/v1/rules/{local.oid}?namespace=managed") == {}
    await local.api("DELETE", f"/v1/rules/{local.oid}", {"name": "r"})
    assert await local.api("GET", f"/v1/rules/{local.oid}") == {}


async def test_legacy_false_positives(emulate):
    """False positive rules are set, listed and deleted."""
    local = await emulate()
    rule = {"op": "is", "path": "cat", "value": "x"}
    await local.api("POST", f"/v1/fp/{local.oid}", {"name": "f", "rule": json.dumps(rule), "is_replace": "false"})
    assert (await local.api("GET", f"/v1/fp/{local.oid}"))["f"]["data"] == rule
    await local.api("DELETE", f"/v1/fp/{local.oid}", {"name": "f"})
    await local.api("DELETE", f"/v1/fp/{local.oid}", {"name": "f"}, status=400)
