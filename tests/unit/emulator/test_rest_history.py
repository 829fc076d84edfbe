"""What looks back: insight, searches and replay."""

import base64
import gzip
import json
import time

import pytest

SECONDS = (1_767_225_600, 1_767_225_600 + 3600)
"""The virtual hour in which the records of a run are."""


def unpack(text: str) -> list:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def flat(pages: list[list]) -> list:
    return [item for page in pages for item in page]


def is_new_process(record: dict) -> bool:
    return record["routing"]["event_type"] == "NEW_PROCESS"


def domain(record: dict) -> str:
    return record["event"].get("DOMAIN_NAME", "")


async def made(local, stream: str = "event") -> list[dict]:
    """Let records be made, by reading a stream, and give them."""
    async with local.stream(type=stream) as reader:
        await reader.line()
        return [json.loads(await reader.line()) for _ in range(local.emulator.settings.events)]


async def pages(local, path: str, key: str, **query: str) -> list[list]:
    found, cursor = [], "-"
    while cursor:
        fields = {"start": SECONDS[0], "end": SECONDS[1], "is_compressed": "true", "cursor": cursor} | query
        text = "&".join(f"{name}={value}" for name, value in fields.items())
        page = await local.api("GET", f"/v1/insight/{local.oid}/{path}?{text}")
        found.append(unpack(page[key]))
        cursor = page["next_cursor"]
    return found


async def test_sensor_history(emulate):
    """A sensor's events are had in pages, forward or backward, whole or of one type, byte for byte."""
    local = await emulate(events=600)
    records = await made(local)
    sid = records[0]["routing"]["sid"]
    mine = [record for record in records if record["routing"]["sid"] == sid]
    forward = await pages(local, sid, "events", limit="7")
    assert flat(forward) == mine
    assert {len(page) for page in forward[:-1]} == {7}
    assert flat(await pages(local, sid, "events", limit="7", is_forward="false")) == mine[::-1]
    typed = await pages(local, sid, "events", event_type="NEW_PROCESS")
    assert flat(typed) == [record for record in mine if record["routing"]["event_type"] == "NEW_PROCESS"]


async def test_history_by_second(emulate):
    """The range is in seconds, both ends included; milliseconds and a range that ends before it begins are refused."""
    local = await emulate(events=600)
    records = await made(local)
    sid = records[0]["routing"]["sid"]
    second = SECONDS[0] + 2
    found = flat(await pages(local, sid, "events", start=str(second), end=str(second)))
    assert found == [r for r in records if r["routing"]["sid"] == sid and r["routing"]["event_time"] // 1000 == second]
    path = f"/v1/insight/{local.oid}/{sid}"
    await local.api("GET", f"{path}?start={second * 1000}&end={second * 1000}", status=400)
    await local.api("GET", f"{path}?start={second}&end={second - 1}", status=400)
    await local.api("GET", f"{path}?cursor=!", status=400)


async def test_plain_history(emulate):
    """Without compression the records are a list in the answer."""
    local = await emulate(events=100)
    records = await made(local)
    sid = records[0]["routing"]["sid"]
    page = await local.api("GET", f"/v1/insight/{local.oid}/{sid}?start={SECONDS[0]}&end={SECONDS[1]}")
    assert page["events"][0] == records[0]


async def test_detections(emulate):
    """Detections are had in pages, by category, and one by its id."""
    local = await emulate(events=300)
    records = await made(local, "detect")
    assert flat(await pages(local, "detections", "detects", limit="50")) == records
    cat = records[0]["cat"].replace(" ", "%20")
    chosen = flat(await pages(local, "detections", "detects", cat=cat))
    assert chosen == [record for record in records if record["cat"] == records[0]["cat"]]
    one = await local.api("GET", f"/v1/insight/{local.oid}/detections/{records[7]['detect_id']}")
    assert one == records[7]
    await local.api("GET", f"/v1/insight/{local.oid}/detections/nope", status=404)


async def test_audit(emulate):
    """Audit records are had in pages, by type and by sensor."""
    local = await emulate(events=300)
    records = await made(local, "audit")
    assert flat(await pages(local, "audit", "events", limit="99")) == records
    sid = next(record["entity"]["sid"] for record in records if "sid" in record["entity"])
    found = flat(await pages(local, "audit", "events", sid=sid, event_type="send_task"))
    assert found == [r for r in records if r["entity"].get("sid") == sid and r["etype"] == "send_task"]


async def test_live_history(emulate):
    """In live mode history has all that was made, whoever listened."""
    local = await emulate(rate=200, events=40)

    async def all_made() -> bool:
        now = int(time.time())
        page = await local.api("GET", f"/v1/insight/{local.oid}/audit?start={now - 60}&end={now}")
        return len(page["events"]) == 40

    await local.until(all_made)


async def test_emitted_records_are_history(emulate):
    """What a knob sends out is kept like what was generated."""
    local = await emulate(events=0)
    sensor = await local.sensor()
    routing = {"sid": sensor["sid"], "event_type": "X", "event_time": SECONDS[0] * 1000, "event_id": "e"}
    await local.turn("emit", stream="event", records=[{"routing": routing, "event": {}}, "no JSON"])
    assert await pages(local, sensor["sid"], "events") == [[{"routing": routing, "event": {}}]]


async def test_atoms_and_overview(emulate):
    """An event is found by its atom, its children by their parent's, and the overview says when there were events."""
    local = await emulate(events=900)
    records = await made(local)
    parents = {record["routing"].get("parent") for record in records}
    first = next(
        r for r in records if r["routing"].get("this") in parents and r["routing"]["event_type"] == "NEW_PROCESS"
    )
    sid, atom = first["routing"]["sid"], first["routing"]["this"]
    assert (await local.api("GET", f"/v1/insight/{local.oid}/{sid}/{atom}"))["event"] == first
    children = unpack(
        (await local.api("GET", f"/v1/insight/{local.oid}/{sid}/{atom}/children?is_compressed=true"))["events"]
    )
    assert children == [r for r in records if r["routing"].get("parent") == atom]
    span = f"start={SECONDS[0]}&end={SECONDS[1]}"
    overview = await local.api("GET", f"/v1/insight/{local.oid}/{sid}/overview?{span}")
    assert overview["overview"] == sorted(
        {r["routing"]["event_time"] // 1000 for r in records if r["routing"]["sid"] == sid}
    )
    count = await local.api("GET", f"/v1/insight/event_count/{local.oid}/{sid}?{span}")
    assert count["count"] == sum(r["routing"]["sid"] == sid for r in records)


async def test_objects(emulate):
    """A domain is found with its sensors, also by wildcard, and several at once."""
    local = await emulate(events=0)
    sensors = [await local.sensor("windows"), await local.sensor("linux")]
    now = int(time.time() * 1000)
    records = [
        {"routing": {"sid": one["sid"], "hostname": one["hostname"], "event_type": "DNS_REQUEST", "event_time": now},
         "event": {"DOMAIN_NAME": name}}
        for one, name in ((sensors[0], "evil.example"), (sensors[1], "evil.example"), (sensors[1], "Other.example"))
    ]  # fmt: skip
    await local.turn("emit", stream="event", records=records)
    base = f"/v1/insight/{local.oid}/objects"
    found = await local.api("GET", f"{base}/domain?name=evil.example&info=summary")
    assert (found["last_1_days"], found["last_365_days"], found["type"]) == (2, 2, "domain")
    wild = await local.api("GET", f"{base}/domain?name=%25.example&info=summary&with_wildcards=true&per_object=true")
    assert wild["last_7_days"] == {"evil.example": 2, "Other.example": 1}
    places = await local.api("GET", f"{base}/domain?name=other.example&info=locations&case_sensitive=false")
    assert places[sensors[1]["sid"]]["hostname"] == sensors[1]["hostname"]
    form = {"objects": json.dumps({"domain": ["evil.example", "none.example"]}), "info": "summary"}
    batch = await local.api("POST", base, form)
    assert batch["last_30_days"] == {"domain": {"evil.example": 2, "none.example": 0}}
    await local.api("GET", f"{base}/smell?name=x", status=400)


async def begin(local, query: str, *, stream: str = "event", status: int = 200, path: str = "") -> dict:
    body = {"oid": local.oid, "query": query, "stream": stream, "paginated": True}
    body |= {"startTime": str(SECONDS[0]), "endTime": str(SECONDS[1])}
    return await local.api("POST", f"/v1/search{path}", status=status, json=body)


async def search(local, query: str, stream: str = "event") -> list[list]:
    """Run a search to its end; gives the rows of each page."""
    name = (await begin(local, query, stream=stream))["queryId"]
    found, token = [], ""
    while True:
        answer = await local.api("GET", f"/v1/search/{name}?token={token}")
        if not answer["completed"]:
            assert answer["results"] == []
            continue
        [item] = answer["results"]
        found.append(item["rows"])
        token = item.get("nextToken", "")
        if not token:
            await local.api("DELETE", f"/v1/search/{name}")
            return found


async def test_search(emulate):
    """A search gives the records that match, in pages, each with when and what it was."""
    local = await emulate(events=600)
    records = await made(local)
    expected = [r for r in records if r["routing"]["event_type"] == "DNS_REQUEST"]
    await local.turn("searches", page=10, polls=0)
    rows = await search(local, "-24h | * | DNS_REQUEST | / exists")
    assert [row["data"] for page in rows for row in page] == expected
    assert {len(page) for page in rows[:-1]} == {10}
    assert rows[0][0]["mtd"] == {
        "id": expected[0]["routing"]["event_id"],
        "ts": expected[0]["routing"]["event_time"],
        "stream": "event",
        "projection": False,
    }


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("* | * | routing/hostname is 'X'", lambda r: r["routing"]["hostname"] == "X"),
        ("plat == windows | * | *", lambda r: r["routing"]["plat"] == 0x10000000),
        ('* | NEW_PROCESS | event/FILE_PATH contains "CMD"',
         lambda r: is_new_process(r) and "cmd" in r["event"]["FILE_PATH"].lower()),
        ("* | NEW_PROCESS | event/FILE_PATH contains 'CMD'",
         lambda r: is_new_process(r) and "CMD" in r["event"]["FILE_PATH"]),
        ("* | NEW_PROCESS DNS_REQUEST | / exists",
         lambda r: is_new_process(r) or r["routing"]["event_type"] == "DNS_REQUEST"),
        ("* | * | event/DOMAIN_NAME starts with `www` and not event/DOMAIN_NAME ends with 'com'",
         lambda r: domain(r).startswith("www") and not domain(r).endswith("com")),
        ("* | * | (event/PROCESS_ID > 5000 or event/DOMAIN_NAME exists)",
         lambda r: r["event"].get("PROCESS_ID", 0) > 5000 or "DOMAIN_NAME" in r["event"]),
        ("* | * | routing/event_type != NEW_PROCESS and routing/event_type matches '^NEW'",
         lambda r: r["routing"]["event_type"].startswith("NEW") and not is_new_process(r)),
    ],
)  # fmt: skip
async def test_search_filters(emulate, query, holds):
    """Each filter takes what it says."""
    local = await emulate(events=600)
    records = await made(local)
    await local.turn("searches", polls=0)
    expected = [record for record in records if holds(record)]
    assert [row["data"] for page in await search(local, query) for row in page] == expected
    assert expected or "'X'" in query or "'CMD'" in query


async def test_search_projection(emulate):
    """A projection gives its columns under their names, and a limit ends the search."""
    local = await emulate(events=600)
    await made(local)
    await local.turn("searches", polls=0)
    rows = flat(await search(local, "* | DNS_REQUEST | / exists | event/DOMAIN_NAME as d routing/hostname LIMIT 5"))
    assert len(rows) == 5
    assert {tuple(row["data"]) for row in rows} == {("d", "routing/hostname")}
    assert {row["mtd"]["projection"] for row in rows} == {True}


async def test_search_by_sid_and_other_streams(emulate):
    """Sensors may be given by their sids; detections and audit are searched too, by both of their names."""
    local = await emulate(events=300)
    events, detections, audits = await made(local), await made(local, "detect"), await made(local, "audit")
    await local.turn("searches", polls=0)
    sid = events[0]["routing"]["sid"]
    assert len(flat(await search(local, f"{sid} | * | *"))) == sum(r["routing"]["sid"] == sid for r in events)
    assert len(flat(await search(local, "* | * | cat exists", "detection"))) == len(detections)
    assert len(flat(await search(local, "* | * | cat exists", "detect"))) == len(detections)
    assert len(flat(await search(local, "* | * | etype exists", "audit"))) == len(audits)


@pytest.mark.parametrize(
    "query",
    ["", "nonsense", "* | *", "* | * | ", "* | * | a ~ b", "* | * | (a exists", "* | * | a exists b", "* | * | a is",
     "* | * | / exists | COUNT(x)", "bad == sel | * | == ==", "* | * | a matches '('", "* | * | a exists | b | c"],
)  # fmt: skip
async def test_search_refused(emulate, query):
    """What cannot be run is told in a 200 by validation, and as a failure at the start."""
    local = await emulate()
    assert "failed to transcode query" in (await begin(local, query, path="/validate"))["error"]
    assert "failed to transcode query" in (await begin(local, query, status=500))["error"]


async def test_search_estimate(emulate):
    """Validation of a good query says what is in scope and what it would cost."""
    local = await emulate(events=300)
    await made(local)
    answer = await begin(local, "* | * | *", path="/validate")
    assert answer["stats"]["eventsInScope"] == 300
    assert answer["estimatedPrice"]["currency"] == "USD cents"
    assert "error" not in answer


async def test_search_slots(emulate):
    """Too many searches at once are a 429; one that rests between pages holds no slot; the listing tells."""
    local = await emulate(events=300)
    await made(local)
    await local.turn("searches", concurrent=1, polls=0, page=10)
    first = (await begin(local, "* | * | *"))["queryId"]
    assert "maximum concurrent" in (await begin(local, "* | * | *", status=429))["error"]
    listing = await local.api("GET", f"/v1/search/{local.oid}/queries?state=executing")
    assert (listing["slotsHeld"], listing["count"], listing["queries"][0]["queryId"]) == (1, 1, first)
    token = (await local.api("GET", f"/v1/search/{first}"))["results"][0]["nextToken"]
    listing = await local.api("GET", f"/v1/search/{local.oid}/queries")
    assert (listing["slotsHeld"], listing["queries"][0]["state"]) == (0, "idle")
    second = (await begin(local, "* | * | *"))["queryId"]
    # a token may be presented to another search for the same
    resumed = (await local.api("GET", f"/v1/search/{second}?token={token}"))["results"][0]["rows"]
    assert resumed == (await local.api("GET", f"/v1/search/{first}?token={token}"))["results"][0]["rows"]
    await local.api("DELETE", f"/v1/search/{first}")
    await local.api("GET", f"/v1/search/{first}", status=404)
    await local.api("GET", f"/v1/search/{second}?token=!", status=400)
    limits = await local.api("GET", f"/v1/search/{local.oid}/limits")
    assert (limits["concurrency"]["maxConcurrentQueries"], limits["pagination"]["resultsPerPage"]) == (1, 10)


RULE = {
    "detect": {"event": "DNS_REQUEST", "op": "contains", "path": "event/DOMAIN_NAME", "value": "evil"},
    "respond": [],
}


async def replay(local, **body) -> dict:
    return await local.api("POST", "/", json={"oid": local.oid, **body})


async def test_replay_given_events(emulate):
    """A rule is run over given events, and over those alone that it is for."""
    local = await emulate()
    events = [
        {"routing": {"event_type": kind}, "event": {"DOMAIN_NAME": name}}
        for kind, name in (("DNS_REQUEST", "evil.example"), ("DNS_REQUEST", "good.example"), ("OTHER", "evil.example"))
    ]
    answer = await replay(local, rule_source={"rule": RULE}, event_source={"stream": "event", "events": events})
    assert (answer["did_match"], answer["stats"]["n_eval"]) == (True, 3)
    assert [result["data"] for result in answer["results"]] == events[:1]
    wrong = await replay(local, rule_source={"rule": {"detect": {"op": "bogus"}}}, event_source={"events": events})
    assert "bogus" in wrong["error"]


async def test_replay_history(emulate):
    """A stored rule is run over what was generated, by time and sensor."""
    local = await emulate(events=300)
    records = await made(local)
    rule = {"detect": {"op": "exists", "path": "event/DOMAIN_NAME"}, "respond": [{"action": "report"}]}
    await local.api("POST", f"/v1/hive/dr-general/{local.oid}/dns/data", {"data": json.dumps(rule)})
    times = {"start_time": SECONDS[0], "end_time": SECONDS[1]}
    source = {"stream": "event", "sensor_events": {**times, "selector": "plat == linux"}}
    answer = await replay(local, rule_source={"rule_name": "dns"}, event_source=source)
    expected = [r for r in records if "DOMAIN_NAME" in r["event"] and r["routing"]["plat"] == 0x20000000]
    assert [result["data"] for result in answer["results"]] == expected
    answer = await local.api("POST", "/", json={"oid": local.oid, "rule_source": {"rule_name": "nope"}}, status=400)
    assert "unknown rule" in answer["error"]


async def test_replay_query(emulate):
    """A query over replay gives its results in pages, or all at once."""
    local = await emulate(events=300)
    records = await made(local)
    source = {"stream": "event", "sensor_events": {"cursor": "-"}}
    answer = await replay(local, query="-1h | * | DNS_REQUEST | / exists", event_source=source)
    assert len(answer["results"]) == sum(r["routing"]["event_type"] == "DNS_REQUEST" for r in records)
    assert answer["cursor"] == ""
    wrong = await replay(local, query="nonsense", event_source=source)
    assert "failed to transcode" in wrong["error"]
    await local.api("POST", "/", json=[], status=400)
