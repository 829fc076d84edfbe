"""Artifacts: sending them in, and getting them back."""

import asyncio
import base64
import gzip

import pytest
from aiohttp import web

from pipeline.core.errors import ConfigError, NotFoundError, UnavailableError, UsageError
from pipeline.core.types import Secret
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
SID = "9cbed57a-6d6a-4af0-b881-803a99b177d9"
INGESTION = "44444444-4444-4444-8444-444444444444"
ORIGINALS = f"POST /v1/insight/{OID}/artifacts/originals/a1"


@pytest.fixture
async def uploader(service):
    section = LimaCharlieConfig(oid=OID, api_key="k", url=service.url)
    async with LimaCharlie(section, environ={"LC_LOGS_TOKEN": INGESTION}) as account:
        yield account.artifact_upload


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("pipeline.limacharlie.artifact_upload.PART", 10)


async def test_a_small_artifact_goes_in_one_piece(uploader, service):
    """With the ingestion key and no token, and without a part's number."""
    service.reply({"payload": "p1"})
    found = await uploader.send(
        b"content", source="desk-1", hint="txt", original_path="/var/log/é", retention_days=7, artifact_id="a1"
    )
    assert (found.artifact_id, found.size, found.parts) == ("p1", 7, 1)
    asked = service.asked[0]
    assert (asked.route, asked.body) == ("POST /ingest", b"content")
    assert base64.b64decode(asked.headers["Authorization"].removeprefix("Basic ")).decode() == f"{OID}:{INGESTION}"
    assert {name: value for name, value in asked.headers.items() if name.lower().startswith("lc-")} == {
        "lc-payload-id": "a1",
        "lc-source": "desk-1",
        "lc-hint": "txt",
        "lc-retention-days": "7",
        "lc-path": base64.b64encode("/var/log/é".encode()).decode(),
    }
    assert service.mints == []


@pytest.mark.parametrize(
    ("size", "marks"),
    [
        (0, [None]),
        (1, [None]),
        (10, [None]),
        (11, ["0", "done"]),
        (20, ["0", "done"]),
        (30, ["0", "1", "done"]),
        (35, ["0", "1", "2", "done"]),
    ],
)
async def test_the_last_part_says_done_whatever_its_size(uploader, service, small_parts, tmp_path, size, marks):
    """Also where the size is an exact multiple: without `done` LimaCharlie would keep nothing."""
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(range(size)))
    found = await uploader.send(path, source="lab")
    assert [asked.headers.get("lc-part") for asked in service.asked] == marks
    assert b"".join(asked.body for asked in service.asked) == path.read_bytes()
    assert {asked.headers["lc-payload-id"] for asked in service.asked} == {found.artifact_id}
    assert base64.b64decode(service.asked[0].headers["lc-path"]).decode() == str(path)
    assert (found.size, found.parts) == (size, len(marks))


async def test_a_part_lost_on_the_way_is_sent_again(uploader, service, small_parts, no_pauses):
    """It has its name, so that it is not there twice."""
    service.answers = [service.refusal(200), service.refusal(503), service.refusal(200)]
    await uploader.send(b"x" * 25, source="lab")
    assert [asked.headers["lc-part"] for asked in service.asked] == ["0", "1", "1", "done"]


async def test_an_upload_without_a_key_says_how_to_get_one(account, service):
    """It is another kind of key than ours."""
    with pytest.raises(ConfigError, match=r"LC_LOGS_TOKEN.*ingestion key.*ingestion_keys\.create"):
        await account.artifact_upload.send(b"x", source="lab")
    assert service.asked == []


async def test_an_ingestion_key_is_in_no_error(account, service):
    """Not even where the service repeats it."""

    def echo(asked):
        return service.refusal(401, f"bad key {INGESTION} in {asked.headers['Authorization']}")(asked)

    service.answers = [echo]
    with pytest.raises(Exception, match="bad key") as caught:
        await account.artifact_upload.send(b"x", source="lab", key=Secret(INGESTION))
    assert INGESTION not in str(caught.value)
    assert base64.b64encode(f"{OID}:{INGESTION}".encode()).decode() not in str(caught.value)


@pytest.mark.parametrize("options", [{"source": "a\r\nX: y"}, {"source": "ok", "hint": "é"}])
async def test_a_header_cannot_be_broken(uploader, service, options):
    """They are text of somebody."""
    with pytest.raises(UsageError, match="printable"):
        await uploader.send(b"x", **options)
    assert service.asked == []


async def test_a_file_that_is_not_there_is_said_to_be_so(uploader, service, tmp_path):
    """By the system's own error."""
    with pytest.raises(FileNotFoundError):
        await uploader.send(tmp_path / "none", source="lab")
    assert service.asked == []


async def test_artifacts_are_listed_in_seconds(account, service):
    """Pages follow their cursor."""
    service.reply({"artifacts": [{"payload_id": "a"}], "next_cursor": "c"}, {"artifacts": [{"payload_id": "b"}]})
    walk = account.artifacts.list(1_700_000_000, 1_700_003_600, sid=SID)
    assert [doc["payload_id"] async for doc in walk] == ["a", "b"]
    assert [asked.query for asked in service.asked] == [
        {"start": "1700000000", "end": "1700003600", "sid": SID},
        {"sid": SID, "cursor": "c"},
    ]


async def test_a_small_artifact_comes_at_once(account, service, tmp_path):
    """Inline, packed."""
    payload = base64.b64encode(gzip.compress(b"content")).decode()
    service.route(ORIGINALS, {"payload": payload})
    assert await account.artifacts.read("a1") == b"content"
    target = tmp_path / "out.bin"
    assert await account.artifacts.download("a1", target) == 7
    assert target.read_bytes() == b"content"


async def test_a_large_artifact_is_fetched_when_it_is_ready(account, service, tmp_path, no_pauses):
    """From an address of its own, without our token, which is not for that host."""
    content = bytes(range(256)) * 20_000
    service.route(ORIGINALS, {"export": f"{service.url}/exports/x?signature=s3cr3t"})
    missing = service.refusal(404)
    service.routes["GET /exports/x"] = [missing, missing, lambda _: web.Response(body=content)]
    target = tmp_path / "out.bin"
    assert await account.artifacts.download("a1", target) == len(content)
    assert target.read_bytes() == content
    fetched = [asked for asked in service.asked if asked.route == "GET /exports/x"]
    assert len(fetched) == 3
    assert {asked.token for asked in fetched} == {""}
    assert list(tmp_path.iterdir()) == [target]


async def test_an_artifact_that_is_never_ready_is_given_up(account, service, tmp_path):
    """After one's patience, and nothing is left behind; the signature is in no error."""
    service.route(ORIGINALS, {"export": f"{service.url}/exports/x?signature=s3cr3t"})
    service.routes["GET /exports/x"] = [service.refusal(404)]
    with pytest.raises(UnavailableError, match="not ready") as caught:
        await account.artifacts.download("a1", tmp_path / "out.bin", patience=0.05)
    assert "s3cr3t" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["refused", "cut", "away"])
async def test_a_broken_download_leaves_nothing(account, service, tmp_path, fault):
    """And the signature is in no error."""

    async def cut(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = {"refused": 0, "cut": server.sockets[0].getsockname()[1], "away": 1}[fault]
    address = f"http://127.0.0.1:{port}" if port else service.url
    service.route(ORIGINALS, {"export": f"{address}/exports/x?signature=s3cr3t"})
    service.routes["GET /exports/x"] = [service.refusal(500)]
    with pytest.raises(UnavailableError) as caught:
        await account.artifacts.download("a1", tmp_path / "out.bin")
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__context__ is None
    assert list(tmp_path.iterdir()) == []
    server.close()


@pytest.mark.parametrize("answer", [{}, {"export": "file:///etc/passwd"}, {"payload": "!!!"}])
async def test_an_answer_that_is_no_artifact_is_a_failure(account, service, answer):
    """Nothing but the web is followed."""
    service.route(ORIGINALS, answer)
    with pytest.raises(UnavailableError):
        await account.artifacts.read("a1")


async def test_what_is_too_large_for_memory_is_for_a_file(account, service, monkeypatch):
    """And the error says so."""
    monkeypatch.setattr("pipeline.limacharlie.artifacts.MAX_READ", 10)
    service.route(ORIGINALS, {"export": f"{service.url}/exports/x"})
    service.routes["GET /exports/x"] = [lambda _: web.Response(body=b"x" * 11)]
    with pytest.raises(UnavailableError, match="to a file"):
        await account.artifacts.read("a1")


async def test_an_unknown_artifact_is_not_found(account, service):
    """With LimaCharlie's words."""
    service.routes[ORIGINALS] = [service.refusal(404, "no such artifact")]
    with pytest.raises(NotFoundError, match="no such artifact"):
        await account.artifacts.read("a1")


async def test_collection_rules(account, service):
    """Listed, written as JSON, removed by name."""
    service.reply({"r": {"patterns": ["/x"]}}, {}, {})
    assert await account.artifacts.rules() == {"r": {"patterns": ["/x"]}}
    await account.artifacts.put_rule("r", ["/x"], platforms=["linux"], delete_after=True)
    await account.artifacts.delete_rule("r")
    assert service.asked[1].json == {
        "name": "r",
        "patterns": ["/x"],
        "platforms": ["linux"],
        "tags": [],
        "days_retention": 30,
        "is_delete_after": True,
    }
    assert service.asked[2].form == {"name": "r"}
    assert {asked.route.split()[1] for asked in service.asked} == {f"/v1/insight/{OID}/artifacts/rules"}


async def test_a_part_of_real_size_arrives_whole(uploader, service):
    """Megabytes, which go out in pieces, again on a second try too."""
    service.answers = [service.refusal(503), service.refusal(200)]
    content = bytes(range(256)) * 20_000
    found = await uploader.send(content, source="lab")
    assert found.parts == 2
    assert service.asked[0].body == service.asked[1].body
    assert b"".join(asked.body for asked in service.asked[1:]) == content


@pytest.mark.parametrize("wrapped", [True, False])
async def test_artifacts_on_the_paths_of_the_integration_guide(service, wrapped):
    """With our token, as the rest of that API; the guide does not say how the content comes."""
    section = LimaCharlieConfig(oid=OID, api_key="k", url=service.url)
    payload = {"payload": base64.b64encode(gzip.compress(b'{"a":1}')).decode()}
    service.reply({"payload": "a1"}, payload if wrapped else {"a": 1})
    async with LimaCharlie(section, environ={}, paths="guide") as account:
        await account.artifact_upload.send(b"content", source="lab")
        assert (await account.artifacts.read("a1")).replace(b" ", b"") == b'{"a":1}'
    assert [asked.route for asked in service.asked] == [f"POST /v1/artifacts/{OID}", f"GET /v1/artifacts/{OID}/a1"]
    assert all(asked.token for asked in service.asked)
