"""Searches with LCQL."""

import asyncio
from dataclasses import asdict

import orjson
import pytest
import structlog.testing

from pipeline.core.errors import RateLimitedError, RequestRefusedError, UnavailableError, UsageError
from pipeline.limacharlie import search_run
from pipeline.limacharlie.search import Checkpoint, Query, SavedQuery

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
START, VALIDATE, POLL, CANCEL = (
    "POST /v1/search",
    "POST /v1/search/validate",
    "GET /v1/search/q1",
    "DELETE /v1/search/q1",
)
QUERY = "* | NEW_PROCESS | / exists"
RANGE = (1_700_000_000, 1_700_003_600)


def item(number, token=None, rows=1, **more):
    """A result item with rows that are named by page and place."""
    return {
        "searchResultId": f"r{number}",
        "type": "events",
        "rows": [
            {"mtd": {"id": f"{number}.{row}", "ts": 1_700_000_000_000 + row, "stream": "event"}, "data": {"n": row}}
            for row in range(rows)
        ],
        "facets": None,
        **({"nextToken": token} if token else {}),
        **more,
    }


def done(*items):
    return {"completed": True, "results": list(items)}


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(search_run, "_POLL", (0.0, 0.01))


@pytest.fixture
def searches(service):
    """A service that starts `q1`, and forgets it."""
    service.route(START, {"queryId": "q1"})
    service.route(CANCEL, {})
    return service


async def rows(run):
    async with run as found:
        return [row.row_id async for row in found.rows()]


async def test_a_search_goes_from_page_to_page(account, searches):
    """Polled until each is whole; times are seconds as text; cancelled at the end."""
    searches.route(
        POLL, {"completed": False, "nextPollInMs": 1, "results": []}, done(item(1, "t1", rows=2)), done(item(2))
    )
    assert await rows(account.search.run(QUERY, *RANGE)) == ["1.0", "1.1", "2.0"]
    assert searches.asked[0].json == {
        "oid": OID,
        "query": QUERY,
        "startTime": "1700000000",
        "endTime": "1700003600",
        "stream": "event",
        "paginated": True,
    }
    assert [(asked.route, asked.query.get("token")) for asked in searches.asked[1:]] == [
        (POLL, None),
        (POLL, None),
        (POLL, "t1"),
        (CANCEL, None),
    ]


async def test_rows_that_come_twice_are_given_once(account, searches):
    """A reply before the page is whole may hold them already."""
    searches.route(
        POLL,
        {"completed": False, "results": [item(1)]},
        {"completed": False, "results": [item(1), item(2)]},
        done(item(2)),
    )
    assert await rows(account.search.run(QUERY, *RANGE)) == ["1.0", "2.0"]


async def test_a_row_says_when_and_what(account, searches):
    """A projection's columns are marked as such."""
    row = {"mtd": {"id": "x", "ts": 1_700_000_000_500, "stream": "detect", "projection": True}, "data": {"Host": "a"}}
    searches.route(POLL, done({"type": "events", "rows": [row, "nonsense", {"data": None}]}, {"type": "facets"}))
    async with account.search.run(QUERY, *RANGE) as found:
        page = await anext(found.pages())
    assert len(page.items) == 2
    first, second = page.rows
    assert (first.data, first.at, first.stream, first.projected) == ({"Host": "a"}, 1_700_000_000.5, "detect", True)
    assert (second.data, second.at, second.row_id) == ({}, None, "")


async def test_progress_is_told(account, searches):
    """From the sums that LimaCharlie keeps, never over the whole."""

    def stats(done_batches, scanned):
        sums = {
            "batchesCompleted": done_batches,
            "batchesInScope": 4,
            "eventsScanned": scanned,
            "billedEvents": 1,
        }
        return {"stats": {"cumulativeStats": sums}}

    searches.route(
        POLL, done(item(1, "t1", **stats(1, 10))), done(item(2, "t2", stats=None)), done(item(3, **stats(9, 30)))
    )
    seen = []
    async with account.search.run(QUERY, *RANGE) as found:
        async for _ in found.pages():
            progress = found.progress
            seen.append((progress.pages, progress.rows, progress.fraction, progress.scanned, progress.billed))
    assert seen == [(1, 1, 0.25, 10, 1), (2, 2, 0.25, 10, 1), (3, 3, 1.0, 30, 1)]


@pytest.mark.parametrize("how", ["error", "break", "cancel"])
async def test_a_search_is_cancelled_however_it_ends(account, searches, how):
    """It holds one of few places."""
    searches.route(POLL, done(item(1, "t1")), {"completed": False, "nextPollInMs": 10_000})
    polling = asyncio.Event()

    async def work():
        async with account.search.run(QUERY, *RANGE) as found:
            async for _ in found.rows():
                if how == "error":
                    raise ValueError("mine")
                if how == "break":
                    break
                polling.set()

    task = asyncio.ensure_future(work())
    if how == "cancel":
        await polling.wait()
        task.cancel()
    await asyncio.wait([task])
    assert searches.asked[-1].route == CANCEL
    if how == "error":
        with pytest.raises(ValueError, match="mine"):
            await task


async def test_a_cancel_that_fails_is_logged_and_no_error(account, searches):
    """The rows are there; the place comes back later."""
    searches.route(POLL, done(item(1)))
    searches.routes[CANCEL] = [searches.refusal(500, "no")]
    with structlog.testing.capture_logs() as lines:
        assert await rows(account.search.run(QUERY, *RANGE)) == ["1.0"]
    assert [line["query_id"] for line in lines] == ["q1"]


async def test_a_search_that_was_cut_off_goes_on_by_itself(account, searches, no_pauses):
    """It is started again at the page it was at; no row comes twice, none is missing."""
    searches.route(POLL, done(item(1, "t1")))
    searches.route(START, {"queryId": "q1"}, {"queryId": "q2"})
    searches.route("GET /v1/search/q2", done(item(2, "t2")), done(item(3)))
    searches.routes[POLL].append(searches.refusal(404, "unknown query"))
    assert await rows(account.search.run(QUERY, *RANGE)) == ["1.0", "2.0", "3.0"]
    resumed = [asked for asked in searches.asked if asked.path.startswith("/v1/search/q2?")]
    assert [asked.query["token"] for asked in resumed] == ["t1", "t2"]


async def test_a_search_can_go_on_in_another_process(account, searches, no_pauses):
    """From a checkpoint of plain values, which is None when nothing is left."""
    searches.route(POLL, done(item(1, "t1")))
    searches.routes[POLL].append(searches.refusal(503))
    run = account.search.run(QUERY, *RANGE)
    with pytest.raises(UnavailableError):
        await rows(run)
    stored = orjson.loads(orjson.dumps(asdict(run.checkpoint)))
    assert stored["page"] == 2
    checkpoint = Checkpoint(Query(**stored.pop("query")), **stored)
    assert checkpoint == run.checkpoint
    searches.route(POLL, done(item(2)))
    async with account.search.resume(checkpoint) as found:
        assert [row.row_id async for row in found.rows()] == ["2.0"]
        assert found.checkpoint is None
        assert found.progress.pages == 2
        assert [row async for row in found.rows()] == []
    assert searches.asked[-2].query == {"token": "t1"}


async def test_a_page_that_was_not_finished_with_is_where_one_goes_on(account, searches):
    """The place moves when the next page is asked for."""
    searches.route(POLL, done(item(1, "t1")))
    async with account.search.run(QUERY, *RANGE) as found:
        async for _ in found.pages():
            break
    assert found.checkpoint == Checkpoint(Query(QUERY, *RANGE), "")


async def test_an_error_of_the_search_is_not_tried_again(account, searches):
    """It is LimaCharlie's last word, and comes with status 200."""
    searches.route(POLL, {"completed": True, "error": "context canceled"})
    with pytest.raises(RequestRefusedError, match="context canceled"):
        await rows(account.search.run(QUERY, *RANGE))
    assert [asked.route for asked in searches.asked] == [START, POLL, CANCEL]


async def test_a_token_that_leads_nowhere_ends_in_an_error(account, searches):
    """Else the search would go round for ever, at a price."""
    searches.route(POLL, done(item(1, "t1")))
    with pytest.raises(UnavailableError, match="same token"):
        await rows(account.search.run(QUERY, *RANGE))


async def test_a_page_that_takes_for_ever_is_given_up(account, searches, monkeypatch):
    """LimaCharlie ends its own queries after minutes."""
    monkeypatch.setattr(search_run, "PAGE_TIME", 0.02)
    searches.route(POLL, {"completed": False})
    with pytest.raises(RequestRefusedError, match="in time"):
        await rows(account.search.run(QUERY, *RANGE))
    assert searches.asked[-1].route == CANCEL


@pytest.mark.parametrize(
    "answer", [{"error": "failed to transcode query: x"}, (500, "failed to transcode query: x"), {}]
)
async def test_a_query_that_is_not_understood_is_refused_once(account, searches, answer):
    """Also where LimaCharlie calls it a fault of its own."""
    if isinstance(answer, tuple):
        searches.routes[START] = [searches.refusal(*answer)]
    else:
        searches.route(START, answer)
    with pytest.raises((RequestRefusedError, UnavailableError), match="transcode" if answer else "did not name"):
        await rows(account.search.run(QUERY, *RANGE))
    assert len(searches.asked) == 1


async def test_too_many_searches_are_the_callers_to_plan(account, searches):
    """The limit is of searches, and does not hold up the rest of the client."""
    searches.routes[START] = [searches.refusal(429, "maximum concurrent queries reached", Retry_After="600")]
    with pytest.raises(RateLimitedError, match="maximum concurrent"):
        await rows(account.search.run(QUERY, *RANGE))
    assert len(searches.asked) == 1


async def test_a_query_is_checked_and_priced(account, searches):
    """In cents, under either name."""
    price = {"estimatedPrice": {"value": 1.5, "currency": "USD cents"}, "stats": {"eventsInScope": 7}}
    searches.route(VALIDATE, price, {"estimatedPrice": {"amount": 2}}, {"error": "syntax"})
    found = await account.search.validate(QUERY, *RANGE, stream="detect")
    assert (found.price, found.currency, found.stats) == (1.5, "USD cents", {"eventsInScope": 7})
    assert searches.asked[0].json["stream"] == "detect"
    assert (await account.search.validate(QUERY)).price == 2.0
    with pytest.raises(RequestRefusedError, match="syntax"):
        await account.search.validate(QUERY)


async def test_an_empty_query_or_range_is_refused_at_once(account, searches):
    """Nothing is started for it."""
    with pytest.raises(UsageError, match="empty"):
        account.search.run(" ")
    with pytest.raises(UsageError, match="not before"):
        account.search.run(QUERY, "1h", "2h")
    assert searches.asked == []


async def test_saved_queries(account, searches):
    """Records of the hive `query`; run over their own range, another, or the last day."""
    path = f"/v1/hive/query/{OID}"
    searches.route(f"POST {path}/mine/data", {})
    await account.search.save(SavedQuery("mine", QUERY, "detect", *RANGE, "why"))
    data = {"query": QUERY, "stream": "detect", "start": RANGE[0], "end": RANGE[1], "description": "why"}
    assert orjson.loads(searches.asked[0].form["data"]) == data
    assert orjson.loads(searches.asked[0].form["usr_mtd"]) == {"enabled": True}
    searches.route(f"GET {path}/mine/data", {"data": data})
    searches.route(f"GET {path}", {"mine": {"data": data}})
    assert await account.search.saved("mine") == SavedQuery("mine", QUERY, "detect", *RANGE, "why")
    assert list(await account.search.all_saved()) == ["mine"]
    assert (await account.search.run_saved("mine")).query == Query(QUERY, *RANGE, "detect")
    assert (await account.search.run_saved("mine", RANGE[0] + 60)).query.start == RANGE[0] + 60
    searches.route(f"GET {path}/bare/data", {"data": {"query": QUERY}}, {"data": {}})
    bare = (await account.search.run_saved("bare")).query
    assert 86_400 <= bare.end - bare.start <= 86_402
    with pytest.raises(UnavailableError, match="no text"):
        await account.search.saved("bare")


async def test_a_list_of_searches_that_never_ends_is_left(account, searches):
    """A page that brings nothing new is the last one, though it says otherwise."""
    searches.route(f"GET /v1/search/{OID}/queries", {"queries": [{"queryId": "a"}], "truncated": True})
    async with asyncio.timeout(5):
        assert [doc["queryId"] async for doc in account.search.open_queries()] == ["a"]
    assert len(searches.asked) == 2


async def test_open_searches_limits_and_cancelling(account, searches):
    """What one needs to know when there is no place left."""
    listed = [{"queryId": "a"}, {"queryId": "b"}]
    searches.route(
        f"GET /v1/search/{OID}/queries",
        {"queries": listed, "truncated": True},
        {"queries": [{"queryId": "b"}, {"queryId": "c"}]},
    )
    searches.route(f"GET /v1/search/{OID}/limits", {"concurrency": {"maxConcurrentQueries": 10}})
    assert [doc["queryId"] async for doc in account.search.open_queries("executing")] == ["a", "b", "c"]
    assert [asked.query["offset"] for asked in searches.asked] == ["0", "200"]
    assert (await account.search.limits())["concurrency"] == {"maxConcurrentQueries": 10}
    await account.search.cancel("q1")
    assert searches.asked[-1].route == CANCEL
