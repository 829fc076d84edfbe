"""Source `ai_session`: every message of every session is one record, once."""

import asyncio
import json
import random

import pytest

from pipeline.limacharlie import records
from pipeline.limacharlie.ai import follow as follow_module
from pipeline.limacharlie.ai.opened import Opened


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Connect again at once: how long a back-off waits is tested where back-off is."""

    class Quick:
        def __init__(self, base, cap):
            pass

        def next(self):
            return 0.01

        def reset(self):
            pass

    monkeypatch.setattr(follow_module, "Backoff", Quick)


async def test_sessions_as_they_appear(cloud, follow):
    """Each session of the organization is followed from its first message to its end, also several at once."""
    following = follow()
    first, second = await cloud.start(profile={"one_shot": True}), await cloud.start(profile={"one_shot": True})
    await following.until("AI_SESSION_END", 2)
    for session in (first, second):
        assert cloud.transcript(session) == following.messages(session)
    assert following.report.states[-1][0] == "ok"


async def test_the_form_of_a_record(cloud, follow):
    """A record has LimaCharlie's form, an id of its own and the session's; the detection's where a sink of ours opened it."""
    opened = Opened("investigate", "0" * 32, "11111111-2222-3333-4444-555555555555")
    session = await cloud.start(name=opened.name("Triage"), profile={"one_shot": True})
    following = follow()
    await following.until("AI_SESSION_END")
    found = following.records[0]
    assert cloud.ready["oid"] == found["routing"]["oid"]
    assert "AI_SESSION_STATUS" == found["routing"]["event_type"]
    assert records.time_ms(found) == records.parse_time(found["event"]["timestamp"])
    about = {"id": session, "name": opened.name("Triage"), "sink": "investigate", "detect_id": opened.detect_id}
    assert about == found["session"]
    ids = [record["routing"]["event_id"] for record in following.records]
    assert len(set(ids)) == len(ids)
    assert records.unique_id(found) == ids[0]


async def test_twenty_cuts(cloud, follow):
    """Through 20 cuts at random moments (seed 7), with replays that come twice, each message is one record, in order."""
    rng = random.Random(7)
    following = follow()
    session = await cloud.start("begin")
    await following.until("AI_RESULT")
    for cut in range(20):
        cloud.turn("ai_replay", copies=2)
        cloud.turn("ai_emit", session_id=session, count=rng.randrange(1, 30), payload={"cut": cut})
        if rng.random() < 0.5:
            await asyncio.sleep(rng.random() * 0.02)  # somewhere in the middle of what is under way
        cloud.turn("ai_drop", session_id=session, how=rng.choice(["reset", "half"]) if cut % 5 == 0 else "reset")
        cloud.turn("ai_emit", session_id=session, count=rng.randrange(1, 5), payload={"away": cut})
    cloud.turn("ai_end", session_id=session, reason="completed")
    await following.until("AI_SESSION_END")
    assert cloud.transcript(session) == following.messages(session)


async def test_again_after_a_restart(cloud, follow):
    """A second process gives the same records with the same ids, so that `dedupe` knows them."""
    before = follow()
    session = await cloud.start("begin")
    await before.until("AI_RESULT")
    await before.stop()
    cloud.turn("ai_emit", session_id=session, payload={"while": "away"})
    after = follow()
    cloud.turn("ai_end", session_id=session)
    await after.until("AI_SESSION_END")
    assert before.outlet.records == after.outlet.records[: len(before.outlet.records)]
    assert cloud.transcript(session) == after.messages(session)


async def test_ended_while_away(cloud, follow):
    """A session that ended before the process began is read from its history, with its end; an older one is left alone."""
    old = await cloud.start(profile={"one_shot": True})
    cloud.emulator.panel.ai.sessions[old].created_at = "2020-01-01T00:00:00Z"
    session = await cloud.start(profile={"one_shot": True})
    while (await cloud.account.ai.org_sessions.get(session)).status != "ended":
        await asyncio.sleep(0.01)
    following = follow()
    end = await following.until("AI_SESSION_END")
    assert {"reason": "completed", "exit_code": 0} == end["event"]["payload"]
    assert cloud.transcript(session) == following.messages(session)
    assert [] == following.messages(old)


async def test_an_end_without_a_transcript(cloud, follow):
    """Where the history does not tell of the end, the list of sessions does."""
    session = await cloud.start()
    cloud.turn("ai_end", session_id=session, reason="heartbeat_stale", exit_code=9)
    cloud.emulator.panel.ai.sessions[session].transcript.clear()
    following = follow()
    end = await following.until("AI_SESSION_END")
    assert {"reason": "heartbeat_stale", "exit_code": 9} == end["event"]["payload"]


async def test_one_session(cloud, follow):
    """With `session` only that one is followed, and the source is at its end with it."""
    session, other = await cloud.start(profile={"one_shot": True}), await cloud.start(profile={"one_shot": True})
    following = follow(session=session)
    await asyncio.wait_for(following.task, 10)
    assert cloud.transcript(session) == following.messages(session)
    assert [] == following.messages(other)


async def test_stop(cloud, follow):
    """A stop gives what was read and leaves the sessions as they are."""
    following = follow()
    session = await cloud.start("begin")
    await following.until("AI_RESULT")
    await following.stop()
    assert (await cloud.account.ai.org_sessions.get(session)).status == "running"


async def test_a_full_spool(cloud, follow):
    """While nothing is taken, memory is bounded by the inbox; then everything comes, from the history where it must."""
    following = follow(room=3)
    session = await cloud.start("begin")
    await following.outlet.wait_for(3)
    cloud.turn("ai_emit", session_id=session, count=1)  # what came before may have been sent at once
    await following.outlet.wait_until_full()
    cloud.turn("ai_emit", session_id=session, count=30, size=1_000_000)
    await following.outlet.make_room()
    cloud.turn("ai_end", session_id=session)
    await following.until("AI_SESSION_END")
    assert cloud.transcript(session) == following.messages(session)


async def test_not_allowed(cloud, follow):
    """A key that may not look is a failure in words, and is not hammered."""
    cloud.turn("permissions", oid=cloud.ready["oid"], permissions=["ai_agent.operate"])
    cloud.turn("expire_tokens")
    following = follow()
    while not following.report.states:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    assert "failed" == following.report.states[-1][0]
    assert "ai_agent.get" in following.report.states[-1][1]
    requests = cloud.emulator.panel.requests
    assert sum(requests["GET /v1/org/sessions"].values()) <= 2, requests


@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (504, "unavailable")])
async def test_a_storm(cloud, follow, code, status):
    """While LimaCharlie answers nothing else, few requests are made, it is said in words, and it goes on afterwards."""
    cloud.turn("respond", route="org", status=status, times=None, headers={"Retry-After": "1"})
    following = follow()
    session = await cloud.start(profile={"one_shot": True})
    while not following.report.states and not cloud.emulator.panel.requests.get("GET /v1/org/sessions"):
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.5)
    assert sum(cloud.emulator.panel.requests["GET /v1/org/sessions"].values()) <= 8
    cloud.turn("clear")
    await following.until("AI_SESSION_END")
    assert cloud.transcript(session) == following.messages(session)
    assert following.report.errors.get(code, 0) <= 8


async def test_signed_urls_are_left_out(cloud, follow):
    """A message with a signed URL is no record."""
    session = await cloud.start("begin", profile={"one_shot": True})
    cloud.turn("ai_emit", session_id=session, type="upload_url", payload={"url": "https://storage.example/?sig=secret"})
    following = follow()
    await following.until("AI_SESSION_END")
    assert not any(b"sig=secret" in raw for raw in following.outlet.records)
    assert json.dumps(cloud.transcript(session)).count("sig=secret") == 1


async def test_malformed_messages(cloud, follow):
    """A frame that is no message is counted and passed over; line ends within a message do not break its record."""
    session = await cloud.start("begin")
    following = follow()
    await following.until("AI_RESULT")
    cloud.turn("ai_emit", session_id=session, raw="not json")
    cloud.turn("ai_emit", session_id=session, raw='{"type":"assistant",\n"payload":{}}')
    cloud.turn("ai_end", session_id=session)
    await following.until("AI_SESSION_END")
    await following.stop()
    assert following.report.counts["malformed_frames"] >= 1
    assert not any(b"\n" in raw for raw in following.outlet.records)
