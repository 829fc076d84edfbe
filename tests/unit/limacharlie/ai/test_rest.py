"""The REST service: each request, and each of its refusals."""

import asyncio

import pytest

from pipeline.core.errors import (
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RequestRefusedError,
    UnavailableError,
    UsageError,
)
from pipeline.limacharlie.ai import account as account_module
from pipeline.limacharlie.ai.errors import (
    AlreadyRegisteredError,
    ArchiveGoneError,
    DefaultProfileError,
    DomainNotAllowedError,
    FileTooLargeError,
    ForeignSessionError,
    InvalidRequestError,
    MissingToolsError,
    NotForkableError,
    NotReadyError,
    SessionActiveError,
    TooManyProfilesError,
    TooManySessionsError,
)


async def ended(ai, running, **options):
    session = await running(**options)
    await ai.sessions.terminate(session.id)
    return session


async def test_registration(cloud):
    """A user registers once, and can leave."""
    ai = (await cloud.client()).ai
    assert (await ai.registration.register()).endswith("Z")
    with pytest.raises(AlreadyRegisteredError):
        await ai.registration.register()
    await ai.registration.deregister()
    await ai.registration.register()


async def test_deregistration_ends_all(ai, cloud, running):
    """Who leaves has no sessions and credentials any more."""
    session = await running()
    await ai.registration.deregister()
    await ai.registration.register()
    assert (await ai.credentials.claude()).exists is False
    with pytest.raises(NotFoundError):
        await ai.sessions.get(session.id)


async def test_not_ready(cloud):
    """A session needs a registered user with credentials of its provider."""
    ai = (await cloud.client()).ai
    with pytest.raises(NotReadyError, match="not registered"):
        await ai.sessions.create()
    with pytest.raises(NotReadyError, match="not registered"):
        await ai.credentials.store_claude_key("sk-ant-1234567")
    await ai.registration.register()
    with pytest.raises(NotReadyError, match="no Claude credentials"):
        await ai.sessions.create()
    await ai.credentials.store_claude_key("sk-ant-1234567")
    with pytest.raises(NotReadyError, match="no google credentials"):
        await ai.sessions.create(provider="google")
    assert (await ai.sessions.create()).status == "starting"


async def test_life_of_a_session(ai, running):
    """It starts, runs, is ended and deleted, and tells of it."""
    session = await running(allowed_tools=["Bash"], denied_tools=["Write"], name="look")
    assert ("running", "look") == (session.status, session.name)
    assert session.created_at <= session.started_at
    assert (["Bash"], ["Write"]) == (session.doc["allowed_tools"], session.doc["denied_tools"])
    with pytest.raises(SessionActiveError):
        await ai.sessions.delete_record(session.id)
    await ai.sessions.terminate(session.id)
    await ai.sessions.terminate(session.id)
    session = await ai.sessions.get(session.id)
    assert ("ended", "user_requested", 0) == (session.status, session.end_reason, session.exit_code)
    await ai.sessions.delete_record(session.id)
    with pytest.raises(NotFoundError):
        await ai.sessions.get(session.id)


async def test_initial_prompt_and_history(ai, cloud):
    """What was said can be read without a connection."""
    session = await ai.sessions.create(initial_prompt="read it", allowed_tools=["Read"], one_shot=True)
    while (await ai.sessions.get(session.id)).status != "ended":
        await asyncio.sleep(0.01)
    said = await ai.sessions.history(session.id)
    assert cloud.transcript(session.id) == [message.raw for message in said]
    assert (await ai.sessions.get(session.id)).end_reason == "completed"


async def test_list(ai, running, monkeypatch):
    """Sessions are listed newest first over pages, by status, up to a number."""
    monkeypatch.setattr("pipeline.limacharlie.ai.sessions.PAGE", 2)
    ids = [(await running()).id for _ in range(5)]
    await ai.sessions.terminate(ids[0])
    assert ids[::-1] == [info.id async for info in ai.sessions.list()]
    assert ids[:1] == [info.id async for info in ai.sessions.list(status="ended")]
    assert ids[:1:-1] == [info.id async for info in ai.sessions.list(limit=3)]


async def test_idempotent(ai):
    """The same key begins one session."""
    first = await ai.sessions.create(idempotent_key="k1")
    assert first.id == (await ai.sessions.create(idempotent_key="k1")).id


async def test_an_answer_that_is_lost(ai, cloud):
    """What begins a session is tried again only where that cannot begin two."""
    cloud.turn("respond", route="sessions", status=503)
    with pytest.raises(UnavailableError):
        await ai.sessions.create()
    cloud.turn("respond", route="sessions", status=503)
    assert (await ai.sessions.create(idempotent_key="k1")).status == "starting"
    cloud.turn("respond", route="api", status=503)
    with pytest.raises(UnavailableError):
        await ai.org_sessions.start("look", anthropic_key="sk-ant-1234567")
    cloud.turn("respond", route="api", status=503)
    assert (await ai.org_sessions.start("look", anthropic_key="sk-ant-1234567", idempotent_key="k")).id


async def test_ten_sessions(ai, cloud):
    """The eleventh session that is active is refused, as a fork at once too."""
    cloud.emulator.panel.ai.account(cloud.ready["uid"]).creations.limit = 100
    ids = [(await ai.sessions.create()).id for _ in range(10)]
    with pytest.raises(TooManySessionsError, match="ten"):
        await ai.sessions.create()
    await ai.sessions.terminate(ids[0])
    await ai.sessions.create()
    with pytest.raises(TooManySessionsError, match="ten"):
        await asyncio.wait_for(ai.sessions.fork(ids[0]), 1.0)


async def test_a_rate_limit_that_is_long(ai, cloud):
    """A pause that is longer than a request may wait is told, with its length."""
    cloud.turn("respond", route="register", status=429, headers={"Retry-After": "200"})
    with pytest.raises(RateLimitedError) as caught:
        await ai.registration.register()
    assert caught.value.after == 200


async def test_fork(ai, running):
    """A session that has ended goes on as another one."""
    source = await running(name="first")
    preflight = await ai.sessions.preflight(source.id)
    assert (False, "the session is still active") == (preflight.is_forkable, preflight.reason)
    with pytest.raises(NotForkableError):
        await ai.sessions.fork(source.id)
    await ai.sessions.terminate(source.id)
    preflight = await ai.sessions.preflight(source.id)
    assert (True, "Fork of first") == (preflight.is_forkable, preflight.default_name)
    fork = await ai.sessions.fork(source.id, initial_prompt="read it")
    assert (source.id, "Fork of first") == (fork.forked_from, fork.name)
    assert (await ai.sessions.fork(source.id, name="mine")).name == "mine"


async def test_fork_in_progress(ai, cloud, running):
    """One fork at a time."""
    source = await ended(ai, running)
    cloud.turn("ai_archive", session_id=source.id, forking=True)
    with pytest.raises(NotForkableError, match="in progress"):
        await ai.sessions.fork(source.id)


async def test_archive_gone(ai, cloud, running):
    """A workspace that is no longer there cannot be forked."""
    source = await ended(ai, running)
    cloud.turn("ai_archive", session_id=source.id, available=False)
    assert "no longer available" in (await ai.sessions.preflight(source.id)).reason
    with pytest.raises(ArchiveGoneError):
        await ai.sessions.fork(source.id)


async def test_missing_tools(ai, running):
    """MCP servers that the profile lacks have to be acknowledged."""
    source = await ended(ai, running, mcp_servers={"virustotal": {"type": "http", "url": "https://vt.example.com"}})
    assert ("virustotal",) == (await ai.sessions.preflight(source.id)).missing_tools
    with pytest.raises(MissingToolsError, match="virustotal"):
        await ai.sessions.fork(source.id)
    assert (await ai.sessions.fork(source.id, acknowledge_missing_tools=["virustotal"])).forked_from == source.id
    profile = await ai.profiles.create("vt", mcp_servers={"virustotal": {"type": "http", "url": "https://x"}})
    assert () == (await ai.sessions.preflight(source.id, profile_id=profile.id)).missing_tools


async def test_fork_of_the_organizations(ai, cloud):
    """Forking an organization's session needs a permission of its own."""
    source = await ai.org_sessions.start("look", anthropic_key="sk-ant-1234567", profile={"one_shot": True})
    while (await ai.org_sessions.get(source.id)).status != "ended":
        await ai.org_sessions.terminate(source.id)
    assert (await ai.sessions.preflight(source.id)).doc["source_session_type"] == "api"
    assert (await ai.sessions.fork(source.id)).forked_from == source.id
    less = cloud.turn("key", permissions=["ai_agent.get"])["api_key"]
    cloud.turn("ai_account")
    other = (await cloud.client(uid=None, api_key=less)).ai
    with pytest.raises(ForeignSessionError, match=r"ai_agent\.set"):
        await other.sessions.fork(source.id)


async def test_foreign_sessions(ai, cloud, running):
    """Another user's session can neither be seen nor ended."""
    session = await running()
    other = (await cloud.client(uid=None, api_key=cloud.ready["api_key"])).ai
    for call in (other.sessions.get, other.sessions.terminate, other.sessions.history, other.sessions.fork):
        with pytest.raises(ForeignSessionError):
            await call(session.id)
    assert [] == [info async for info in other.sessions.list()]


async def test_profiles(ai, running):
    """They are made, changed, chosen and deleted; the first is the default."""
    first = await ai.profiles.create("one", allowed_tools=["Bash"], max_budget_usd=1.5)
    second = await ai.profiles.create("two", denied_tools=["Bash"], model="claude-x", is_default=True)
    assert [("one", False), ("two", True)] == [(one.name, one.is_default) for one in await ai.profiles.list()]
    with pytest.raises(DefaultProfileError):
        await ai.profiles.delete(second.id)
    await ai.profiles.set_default(first.id)
    await ai.profiles.delete(second.id)
    assert (await ai.profiles.update(first.id, max_turns=3)).doc["max_turns"] == 3
    assert (await ai.profiles.get(first.id)).doc["max_budget_usd"] == 1.5
    with pytest.raises(NotFoundError):
        await ai.profiles.get(second.id)
    session = await running()
    assert ["Bash"] == session.doc["allowed_tools"]


async def test_ten_profiles(ai):
    """The eleventh is refused."""
    for number in range(10):
        await ai.profiles.create(f"p{number}")
    with pytest.raises(TooManyProfilesError, match="ten"):
        await ai.profiles.create("one more")


async def test_capture(ai, running):
    """A session's settings become a profile."""
    session = await running(allowed_tools=["Read"], max_turns=4)
    profile = await ai.profiles.capture(session.id, "mine", "captured")
    assert ("mine", "captured", ["Read"], 4) == (
        profile.name,
        profile.doc["description"],
        profile.doc["allowed_tools"],
        profile.doc["max_turns"],
    )


async def test_limits_of_a_profile(ai, cloud, running):
    """A session stops taking prompts after its turns."""
    session = await running(max_turns=0)
    async with ai.attach(session.id) as live:
        await live.prompt("hello")
        async for message in live.messages():
            if message.type == "error":
                break
        assert message.payload["code"] == "session_not_running"


async def test_login_by_browser(cloud, monkeypatch):
    """The address is waited for, and the code handed in."""
    monkeypatch.setattr(account_module, "LOGIN_POLL", 0.01)
    ai = (await cloud.client()).ai
    await ai.registration.register()
    login = await ai.credentials.begin_login()
    assert login.url.startswith("https://console.anthropic.com/oauth/authorize")
    assert login.url not in repr(login)
    await ai.credentials.finish_login(login, "the-code")
    held = await ai.credentials.claude()
    assert (True, "oauth") == (held.exists, held.kind)
    with pytest.raises(NotFoundError):
        await ai.credentials.finish_login(login, "the-code")
    await ai.credentials.delete_claude()
    assert (await ai.credentials.claude()).exists is False


async def test_login_without_an_address(cloud, monkeypatch):
    """An address that does not come is not waited for for ever; a login that failed is told."""
    monkeypatch.setattr(account_module, "LOGIN_POLL", 0.01)
    ai = (await cloud.client()).ai
    await ai.registration.register()
    cloud.turn("respond", route="auth", status=200, body='{"oauth_session_id": "oauth_1234567"}')
    cloud.turn("respond", route="auth", status=200, body='{"status": "failed"}')
    with pytest.raises(RequestRefusedError, match="failed"):
        await ai.credentials.begin_login()
    cloud.turn("respond", route="auth", status=200, body='{"oauth_session_id": "oauth_1234567"}')
    cloud.turn("respond", route="auth", status=200, body='{"status": "pending"}', times=None)
    with pytest.raises(UnavailableError, match="in time"):
        await ai.credentials.begin_login(timeout=0.1)


@pytest.mark.parametrize(
    ("provider", "secrets", "kind"),
    [
        ("openai", {"api_key": "sk-12345678"}, "api_key"),
        (
            "openai/azure",
            {"endpoint": "https://x", "deployment_name": "d", "api_version": "1", "api_key": "12345678"},
            "azure",
        ),
        ("google", {"api_key": "AIza12345678"}, "api_key"),
        ("google/vertex", {"project_id": "p", "region": "r", "service_account_json": "{12345678}"}, "vertex"),
        ("openrouter", {"api_key": "sk-or-12345678"}, "api_key"),
    ],
)
async def test_other_providers(ai, running, provider, secrets, kind):
    """Each provider takes its own, serves a session, and forgets."""
    await ai.credentials.store(provider, **secrets)
    name = provider.partition("/")[0]
    held = await ai.credentials.all()
    assert (True, kind) == (held[name].exists, held[name].kind)
    assert (await running(provider=name)).doc["provider"] == name
    await ai.credentials.delete(name)
    assert (await ai.credentials.all())[name].exists is False
    with pytest.raises(InvalidRequestError, match="missing"):
        await ai.credentials.store(provider)


async def test_sessions_of_the_organization(ai, cloud):
    """They are started once by key, listed, looked at, read and ended; what they used is told by key."""
    options = {"anthropic_key": "sk-ant-1234567", "idempotent_key": "case-1", "name": "case 1"}
    session = await ai.org_sessions.start("What is this detection?", profile={"max_turns": 5}, **options)
    assert session.id == (await ai.org_sessions.start("What is this detection?", **options)).id
    assert [session.id] == [info.id async for info in ai.org_sessions.list()]
    while not any(message.type == "user" for message in await ai.org_sessions.history(session.id)):
        await asyncio.sleep(0.01)
    await ai.org_sessions.terminate(session.id)
    info = await ai.org_sessions.get(session.id)
    assert ("case 1", "org_api_requested") == (info.name, info.end_reason)
    (identity,) = await ai.org_sessions.identities()
    assert set((await ai.org_sessions.usage(identity)).hours[0]) >= {"hour", "input_tokens", "cost_usd"}


async def test_who_pays(ai):
    """An organization's session is paid by a key or by credentials, not by neither or both."""
    with pytest.raises(InvalidRequestError, match="anthropic_key is required"):
        await ai.org_sessions.start("look")
    session = await ai.org_sessions.start("look", provider="openai", credentials={"api_key": "sk-12345678"})
    assert (await ai.org_sessions.get(session.id)).doc["provider"] == "openai"


async def test_missing_permission(cloud):
    """A key without the permission is told which."""
    key = cloud.turn("key", permissions=["org.get"])["api_key"]
    ai = (await cloud.client(uid=None, api_key=key)).ai
    with pytest.raises(PermissionDeniedError, match=r"ai_agent\.get"):
        await ai.org_sessions.get("x")


async def test_host(cloud, running):
    """The service is where the organization's list says, or where the configuration does."""
    calls = cloud.requests("/url")
    ai = (
        await cloud.client(
            url=None, endpoints={"api": cloud.ready["url"], "jwt": cloud.ready["url"], "ai": cloud.ready["url"]}
        )
    ).ai
    assert await ai._service.base() == cloud.ready["url"]
    assert cloud.requests("/url") == calls
    listed = (await cloud.client(url=None, endpoints={"api": cloud.ready["url"], "jwt": cloud.ready["url"]})).ai
    assert await listed._service.base() == cloud.ready["url"].replace("http://", "https://")


REFUSALS = [
    (lambda ai: ai.registration.register(), 403, DomainNotAllowedError),
    (lambda ai: ai.registration.register(), 409, AlreadyRegisteredError),
    (lambda ai: ai.sessions.create(), 400, InvalidRequestError),
    (lambda ai: ai.sessions.create(), 403, NotReadyError),
    (lambda ai: ai.sessions.create(), 409, TooManySessionsError),
    (lambda ai: ai.sessions.fork("x"), 403, ForeignSessionError),
    (lambda ai: ai.sessions.fork("x"), 409, NotForkableError),
    (lambda ai: ai.sessions.fork("x"), 410, ArchiveGoneError),
    (lambda ai: ai.sessions.fork("x"), 412, MissingToolsError),
    (lambda ai: ai.sessions.fork("x"), 429, TooManySessionsError),
    (lambda ai: ai.profiles.create("x"), 400, InvalidRequestError),
    (lambda ai: ai.profiles.create("x"), 409, TooManyProfilesError),
    (lambda ai: ai.files.upload("x", b"x"), 413, FileTooLargeError),
    (lambda ai: ai.sessions.get("x"), 404, NotFoundError),
    (lambda ai: ai.sessions.terminate("x"), 500, UnavailableError),
]


@pytest.mark.parametrize(("call", "status", "kind"), REFUSALS)
async def test_refusals(ai, cloud, call, status, kind):
    """Each status is an error of its own, with the service's words, and says what to do where it can be known."""
    await ai._service.transport.tokens.get()
    cloud.turn("respond", status=status, body='{"error": "because"}', times=None)
    with pytest.raises(kind, match="because") as caught:
        await call(ai)
    assert caught.value.where
    assert caught.value.fix or status in (404, 500)


async def test_an_answer_that_is_none(ai, cloud, no_pauses):
    """An answer of another shape is an error, not a guess."""
    for body in ("[]", "{}", '{"session": {}}', "not json", '{"session": {"id": 5}}'):
        cloud.turn("respond", route="sessions", status=200, body=body, times=None)
        with pytest.raises(UnavailableError):
            await ai.sessions.get("x")
        cloud.turn("clear")


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_an_id_that_leads_elsewhere(ai, name):
    """An id is one part of a path."""
    with pytest.raises(UsageError):
        await ai.sessions.get(name)
