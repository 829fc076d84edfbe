"""The one path of every REST request."""

import asyncio
import time
from email.utils import formatdate

import pytest
import structlog
from aiohttp import web

from pipeline.core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RequestRefusedError,
    UnavailableError,
)
from pipeline.kit.backoff import Backoff
from pipeline.limacharlie import transport
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
KEY = "sEcReT-key-0123456789"


def refuse(status, text="", **headers):
    body = {"error": text}
    return lambda _: web.json_response(
        body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def ok(_):
    return web.json_response({"ok": True})


async def test_a_request_carries_the_token(account, service):
    """The key is traded once; requests show the token only."""
    assert await account.transport.request("GET", "/who") == {"ok": True}
    await account.transport.request("GET", "/who")
    assert service.mints == [{"oid": OID, "secret": KEY}]
    assert [asked.path for asked in service.asked] == ["/v1/who"] * 2
    assert service.asked[0].token.startswith("e30.")
    assert service.asked[0].headers["User-Agent"].startswith("lc-pipeline/")


@pytest.mark.parametrize(
    ("given", "form"),
    [
        ({"uid": "u"}, {"secret": KEY, "uid": "u"}),
        ({"uid": "u", "oid": OID}, {"secret": KEY, "uid": "u", "oid": OID}),
        ({"oid": OID}, {"secret": KEY, "oid": OID}),
    ],
)
async def test_each_kind_of_key_is_traded_its_way(service, given, form):
    """A user's key, a user's key narrowed to one organization, an organization's key."""
    async with LimaCharlie(LimaCharlieConfig(api_key=KEY, url=service.url, **given), environ={}) as account:
        await account.transport.tokens.get()
    assert service.mints == [form]


async def test_a_form_travels_in_the_body_of_a_delete(account, service):
    """As LimaCharlie reads it."""
    await account.transport.request("DELETE", "/x", form={"name": "a b"})
    assert service.asked[0].form == {"name": "a b"}


@pytest.mark.parametrize("size", [1, 200_000])
async def test_a_form_arrives_as_it_was(account, service, size):
    """Small and large, with several values for one field, and whatever characters."""
    value = "é &=+%\n"[:size] + "x" * size
    await account.transport.request("POST", "/x", form={"a": ["1", value], "b": value, "c": []})
    assert service.asked[0].fields == [("a", "1"), ("a", value), ("b", value)]


async def test_an_expired_token_is_renewed_once(account, service):
    """The first 401 leads to a new token and the same request again."""
    service.answers = [refuse(401, "expired"), ok]
    assert await account.transport.request("POST", "/x") == {"ok": True}
    assert len(service.mints) == 2
    assert service.asked[0].token != service.asked[1].token


async def test_a_storm_of_401_leads_to_one_new_token(account, service):
    """Fifty requests at once under one dead token cost one token and one repetition each."""
    dead = (await account.transport.tokens.get()).text
    service.answers = [lambda asked: refuse(401, "expired")(asked) if asked.token == dead else ok(asked)]
    await asyncio.gather(*(account.transport.request("GET", f"/x/{n}") for n in range(50)))
    assert len(service.mints) == 2
    assert len(service.asked) == 100


async def test_a_missing_permission_is_named_and_not_hammered(account, service):
    """A 401 for a permission costs one token the first time and none after; the error says what to grant."""
    service.answers = [refuse(401, "missing permission: output.set.")]
    for _ in range(20):
        with pytest.raises(PermissionDeniedError, match=r"Give the API key the permission output\.set"):
            await account.transport.request("POST", "/x")
    assert len(service.mints) == 2
    assert len(service.asked) == 20


async def test_an_unnamed_denial_is_not_hammered(account, service):
    """The same for a 401 that names nothing: one token, one repetition, and then the answer stands."""
    service.answers = [refuse(401, "unauthorized")]
    for n in range(20):
        with pytest.raises(PermissionDeniedError):
            await account.transport.request("GET", f"/00000000-0000-0000-0000-{n:012d}/tags")
    assert len(service.mints) == 2
    assert len(service.asked) == 21


@pytest.mark.parametrize("headers", [{"Retry_After": "1"}, {"X_RateLimit_Period": "1"}, "date"])
async def test_a_429_is_waited_for(account, service, headers):
    """By `Retry-After` as seconds or date, else by the rate limit's window."""
    if headers == "date":
        headers = {"Retry_After": formatdate(time.time() + 2, usegmt=True)}
    service.answers = [refuse(429, "slow down", **headers), ok]
    began = time.monotonic()
    assert await account.transport.request("POST", "/x") == {"ok": True}
    assert 0.9 <= time.monotonic() - began < 3


async def test_a_429_holds_back_all_requests_of_the_key(account, service):
    """The limit is the key's, not the request's."""
    service.answers = [refuse(429, "slow down", Retry_After="1"), ok]
    began = time.monotonic()
    task = asyncio.ensure_future(account.transport.request("GET", "/first"))
    while not service.asked:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    await account.transport.request("GET", "/second")
    await task
    assert time.monotonic() - began >= 0.9
    assert len(service.asked) == 3


async def test_a_storm_of_429_that_names_no_time_ends_in_their_words(account, service, monkeypatch):
    """It is waited for with growing pauses, about which the log is not silent, and then it is LimaCharlie who said no."""
    monkeypatch.setattr(transport, "MAX_WAIT", 0.5)
    monkeypatch.setattr(transport, "_NOTABLE", 0.1)
    monkeypatch.setattr(Backoff, "next", lambda _: 0.2)
    service.answers = [refuse(429, "too many of you")]
    with structlog.testing.capture_logs() as lines, pytest.raises(RateLimitedError) as caught:
        await account.transport.request("GET", "/x")
    assert "429: too many of you" in caught.value.what
    assert ("GET /x", True) == (caught.value.where, "[bulk]" in caught.value.fix)
    assert 2 <= len(service.asked) <= 3
    assert len(lines) == len(service.asked)
    assert all("requests wait" in line["event"] and "too many of you" in line["error"] for line in lines)
    with pytest.raises(RateLimitedError, match="rate limit is used up"):
        await account.transport._hold(account.transport._throttles[account.transport.endpoints.api], 0.0, None)


async def test_a_long_pause_is_the_callers_to_plan(account, service):
    """A demand for more than we wait is an error that carries it; meanwhile no request goes out."""
    service.answers = [refuse(429, "quota", Retry_After="600")]
    for _ in range(5):
        with pytest.raises(RateLimitedError) as caught:
            await account.transport.request("GET", "/x")
        assert 500 < caught.value.after <= 600
    assert len(service.asked) == 1


@pytest.mark.parametrize("value", ["99999999999999999999", "-1", "soon", "Wed, 99 Foo 2026 00:00:00 GMT", "٣"])
async def test_a_senseless_demand_cannot_keep_us_away(account, service, value):
    """No header makes a pause longer than an hour."""
    error = account.transport.failure(429, {"Retry-After": value}, "", where="x")
    assert error.after is None or error.after <= 3600


async def test_a_temporary_failure_of_a_get_is_tried_again(account, service):
    """A 503 and a 504 pass by; a POST is not repeated on its own, for it may have done something."""
    service.answers = [refuse(503), refuse(504), ok]
    assert await account.transport.request("GET", "/x") == {"ok": True}
    service.answers = [refuse(504, "late")]
    with pytest.raises(UnavailableError, match="late"):
        await account.transport.request("POST", "/x")
    assert len(service.asked) == 4


async def test_a_service_that_stays_away_is_not_tried_for_ever(account, service):
    """A few tries, then the error."""
    service.answers = [refuse(500, "broken")]
    with pytest.raises(UnavailableError, match="broken"):
        await account.transport.request("GET", "/x")
    assert len(service.asked) == 4


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RequestRefusedError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, RequestRefusedError),
        (302, RequestRefusedError),
        (500, UnavailableError),
    ],
)
async def test_each_status_has_its_error_with_their_words(account, service, status, kind):
    """LimaCharlie's text is in the error."""
    service.answers = [refuse(status, "the reason")]
    with pytest.raises(kind, match="the reason"):
        await account.transport.request("POST", "/x")


async def test_a_413_for_a_users_token_is_explained(service):
    """It covers too many organizations; narrowing helps."""
    service.answers = [refuse(413, "too large")]
    async with LimaCharlie(LimaCharlieConfig(api_key=KEY, uid="u", url=service.url), environ={}) as account:
        with pytest.raises(RequestRefusedError, match="narrows it to one"):
            await account.transport.request("GET", "/x")


async def test_refused_credentials_say_where_they_come_from(account, service):
    """With LimaCharlie's reason and what to check."""
    service.mint = refuse(401, "unknown api key")
    with pytest.raises(AuthenticationError, match=r"the configuration: .*unknown api key.*revoked"):
        await account.transport.request("GET", "/x")
    assert service.asked == []


@pytest.mark.parametrize("answer", ["[]", '{"jwt": 5}', '{"jwt": ""}', '{"jwt": "a\\nb"}', "<html>"])
async def test_an_answer_without_a_token_is_no_token(account, service, answer):
    """A token that could break a header is none either."""
    service.mint = lambda _: web.Response(text=answer)
    with pytest.raises(UnavailableError, match="without a token"):
        await account.transport.request("GET", "/x")


async def test_a_request_that_takes_too_long_is_given_up(account, service):
    """Every call has a time limit."""
    await account.transport.tokens.get()
    done = asyncio.Event()

    async def stall(_reader, writer):
        await done.wait()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(UnavailableError, match="no answer in time"):
        await account.transport.request("POST", "/x", base=base, timeout=0.2)
    done.set()
    server.close()


async def test_an_endless_answer_is_given_up(account, service, monkeypatch):
    """A body has a limit."""
    monkeypatch.setattr("pipeline.limacharlie.transport._MAX_ANSWER", 1000)
    service.answers = [lambda _: web.Response(body=b"x" * 5000)]
    with pytest.raises(UnavailableError, match="larger than 1000 bytes"):
        await account.transport.request("POST", "/x")


async def test_empty_and_other_answers_count_as_success(account, service):
    """LimaCharlie answers some requests with nothing, or with text."""
    service.answers = [lambda _: web.Response(), lambda _: web.Response(text="done")]
    assert await account.transport.request("POST", "/x") == {}
    assert await account.transport.request("POST", "/x") == {}


@pytest.mark.parametrize(
    ("method", "reads", "page", "tries"),
    [("GET", None, "sign in", 4), ("POST", True, "sign in", 1), ("POST", None, " <html>sign in</html>", 1)],
)
async def test_a_page_that_a_proxy_put_there_is_no_answer(account, service, no_pauses, method, reads, page, tries):
    """It is a failure that may pass, not an empty list, nor a yes to a write."""
    service.answers = [lambda _: web.Response(text=page)]
    with pytest.raises(UnavailableError, match="not JSON") as caught:
        await account.transport.request(method, "/x", reads=reads)
    assert "proxy" in caught.value.fix
    assert len(service.asked) == tries


async def test_closing_twice_is_fine(account):
    """And without any request."""
    await account.close()
    await account.close()
