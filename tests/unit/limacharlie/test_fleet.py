"""The same for many, a few at a time."""

import asyncio

import pytest

from pipeline.core.errors import PermissionDeniedError, UnavailableError


async def test_at_most_so_many_at_once_and_in_order(account):
    """Results stand in the order of the items, whoever was first."""
    running, most = 0, 0
    turns = asyncio.Semaphore(0)

    async def call(number):
        nonlocal running, most
        running += 1
        most = max(most, running)
        if number % 2:
            await asyncio.sleep(0)
        turns.release()
        running -= 1
        return number * 10

    outcomes = await account.each(range(50), call, limit=4)
    assert most <= 4
    assert [outcome.value for outcome in outcomes] == [number * 10 for number in range(50)]
    assert all(outcome.ok for outcome in outcomes)


async def test_one_that_fails_does_not_end_the_others(account):
    """Its error stands in its place."""

    async def call(number):
        if number == 1:
            raise UnavailableError("away")
        return number

    outcomes = await account.each([0, 1, 2], call)
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert (outcomes[1].item, str(outcomes[1].error)) == (1, "away")


@pytest.mark.parametrize("error", [PermissionDeniedError("no right"), ValueError("bug")])
async def test_what_would_fail_all_ends_all(account, error):
    """Ten thousand sensors do not make ten thousand refused requests."""
    calls = 0

    async def call(_):
        nonlocal calls
        calls += 1
        raise error

    with pytest.raises(type(error)):
        await account.each(range(10_000), call, limit=8)
    assert calls <= 8


async def test_items_may_come_while_we_work(account):
    """A walk through pages, of which no more is read than there are hands for."""
    taken = 0

    async def walk():
        nonlocal taken
        for number in range(20):
            taken = number
            yield number

    ahead = 0

    async def call(number):
        nonlocal ahead
        await asyncio.sleep(0)
        ahead = max(ahead, taken - number)
        return number

    outcomes = await account.each(walk(), call, limit=3)
    assert len(outcomes) == 20
    assert ahead <= 3


async def test_a_walk_that_fails_is_an_error(account):
    """Not a shorter list."""

    async def walk():
        yield 1
        raise UnavailableError("page lost")

    async def call(number):
        return number

    with pytest.raises(UnavailableError, match="page lost"):
        await account.each(walk(), call)


async def test_giving_up_ends_the_calls(account):
    """A cancelled fleet leaves nothing running."""
    started, ended = asyncio.Event(), asyncio.Event()

    async def call(_):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.ensure_future(account.each([1], call))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
