"""When a token is renewed, and when another one cannot help."""

import asyncio
import base64

import orjson
import pytest

from pipeline.core.errors import AuthenticationError, RateLimitedError, UnavailableError
from pipeline.limacharlie.token import DENIAL_MEMORY, MARGIN, Tokens, named_permission, parse_token

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"


@pytest.fixture
def tokens(mint, clock):
    return Tokens(mint, clock, oid=OID)


def encode(claims):
    return "e30." + base64.urlsafe_b64encode(orjson.dumps(claims)).decode().rstrip("=") + ".c2ln"


async def test_a_token_is_kept_until_shortly_before_its_end(tokens, mint, clock):
    """One token serves for its life less a margin."""
    first = await tokens.get()
    clock.time += 3600 - MARGIN - 1
    assert await tokens.get() is first
    clock.time += 2
    assert (await tokens.get()).text != first.text
    assert mint.count == 2


async def test_a_short_life_has_a_short_margin(tokens, mint, clock):
    """A token of five seconds is used for four."""
    mint.life = 5
    await tokens.get()
    clock.time += 3.9
    await tokens.get()
    assert mint.count == 1
    clock.time += 0.2
    await tokens.get()
    assert mint.count == 2


async def test_many_who_wait_get_one_token(tokens, mint):
    """However many need a token at once, the service is asked once."""
    found = await asyncio.gather(*(tokens.get() for _ in range(50)))
    assert len({token.text for token in found}) == 1
    assert mint.count == 1


async def test_many_who_wait_share_one_failure(tokens, mint):
    """A service that fails is not asked again by each who waits."""
    mint.error = UnavailableError("away")
    found = await asyncio.gather(*(tokens.get() for _ in range(50)), return_exceptions=True)
    assert {type(error) for error in found} == {UnavailableError}
    assert mint.count == 1


async def test_who_is_cancelled_does_not_take_the_others_along(tokens, mint):
    """The next in the row asks."""
    tasks = [asyncio.ensure_future(tokens.get()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1] is found[2]


async def test_refused_credentials_are_asked_about_ever_more_rarely(tokens, mint, clock):
    """In an hour of trying each second a wrong key costs few requests."""
    mint.error = AuthenticationError("unknown api key")
    for _ in range(3600):
        with pytest.raises(AuthenticationError):
            await tokens.get()
        clock.time += 1
    assert mint.count < 25


async def test_repaired_credentials_are_found_out(tokens, mint, clock):
    """A refusal is not for ever."""
    mint.error = AuthenticationError("unknown api key")
    with pytest.raises(AuthenticationError):
        await tokens.get()
    mint.error = None
    clock.time += 10.1
    assert await tokens.get()


async def test_a_pause_that_was_asked_for_is_kept(tokens, mint, clock):
    """After a 429 the service is left alone for as long as it said."""
    mint.error = RateLimitedError("slow down", after=30)
    for _ in range(29):
        with pytest.raises(RateLimitedError):
            await tokens.get()
        clock.time += 1
    assert mint.count == 1


async def test_a_refused_token_is_replaced_once_for_all(tokens, mint):
    """A hundred requests refused under one token lead to one new token."""
    old = await tokens.get()
    found = await asyncio.gather(*(tokens.after_refusal(old, "GET /x") for _ in range(100)))
    assert {token.text for token in found} == {tokens.current.text}
    assert mint.count == 2


async def test_a_permission_that_the_new_token_lacks_is_no_reason_to_try_again(tokens, mint):
    """The text names it, the new token's permissions do not hold it."""
    old = await tokens.get()
    assert await tokens.after_refusal(old, "POST /x", "missing permission: output.set") is None
    assert mint.count == 2


async def test_a_permission_that_the_new_token_has_is(tokens, mint):
    """It was granted since the old token was made."""
    old = await tokens.get()
    mint.claims["perms"] = ["output.list", "output.set"]
    assert await tokens.after_refusal(old, "POST /x", "missing permission: output.set") is not None


async def test_a_missing_permission_is_remembered(tokens, mint, clock):
    """No number of refusals leads to more tokens while it is fresh in memory; later one is tried again."""
    await tokens.get()
    for _ in range(100):
        assert await tokens.after_refusal(tokens.current, "POST /x", "missing output.set") is None
        assert await tokens.after_refusal(tokens.current, "POST /other", "missing output.set") is None
    assert mint.count == 2
    clock.time += DENIAL_MEMORY + 1
    assert await tokens.after_refusal(tokens.current, "POST /x", "missing output.set") is None
    assert mint.count == 3


async def test_an_unnamed_denial_is_remembered_by_what_was_asked(tokens, mint):
    """Where the text names nothing, the request stands for the permission; others are free to renew."""
    token = await tokens.get()
    another = await tokens.after_refusal(token, "GET /x", "unauthorized")
    tokens.deny(another, "GET /x", "unauthorized")
    assert await tokens.after_refusal(another, "GET /x", "unauthorized") is None
    assert mint.count == 2
    assert await tokens.after_refusal(another, "GET /y", "unauthorized") is not None
    assert mint.count == 3


async def test_what_is_asked_again_and_again_does_not_keep_a_denial_alive(tokens, mint, clock):
    """The memory ends when it was to end, so that a permission that is granted meanwhile is found."""
    token = await tokens.get()
    for _ in range(8):
        tokens.deny(token, "GET /x")
        clock.time += DENIAL_MEMORY / 8
    assert await tokens.after_refusal(token, "GET /x") is not None
    assert mint.count == 2


async def test_the_memory_of_denials_is_bounded(tokens):
    """A stranger's error texts cannot fill it."""
    token = await tokens.get()
    for n in range(5000):
        tokens.deny(token, f"GET /{n}")
    assert len(tokens._denials) <= 256


def test_a_clock_that_runs_ahead_does_not_make_each_token_old(clock):
    """The life is the difference of two claims where there are two; a life that seems over counts as the usual one."""
    both = parse_token(encode({"iat": 1000, "exp": 1100}), OID, clock)
    assert both.until - clock.monotonic() == pytest.approx(80)
    ahead = parse_token(encode({"exp": clock.now() - 7200}), OID, clock)
    assert ahead.until - clock.monotonic() == pytest.approx(3600 - MARGIN)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "a.!!!.c", encode([1]), encode({"exp": "soon", "perms": 5})])
def test_a_token_that_cannot_be_read_is_used_all_the_same(clock, text):
    """Its content is LimaCharlie's business."""
    token = parse_token(text, OID, clock)
    assert token.until > clock.monotonic()
    assert token.permissions is None


def test_a_users_token_has_permissions_by_organization(clock):
    """Those of our organization count."""
    text = encode({"oid": {OID: ["a.b"], "other": ["c.d"]}})
    assert parse_token(text, OID, clock).permissions == {"a.b"}
    assert parse_token(text, "none", clock).permissions == frozenset()
    assert parse_token(text, None, clock).permissions is None


def test_a_token_does_not_show_itself(clock):
    """Its text is in no repr."""
    text = encode({"exp": 1})
    assert text not in repr(parse_token(text, OID, clock))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("missing permission output.set", "output.set"),
        ("unauthorized: requires insight.evt.get", "insight.evt.get"),
        ('missing privilege "dr.list.managed"', "dr.list.managed"),
        ("unauthorized", None),
        ("missing: see https://docs.limacharlie.io/x", None),
        ("not valid for me@mail.example.com, denied", None),
        ("output.set", None),
    ],
)
def test_the_missing_permission_is_found_in_the_text(text, name):
    """Host names and addresses are not taken for permissions."""
    assert named_permission(text) == name
