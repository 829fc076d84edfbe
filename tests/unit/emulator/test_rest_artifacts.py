"""Artifacts and payloads."""

import base64
import gzip
import json

import pytest


def basic(oid: str, key: str) -> str:
    return "Basic " + base64.b64encode(f"{oid}:{key}".encode()).decode()


async def upload(local, data: bytes, *, status: int = 200, key: str = "", **headers: str):
    sent = {"Authorization": basic(local.oid, key or local.ready["ingestion_key"]), **headers}
    # as the official client: the bytes are declared to be a form
    sent["Content-Type"] = "application/x-www-form-urlencoded"
    return await local.api("POST", "/ingest", data, status=status, headers=sent)


async def original(local, name: str) -> bytes:
    answer = await local.api("POST", f"/v1/insight/{local.oid}/artifacts/originals/{name}")
    return gzip.decompress(base64.b64decode(answer["payload"]))


async def test_upload(emulate):
    """An artifact in one piece is listed with what its headers say, and comes back byte for byte."""
    local = await emulate()
    data = bytes(range(256)) * 10
    path = base64.b64encode(b"/var/log/x").decode()
    headers = {"lc-source": "web-1", "lc-hint": "text", "lc-path": path, "lc-retention-days": "7"}
    name = (await upload(local, data, **headers))["payload"]
    [row] = (await local.api("GET", f"/v1/insight/{local.oid}/artifacts?start=0&end=9999999999"))["artifacts"]
    assert (row["payload_id"], row["source"], row["path"], row["size"], row["retention"]) == (
        name,
        "web-1",
        "/var/log/x",
        2560,
        7,
    )
    assert await original(local, name) == data
    assert (await local.api("GET", f"/v1/insight/{local.oid}/artifacts?sid=other"))["artifacts"] == []


@pytest.mark.parametrize("order", [(0, 1, 2, "done"), (2, 0, 1, "done"), (0, 2, "done", 1)])
async def test_parts(emulate, order):
    """Parts are put together by their numbers, in whatever order they come, and nothing shows before all are there."""
    local = await emulate()
    parts = {0: b"a" * 10, 1: b"b" * 10, 2: b"c" * 10, "done": b"d"}
    for number, part in enumerate(order, 1):
        await upload(local, parts[part], **{"lc-payload-id": "p", "lc-part": str(part)})
        listed = (await local.api("GET", f"/v1/insight/{local.oid}/artifacts"))["artifacts"]
        assert bool(listed) == (number == 4)
    assert await original(local, "p") == b"".join(parts.values())


@pytest.mark.parametrize("headers", [{"lc-part": "first"}, {"lc-path": "!"}])
async def test_upload_refused(emulate, headers):
    """A part that is neither a number nor done, and a path that is not base64, are refused."""
    local = await emulate()
    await upload(local, b"x", status=400, **headers)


async def test_wrong_ingestion_key(emulate):
    """An upload needs an ingestion key of the organization: a new one works, a deleted one does not."""
    local = await emulate()
    await upload(local, b"x", status=401, key="wrong")
    keys = f"/v1/insight/{local.oid}/ingestion_keys"
    key = (await local.api("POST", keys, {"name": "mine"}))["value"]
    await upload(local, b"x", key=key)
    assert "mine" in (await local.api("GET", keys))["keys"]
    await local.api("DELETE", f"{keys}?name=mine")
    await upload(local, b"x", status=401, key=key)


async def test_export(emulate):
    """A large original is exported: its address answers 404 until it is there, then with the bytes."""
    local = await emulate()
    await local.turn("artifacts", inline=10, export_delay=0.2)
    name = (await upload(local, b"x" * 100))["payload"]
    url = (await local.api("POST", f"/v1/insight/{local.oid}/artifacts/originals/{name}"))["export"]
    path = url.removeprefix(local.ready["url"])
    await local.api("GET", path, status=404)

    async def there() -> bool:
        async with local.client.get(url) as response:
            return response.status == 200 and await response.read() == b"x" * 100

    await local.until(there)
    await local.api("POST", f"/v1/insight/{local.oid}/artifacts/originals/nope", status=404)


async def test_guide_paths(emulate):
    """The paths of a guide take and give artifacts too."""
    local = await emulate()
    headers = {"Content-Type": "application/octet-stream"}
    name = (await local.api("POST", f"/v1/artifacts/{local.oid}", b"hello", headers=headers))["payload"]
    assert await local.api("GET", f"/v1/artifacts/{local.oid}/{name}") == b"hello"


async def test_rules(emulate):
    """Collection rules are set by JSON, listed, and deleted by a form."""
    local = await emulate()
    path = f"/v1/insight/{local.oid}/artifacts/rules"
    rule = {
        "name": "r",
        "platforms": ["linux"],
        "patterns": ["/var/log/*"],
        "is_delete_after": False,
        "days_retention": 3,
    }
    await local.api("POST", path, json=rule)
    row = (await local.api("GET", path))["r"]
    assert (row["patterns"], row["days_retention"], row["filters"]["platforms"]) == (["/var/log/*"], 3, ["linux"])
    await local.api("DELETE", path, {"name": "r"})
    await local.api("DELETE", path, {"name": "r"}, status=404)


async def test_payloads(emulate):
    """A payload is put to an address that is good for it, listed, fetched and deleted."""
    local = await emulate()
    path = f"/v1/payload/{local.oid}/tool.exe"
    put = (await local.api("POST", path))["put_url"].removeprefix(local.ready["url"])
    await local.api("PUT", put, b"MZ")
    row = (await local.api("GET", f"/v1/payload/{local.oid}"))["payloads"]["tool.exe"]
    assert (row["size"], row["by"]) == (2, "emulated-1-key")
    get = (await local.api("GET", path))["get_url"].removeprefix(local.ready["url"])
    assert await local.api("GET", get) == b"MZ"
    await local.api("DELETE", path)
    await local.api("GET", path, status=404)
    await local.api("GET", "/signed/nope", status=403)


@pytest.mark.parametrize(
    ("body", "count"),
    [(b'{"a":1}', 1), (b'[{"a":1},{"a":2}]', 2), (b'{"a":1}\n{"a":2}\n', 2), (gzip.compress(b'{"a":1}', mtime=0), 1)],
)
async def test_hooks(emulate, body, count):
    """What is posted to a webhook comes out in the event stream, as an adapter's."""
    local = await emulate(events=0)
    async with local.stream() as stream:
        await stream.line()
        await local.api("POST", f"/{local.oid}/myhook/{local.ready['ingestion_key']}", body)
        records = [json.loads(await stream.line()) for _ in range(count)]
    assert [record["event"] for record in records] == [{"a": 1}, {"a": 2}][:count]
    assert {(record["routing"]["hostname"], record["routing"]["arch"]) for record in records} == {("myhook", 9)}


@pytest.mark.parametrize("body", [b"text", b"[1]", b"\x1f\x8bnope"])
async def test_hooks_refused(emulate, body):
    """A webhook with another secret, or with what is no event, is refused."""
    local = await emulate()
    await local.api("POST", f"/{local.oid}/myhook/wrong", body, status=401)
    await local.api("POST", f"/{local.oid}/myhook/{local.ready['ingestion_key']}", body, status=400)
