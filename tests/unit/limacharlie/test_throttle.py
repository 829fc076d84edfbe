"""Staying inside of the rate limit before a 429 comes."""

import time

import pytest
from aiohttp import web

from pipeline.core.errors import RateLimitedError
from pipeline.limacharlie.throttle import Throttle


def limited(quota, period):
    headers = {"X-RateLimit-Quota": str(quota), "X-RateLimit-Period": str(period)}
    return lambda _: web.json_response({}, headers=headers)


def test_nothing_is_held_back_before_a_quota_is_known(clock):
    """LimaCharlie's limits are its own to name."""
    throttle = Throttle(clock)
    for _ in range(20_000):
        throttle.leave(throttle.wait())
    assert throttle.wait() <= 0


def test_a_quota_holds_in_every_window(clock):
    """Whatever the demand, no window of the period sees more requests than the quota."""
    throttle = Throttle(clock)
    throttle.learn({"X-RateLimit-Quota": "5", "X-RateLimit-Period": "10"})
    left = []
    for number in range(40):
        wait = max(0.0, throttle.wait())
        throttle.leave(wait)
        left.append(clock.now() + wait)
        if number == 20:
            clock.time += 23.0
    assert all(later - earlier >= 10 for earlier, later in zip(left, left[5:], strict=False))


def test_requests_before_the_quota_was_known_count(clock):
    """The window did not begin when we learned of it."""
    throttle = Throttle(clock)
    for _ in range(5):
        throttle.leave(throttle.wait())
    clock.time += 4
    throttle.learn({"X-RateLimit-Quota": "5"})
    assert throttle.wait() == pytest.approx(56)


@pytest.mark.parametrize("value", ["", "0", "-1", "x", "9" * 30, "٣"])
def test_a_senseless_quota_is_ignored(clock, value):
    """It must not stop the program."""
    throttle = Throttle(clock)
    throttle.learn({"X-RateLimit-Quota": value, "X-RateLimit-Period": value})
    throttle.leave(0)
    assert throttle.wait() <= 0


async def test_the_client_slows_down_by_itself(account, service):
    """The third request of a quota of two waits for the window, and none is refused."""
    service.answers = [limited(2, 1)]
    began = time.monotonic()
    for _ in range(3):
        await account.transport.request("GET", "/x")
    assert time.monotonic() - began >= 1.0
    assert len(service.asked) == 3


async def test_a_window_that_is_too_long_is_the_callers_to_plan(account, service):
    """An error that says how long, instead of a silent hour."""
    service.answers = [limited(1, 600)]
    await account.transport.request("GET", "/x")
    for _ in range(3):
        with pytest.raises(RateLimitedError) as caught:
            await account.transport.request("GET", "/x")
        assert 500 < caught.value.after <= 600
    assert len(service.asked) == 1


async def test_one_service_does_not_slow_another(account, service):
    """Limits belong to a service: too many searches say nothing of the REST API."""
    service.answers = [limited(1, 600)]
    await account.transport.request("GET", "/x", base=f"{service.url}/search")
    began = time.monotonic()
    await account.transport.request("GET", "/x")
    assert time.monotonic() - began < 1.0
