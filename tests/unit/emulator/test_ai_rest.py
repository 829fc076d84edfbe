"""The AI sessions service of the emulator over REST, as its documents have it."""

import pytest

from pipeline.emulator.ai_run import _listed
from pipeline.emulator.ai_session import Session, Window


class Caller:
    """Asks with one token, in JSON."""

    def __init__(self, local, token, **headers):
        self.local = local
        self.headers = {"Authorization": f"Bearer {token}", **headers}

    async def __call__(self, method, path, body=None):
        url = self.local.ready["url"] + path
        async with self.local.client.request(method, url, json=body, headers=self.headers) as response:
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def local(emulate):
    return await emulate()


@pytest.fixture
async def ask(local):
    """The user of the ready file, not registered."""
    return Caller(local, await local.token(uid=local.ready["uid"], secret=local.ready["user_api_key"]))


async def running(local, ask, **body):
    status, answer = await ask("POST", "/v1/sessions", body)
    assert status == 201, answer
    path = f"/v1/sessions/{answer['session']['id']}"

    async def runs():
        return (await ask("GET", path))[1]["session"]["status"] == "running"

    await local.until(runs)
    return path


async def test_register(ask):
    """Registering is told with its time, and is a conflict the second time."""
    status, body = await ask("POST", "/v1/register")
    assert (200, True) == (status, body["registered"])
    assert body["registered_at"].endswith("Z")
    assert (await ask("POST", "/v1/register"))[0] == 409
    assert (200, {"deregistered": True}) == await ask("DELETE", "/v1/register")


async def test_without_a_token(local):
    """Everything wants a token."""
    ask = Caller(local, "none")
    for method, path in (
        ("POST", "/v1/register"),
        ("GET", "/v1/sessions"),
        ("GET", "/v1/profiles"),
        ("GET", "/v1/credentials"),
    ):
        assert (await ask(method, path))[0] == 401


async def test_create(local, ask):
    """It needs registration and credentials, and answers 201 with a session that is starting."""
    assert (403, {"error": "user is not registered"}) == await ask("POST", "/v1/sessions", {})
    await ask("POST", "/v1/register")
    assert (403, {"error": "no Claude credentials"}) == await ask("POST", "/v1/sessions", {})
    await ask("POST", "/v1/auth/claude/apikey", {"api_key": "sk-ant-x"})
    status, body = await ask("POST", "/v1/sessions", {"allowed_tools": ["Bash"]})
    assert 201 == status
    assert {"id", "status", "region", "created_at"} <= set(body["session"])
    assert "starting" == body["session"]["status"]


@pytest.mark.parametrize("body", [[], "x", {"allowed_tools": "Bash"}, {"max_turns": "9"}, {"provider": "acme"}])
async def test_bad_create(local, ask, body):
    """What is not as it should be is a 400."""
    await local.turn("ai_account")
    assert (await ask("POST", "/v1/sessions", body))[0] == 400


async def test_limits(local, ask):
    """Ten in a minute, with the headers that say how long to wait."""
    await local.turn("ai_account")
    statuses = [(await ask("POST", "/v1/sessions", {}))[0] for _ in range(10)]
    assert [201] * 10 == statuses
    async with local.client.post(local.ready["url"] + "/v1/sessions", json={}, headers=ask.headers) as response:
        assert 429 == response.status
        assert 0 < int(response.headers["Retry-After"]) <= 61
        assert ("10", "60") == (response.headers["X-RateLimit-Quota"], response.headers["X-RateLimit-Period"])


async def test_ten_registrations(ask):
    """Ten tries to register in a minute."""
    assert [200] + [409] * 9 + [429] == [(await ask("POST", "/v1/register"))[0] for _ in range(11)]


async def test_list(local, ask):
    """Pages lead on by cursor; a wrong status, limit or cursor is a 400."""
    await local.turn("ai_account")
    ids = [(await ask("POST", "/v1/sessions", {}))[1]["session"]["id"] for _ in range(3)]
    first = (await ask("GET", "/v1/sessions?limit=2"))[1]
    second = (await ask("GET", f"/v1/sessions?limit=2&cursor={first['next_cursor']}"))[1]
    assert ids[::-1] == [row["id"] for row in first["sessions"] + second["sessions"]]
    assert "next_cursor" not in second
    for query in ("status=dead", "limit=0", "limit=201", "limit=x", "cursor=nope"):
        assert (await ask("GET", f"/v1/sessions?{query}"))[0] == 400


async def test_end(local, ask):
    """An ended session shows when, why and with what exit code, and only then its record can go."""
    await local.turn("ai_account")
    path = await running(local, ask)
    assert (await ask("DELETE", f"{path}/record"))[0] == 409
    assert (200, {"terminated": True}) == await ask("DELETE", path)
    session = (await ask("GET", path))[1]["session"]
    assert ("ended", "user_requested", 0) == (session["status"], session["end_reason"], session["exit_code"])
    assert session["created_at"] <= session["started_at"] <= session["terminated_at"]
    assert (200, {"deleted": True}) == await ask("DELETE", f"{path}/record")
    assert (await ask("GET", path))[0] == 404


async def test_another_user(local, ask):
    """Another's session is a 403."""
    await local.turn("ai_account")
    path = await running(local, ask)
    other = Caller(local, await local.token())
    assert (403, {"error": "session belongs to a different user"}) == await other("GET", path)


async def test_ttl(local, ask):
    """A session ends after its time."""
    await local.turn("ai_account")
    path = await running(local, ask, ttl_seconds=0.1)

    async def over():
        return (await ask("GET", path))[1]["session"]["end_reason"] == "max_duration_exceeded"

    await local.until(over)


async def test_knobs_of_sessions(local, ask):
    """A session ends for the reason that a knob names; an unknown session or step is refused."""
    await local.turn("ai_account")
    path = await running(local, ask)
    await local.turn("ai_end", reason="heartbeat_stale", exit_code=7)
    session = (await ask("GET", path))[1]["session"]
    assert ("heartbeat_stale", 7) == (session["end_reason"], session["exit_code"])
    for knob, arguments in (
        ("ai_end", {"session_id": "nope"}),
        ("ai_script", {"steps": [{"dance": 1}]}),
        ("ai_script", {"steps": [{"end": "boredom"}]}),
        ("ai_script", {"steps": [{"wait": "long"}]}),
    ):
        url = f"{local.ready['url']}/_emulator/{knob}"
        async with local.client.post(url, json=arguments) as response:
            assert response.status in (400, 404)


async def test_org_auth(local):
    """An organization's sessions are asked for by token or raw key, with the organization's id."""
    oid = local.oid
    for secret in (local.api_key, await local.token()):
        assert (await Caller(local, secret, **{"X-LC-OID": oid})("GET", "/v1/org/sessions"))[0] == 200
        assert (await Caller(local, secret)("GET", "/v1/org/sessions"))[0] == 400
    user = Caller(local, local.ready["user_api_key"], **{"X-LC-OID": oid, "X-LC-UID": local.ready["uid"]})
    assert (await user("GET", "/v1/org/sessions"))[0] == 200
    wrong = Caller(local, "no-such-key", **{"X-LC-OID": oid})
    assert (await wrong("GET", "/v1/org/sessions"))[0] == 401
    weak = (await local.turn("key", permissions=["org.get"]))["api_key"]
    status, body = await Caller(local, weak, **{"X-LC-OID": oid})("GET", "/v1/org/sessions")
    assert (401, "unauthorized: missing permission ai_agent.get") == (status, body["error"])


async def test_org_create(local):
    """It needs a prompt and who pays; the answer is a 201 with id, status and time."""
    ask = Caller(local, local.api_key, **{"X-LC-OID": local.oid})
    for body in ({}, {"prompt": "x"}, {"prompt": "x", "anthropic_key": "k", "credentials": {"api_key": "k"}}):
        assert (await ask("POST", "/v1/api/sessions", body))[0] == 400
    status, body = await ask("POST", "/v1/api/sessions", {"prompt": "x", "anthropic_key": "k"})
    assert (201, {"session_id", "status", "created_at"}) == (status, set(body))


async def test_storage(local, ask):
    """A signed URL takes the announced bytes of the announced type, and nobody else's signature."""
    await local.turn("ai_account")
    path = (await running(local, ask)).replace("/v1/", "/v1/io/")
    offer = {"filename": "../../etc/data.csv", "content_type": "text/csv", "size": 5}
    status, ticket = await ask("POST", f"{path}/upload", offer)
    assert (200, "/workspace/uploads/data.csv") == (status, ticket["target_path"])
    url = ticket["upload_url"]
    put = local.client.put
    for target, data, kind, expected in (
        (url, b"12345", "text/plain", 403),
        (url[:-1] + ("0" if url[-1] != "0" else "1"), b"12345", "text/csv", 403),
        (url, b"1234", "text/csv", 400),
        (url, b"123456", "text/csv", 400),
        (url, b"12345", "text/csv", 200),
    ):
        async with put(target, data=data, headers={"Content-Type": kind}) as response:
            assert expected == response.status
    complete = await ask("POST", f"{path}/upload/complete", {"upload_id": ticket["upload_id"]})
    assert (200, {"success": True, "path": ticket["target_path"]}) == complete
    assert (await ask("POST", f"{path}/upload/complete", {"upload_id": ticket["upload_id"]}))[0] == 404
    status, ticket = await ask("POST", f"{path}/download", {"path": "/workspace/uploads/data.csv"})
    async with local.client.get(ticket["download_url"]) as response:
        assert (200, b"12345") == (response.status, await response.read())
        assert response.headers["x-goog-hash"].startswith("md5=")
    assert (await ask("POST", f"{path}/download", {"path": "/etc/passwd"}))[0] == 404


async def test_signed_urls_expire(local, ask):
    """A URL is good for its time only."""
    await local.turn("ai_account")
    await local.turn("ai_timing", url_lifetime=0)
    path = (await running(local, ask)).replace("/v1/", "/v1/io/")
    ticket = (await ask("POST", f"{path}/download", {"path": "/workspace/output.txt"}))[1]
    async with local.client.get(ticket["download_url"]) as response:
        assert 403 == response.status


async def test_upload_limits(local, ask):
    """100 MB a file, ten uploads a minute."""
    await local.turn("ai_account")
    path = (await running(local, ask)).replace("/v1/", "/v1/io/")
    assert (await ask("POST", f"{path}/upload", {"filename": "x", "size": 100_000_001}))[0] == 413
    statuses = [(await ask("POST", f"{path}/upload", {"filename": "x", "size": 1}))[0] for _ in range(10)]
    assert [200] * 9 + [429] == statuses


@pytest.mark.parametrize(
    ("tools", "name", "given", "expected"),
    [
        (["Bash"], "Bash", {"command": "ls"}, True),
        (["Bash(cat:*)"], "Bash", {"command": "cat x"}, True),
        (["Bash(cat:*)"], "Bash", {"command": "rm x"}, False),
        (["mcp__vt__*"], "mcp__vt__lookup", {}, True),
        (["*"], "Read", {}, True),
        ([], "Read", {}, False),
        (["Rea"], "Read", {}, False),
    ],
)
def test_tool_lists(tools, name, given, expected):
    """A tool is listed by name, by the beginning of its input, or by a star."""
    assert expected is _listed(tools, name, given)


def test_window():
    """A window is full after its limit and says when it is not any more."""
    window = Window(2, 60.0)
    assert [0.0, 0.0] == [window.take(), window.take()]
    assert 59 < window.take() <= 60


async def test_a_transcript_is_bounded(monkeypatch):
    """The oldest messages go first, and the numbers go on."""
    monkeypatch.setattr("pipeline.emulator.ai_session.MAX_TRANSCRIPT", 10)
    session = Session(owner="x")
    for number in range(5):
        session.keep(b"abc%d" % number)
    assert (3, 5, b"abc4") == (session.first, session.end, session.message(4))
