"""Following a session and speaking in it."""

import asyncio
import json
import random

import pytest

from pipeline.core.errors import PipelineError
from pipeline.limacharlie.ai import follow
from pipeline.limacharlie.ai import live as live_module
from pipeline.limacharlie.ai.errors import (
    CLOSE_CODES,
    ForeignSessionError,
    MessageTooLargeError,
    ServiceFailedError,
    SessionAuthenticationError,
    SessionEndedError,
    SessionNotFoundError,
)
from pipeline.limacharlie.ai.follow import End
from pipeline.limacharlie.ai.inbox import MAX_BYTES
from pipeline.limacharlie.ai.socket import SocketOptions


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Connect again at once: how long a back-off waits is tested where back-off is."""
    monkeypatch.setattr(follow, "Backoff", lambda base, cap: Quick())


class Quick:
    def next(self):
        return 0.01

    def reset(self):
        pass


async def test_a_whole_session(ai, cloud, running, read):
    """From a prompt over a tool that is allowed to the end, and the transcript byte for byte."""
    session = await running(allowed_tools=["Bash"])
    async with ai.attach(session.id) as live:
        reader = read(live)
        await live.prompt("list the files")
        await reader.until("result")
        await ai.sessions.terminate(session.id)
        await reader.task
        expected = ["session_status", "system", "user", "assistant", "tool_use", "tool_result", "assistant", "result"]
        assert expected == reader.types[:8]
        assert cloud.transcript(session.id) == reader.raw
        assert End("user_requested", 0) == live.ended


async def test_attached_before_it_runs(ai, read):
    """A session that is starting is waited for."""
    session = await ai.sessions.create()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await live.prompt("hello")
        assert (await reader.until("user")).text == "hello"


async def test_a_slow_start(ai, cloud, read, monkeypatch):
    """A prompt waits for as long as the session starts, however long that takes; when it never runs, that is the error."""
    monkeypatch.setattr(live_module, "REPLY_TIME", 0.05)
    cloud.turn("ai_timing", start=0.5)
    session = await ai.sessions.create()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await live.prompt("hello")
        assert (await reader.until("user")).text == "hello"
    async with ai.attach("unknown") as live:
        with pytest.raises(SessionNotFoundError):
            await live.prompt("hello")


async def test_tool_approval(ai, running, read):
    """A tool that is not allowed asks; a refusal reaches the assistant, an approval for the session is asked once."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await live.prompt("list the files")
        asked = await reader.until("tool_approval_request")
        assert {"command": "ls -la"} == asked.payload["tool_input"]
        await live.approve(asked.payload["tool_use_id"], approved=False, message="not now")
        assert "not now" in (await reader.until("tool_result")).text
        await live.prompt("list the files")
        asked = await reader.until("tool_approval_request", 2)
        await live.approve(asked.payload["tool_use_id"], scope="session")
        assert "output.txt" in (await reader.until("tool_result", 2)).text
        await live.prompt("list the files")
        assert "output.txt" in (await reader.until("tool_result", 3)).text
        assert reader.types.count("tool_approval_request") == 2


async def test_changed_input(ai, running, read):
    """An approval can change what the tool is given."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await live.prompt("write it down")
        asked = await reader.until("tool_approval_request")
        changed = {"file_path": "/workspace/other.md", "content": "x"}
        await live.approve(asked.payload["tool_use_id"], updated_input=changed)
        assert (await reader.until("tool_result")).text == "File created: /workspace/other.md"


async def test_question(ai, running, read):
    """A question of the assistant is answered."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await live.prompt("ask me first, then read")
        asked = await reader.until("ask_user_question")
        await live.answer(asked.payload["question_id"], {asked.payload["questions"][0]["question"]: "Thorough"})
        await reader.until("system", 2)
        assert any("Thorough" in message.text for message in reader.got)


async def test_interrupt(ai, cloud, running, read):
    """An interrupt ends what goes on, not the session."""
    cloud.turn("ai_script", match="long", steps=[{"wait": 600}])
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await live.prompt("a long one")
        await reader.until("user")
        await live.interrupt()
        assert (await reader.until("result")).payload["success"] is False
        await live.prompt("read it")
        await reader.until("user", 2)


async def test_twenty_cuts(ai, cloud, running, read):
    """Through 20 cuts at random moments, with replays that come twice, each message is given exactly once and in order."""
    rng = random.Random(7)
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        for cut in range(20):
            cloud.turn("ai_emit", count=rng.randrange(1, 40), payload={"cut": cut})
            await asyncio.sleep(rng.random() * 0.05)
            if cut % 3 == 0:
                cloud.turn("ai_replay", copies=2)
            cloud.turn("ai_drop", how=rng.choice(["reset", "reset", "half"]))
        cloud.turn("ai_emit", count=10)
        cloud.turn("ai_end")
        await reader.task
        assert cloud.transcript(session.id) == reader.raw
        assert live.connections > 10
        assert live.duplicates > 0
        assert not live.gaps


async def test_ended_while_away(ai, cloud, running, read):
    """The end of a session is noticed by who was not connected then."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await reader.until("system")
        cloud.turn("respond", route="sessions", status=503, times=3)
        cloud.turn("ai_drop")
        cloud.turn("ai_end", reason="max_duration_exceeded")
        await reader.task
        assert End("max_duration_exceeded", 0) == live.ended
        assert reader.types[-1] == "session_end"


async def test_away_for_longer_than_the_buffer(ai, cloud, running, read, monkeypatch):
    """What the connection does not bring any more comes from the history, in its place."""
    monkeypatch.setattr(follow, "BUFFER", 0.0)
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await reader.until("system")
        cloud.turn("ai_timing", buffer=0)
        cloud.turn("ai_drop", after=0, times=3)
        cloud.turn("ai_drop")
        cloud.turn("ai_emit", count=30)
        await reader.until("assistant", 30)
        cloud.turn("ai_end")
        await reader.task
        assert cloud.transcript(session.id) == reader.raw


async def test_a_gap_is_told(ai, cloud, running, read, monkeypatch):
    """Where the history cannot be had either, the time that may be missing is noted."""
    monkeypatch.setattr(follow, "BUFFER", 0.0)
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await reader.until("system")

        async def refuse(_session_id):
            raise ServiceFailedError("no")

        live._rest.history = refuse
        cloud.turn("ai_drop")
        cloud.turn("ai_emit")
        await reader.until("assistant")
        assert [gap.reason for gap in live.gaps] == ["unavailable"]
        assert live.gaps[0].begin <= live.gaps[0].end
        assert live.connections == 1 + follow.FILL_TRIES


async def test_from_the_beginning(ai, cloud, running, read):
    """With its history a session is given from its first message, but for those that are known."""
    session = await running()
    cloud.turn("ai_emit", count=20)
    cloud.turn("ai_timing", buffer=0)
    known = [message.id for message in await ai.sessions.history(session.id)][:5]
    async with ai.attach(session.id, history=True, seen=known) as live:
        reader = read(live)
        cloud.turn("ai_end")
        await reader.task
        assert cloud.transcript(session.id)[5:] == reader.raw


@pytest.mark.parametrize("paths", ["documented", "proxy"])
@pytest.mark.parametrize("auth", ["header", "query"])
async def test_paths_and_credentials(ai, cloud, running, read, paths, auth):
    """Both families of paths take the token in both places, and give the same."""
    session = await running()
    cloud.turn("ai_timing", buffer=0)
    cloud.turn("ai_emit", count=3)
    async with ai.attach(session.id, SocketOptions(paths=paths, auth=auth), history=True) as live:
        reader = read(live)
        await live.prompt("read it")
        await reader.until("user")
        assert cloud.transcript(session.id)[: len(reader.raw)] == reader.raw


async def test_the_other_paths_are_tried(ai, cloud, running, read):
    """Where the documented path is no WebSocket, the one of LimaCharlie's tools is used."""
    session = await running()
    cloud.turn("respond", route="sessions", status=404)
    async with ai.attach(session.id) as live:
        await read(live).until("system")
        assert cloud.requests("/v1/ws/sessions") == 1


async def test_org_view(ai, cloud, read):
    """A session of the organization can be looked at, without a say in it."""
    cloud.turn("ai_script", steps=[{"say": "hi"}, {"wait": 600}])
    session = await ai.org_sessions.start("look", anthropic_key="sk-ant-org-key")
    async with ai.attach(session.id, SocketOptions(view="org")) as live:
        reader = read(live)
        await reader.until("assistant")
        with pytest.raises(ForeignSessionError, match="read-only"):
            await live.prompt("me too")
        await ai.org_sessions.terminate(session.id)
        await reader.task
        assert End("org_api_requested", 0) == live.ended


# codes that end the following, and those after which it goes on
ENDING = {4001, 4003, 4004}


@pytest.mark.parametrize("code", sorted(CLOSE_CODES))
async def test_close_codes(ai, cloud, running, read, code):
    """Each close code ends the following with its own error, or is got over."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await reader.until("system")
        if code in ENDING:
            cloud.turn("ai_close", code=code, next=None)
            with pytest.raises(CLOSE_CODES[code][0]) as caught:
                await reader.task
            assert caught.value.fix
            assert session.id in caught.value.where
        elif code == 4100:
            cloud.turn("ai_close", code=code)
            await reader.task
            assert live.ended is not None
        else:
            cloud.turn("ai_close", code=code, next=2)
            cloud.turn("ai_emit")
            await reader.until("assistant")
            assert live.connections == 4


@pytest.mark.parametrize("status", [401, 403, 404, 410, 429, 500, 503])
async def test_refused_upgrade(ai, cloud, running, read, status):
    """A refusal by status means the same as its close code."""
    session = await running()
    cloud.turn("respond", route="sessions", status=status, times=1 if status > 410 else None)
    cloud.turn("respond", route="ws", status=status, times=1 if status > 410 else None)
    async with ai.attach(session.id) as live:
        reader = read(live)
        kinds = {401: SessionAuthenticationError, 403: ForeignSessionError, 404: SessionNotFoundError}
        if status in kinds:
            with pytest.raises(kinds[status]):
                await reader.task
        elif status == 410:
            await reader.task
            assert End() == live.ended
        else:
            await reader.until("system")


async def test_unknown_session(ai):
    """A session that there is not is an error that says so."""
    async with ai.attach("nope") as live:
        with pytest.raises(SessionNotFoundError):
            [message async for message in live.messages()]


async def test_foreign_session(cloud, running, read):
    """Another user's session is refused on both paths, with a way out."""
    session = await running()
    other = (await cloud.client(uid=None, api_key=cloud.ready["api_key"])).ai
    for paths in ("documented", "proxy"):
        async with other.attach(session.id, SocketOptions(paths=paths)) as live:
            with pytest.raises(ForeignSessionError, match="read-only view"):
                await read(live).task


async def test_expired_token(ai, cloud, running, read):
    """A token that expired while connected is replaced once, and the session goes on."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await reader.until("system")
        mints = cloud.requests("POST /")
        cloud.turn("expire_tokens")
        cloud.turn("ai_drop")
        cloud.turn("ai_emit")
        await reader.until("assistant")
        assert cloud.requests("POST /") - mints < 6


async def test_refused_tokens_are_not_hammered(ai, cloud, running, read):
    """A fresh token that is refused too ends it: one more token was made, not many."""
    session = await running()
    mints = sum(cloud.emulator.panel.requests["POST /"].values())
    cloud.turn("ai_close", code=4001, next=None)
    async with ai.attach(session.id) as live:
        with pytest.raises(SessionAuthenticationError):
            await read(live).task
    assert sum(cloud.emulator.panel.requests["POST /"].values()) == mints + 1


async def test_heartbeat(ai, cloud, running, read):
    """Heartbeats keep the connection open where silence would not."""
    cloud.turn("ai_timing", idle=0.3)
    session = await running()
    async with ai.attach(session.id, SocketOptions(heartbeat=0.1)) as live:
        reader = read(live)
        await reader.until("system")
        await asyncio.sleep(0.8)
        assert live.connections == 1


async def test_no_heartbeat(ai, cloud, running, read):
    """A connection that the service closed for inactivity is made again."""
    cloud.turn("ai_timing", idle=0.1)
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        while live.connections < 3:
            await asyncio.sleep(0.01)
        cloud.turn("ai_end")
        await reader.task
        assert cloud.transcript(session.id) == reader.raw


async def test_pings_are_life(ai, cloud, running, read):
    """The service's pings are answered, and count as a sign of life."""
    cloud.turn("ai_timing", ping=0.1)
    session = await running()
    async with ai.attach(session.id, SocketOptions(silence=0.4)) as live:
        reader = read(live)
        await reader.until("system")
        await asyncio.sleep(1.0)
        assert live.connections == 1


@pytest.mark.parametrize("fault", ["ai_silence", "half"])
async def test_silence(ai, cloud, running, read, fault):
    """A connection that says nothing any more, or of which half is closed, is replaced."""
    session = await running()
    async with ai.attach(session.id, SocketOptions(silence=0.2)) as live:
        reader = read(live)
        await reader.until("system")
        cloud.turn("ai_silence") if fault == "ai_silence" else cloud.turn("ai_drop", how="half")
        cloud.turn("ai_emit")
        await reader.until("assistant")
        assert live.connections >= 2


async def test_our_rate(ai, cloud, running, read):
    """Many messages at once are spread, so that none is refused."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await asyncio.gather(*(live.interrupt() for _ in range(200)))
        await live.prompt("read it")
        await reader.until("user")
        assert "error" not in reader.types


async def test_rate_limit_is_told(ai, cloud, running, read):
    """A message that the service refuses as too many is answered by an error, which is given."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await reader.until("system")
        cloud.turn("ai_limit")
        await live.prompt("one too many")
        assert (await reader.until("error")).payload["code"] == "rate_limited"


async def test_large_messages(ai, cloud, running, read):
    """A message of 1 MB comes; one that is larger is not sent but explained."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        cloud.turn("ai_emit", size=1_000_000)
        assert len((await reader.until("assistant")).raw) > 1_000_000
        await live.prompt("x" * 900_000)
        assert len((await reader.until("user")).raw) > 900_000
        with pytest.raises(MessageTooLargeError, match="Upload it as a file"):
            await live.prompt("x" * 1_000_001)


async def test_flood(ai, cloud, running, read):
    """Who does not take the messages stops the reading at a bound; then all of them come."""
    session = await running()
    async with ai.attach(session.id) as live:
        cloud.turn("ai_emit", count=60, size=1_000_000)
        before = -1
        while live._inbox._size != before or before <= MAX_BYTES:
            before = live._inbox._size
            await asyncio.sleep(0.1)
        assert live._inbox._size < MAX_BYTES + 2_100_000
        reader = read(live)
        await reader.until("assistant", 60)
        cloud.turn("ai_end")
        await reader.task
        assert cloud.transcript(session.id) == reader.raw


async def test_nonsense(ai, cloud, running, read):
    """Frames that are no messages are counted and passed over."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        for raw in ("{", "[]", "1", '{"type": 1}', "{}", "[" * 5000):
            cloud.turn("ai_emit", raw=raw)
        cloud.turn("ai_emit", type="made_up", payload={"a": 1})
        await reader.until("made_up")
        assert live.malformed == 6


async def test_a_message_that_is_too_large_to_take(ai, cloud, running, read):
    """It ends the connection, not the following."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await reader.until("system")
        cloud.turn("ai_timing", buffer=0)
        cloud.turn("ai_emit", size=11 << 20)
        while live.connections < 2:
            await asyncio.sleep(0.01)
        cloud.turn("ai_emit", type="small")
        await reader.until("small")


async def test_speaking_when_it_is_over(ai, running, read):
    """What is said to a session that has ended is refused."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await ai.sessions.terminate(session.id)
        await reader.task
        with pytest.raises(SessionEndedError):
            await live.prompt("hello?")


@pytest.mark.parametrize("code", [4500, 4009])
async def test_giving_up(ai, cloud, running, read, code):
    """With a limit, a service that cannot be had for longer ends it."""
    session = await running()
    async with ai.attach(session.id, give_up=0.3) as live:
        reader = read(live)
        await reader.until("system")
        cloud.turn("ai_close", code=code, next=None)
        with pytest.raises(CLOSE_CODES[code][0]):
            await reader.task
        assert live.connections > 2


async def test_a_loop_of_closes(ai, cloud, running, read, monkeypatch):
    """A service that closes each connection at once is asked ever more rarely."""
    monkeypatch.undo()
    session = await running()
    cloud.turn("ai_close", code=4101, next=None)
    async with ai.attach(session.id) as live:
        read(live)
        await asyncio.sleep(2.0)
        assert 2 <= live.connections < 20


@pytest.mark.parametrize("scheme", [pytest.param("https", id="tls")])
async def test_tls(ai, cloud, running, read, scheme):
    """Over TLS it is the same, with cuts and files."""
    assert cloud.ready["url"].startswith(scheme)
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        for _ in range(5):
            cloud.turn("ai_emit", count=30, size=20_000)
            cloud.turn("ai_drop")
            await asyncio.sleep(0.03)
        # It can only come by a connection after the last cut; a request on one that is cut is not asked again.
        cloud.turn("ai_emit", type="user")
        await reader.until("user")
        data = b"x" * 300_000
        path = await live.upload(data)
        await reader.until("system", 2)
        assert data == await live.download(path)
        cloud.turn("ai_end")
        await reader.task
        assert cloud.transcript(session.id) == reader.raw


@pytest.mark.parametrize(
    "reason",
    ["completed", "job_completed", "user_requested", "org_api_requested", "max_duration_exceeded", "heartbeat_stale"],
)
async def test_end_reasons(ai, cloud, running, read, reason):
    """Each reason of an end is told with its exit code."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        cloud.turn("ai_end", reason=reason, exit_code=3)
        await reader.task
        assert End(reason, 3) == live.ended
    info = await ai.sessions.get(session.id)
    assert (reason, 3) == (info.end_reason, info.exit_code)


async def test_crash(ai, cloud, running, read):
    """A session that dies says why before it ends."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        cloud.turn("ai_end", reason="failed", error="out of memory")
        await reader.task
        assert ["session_error", "error", "session_end"] == reader.types[-3:]
        assert End("failed", 1) == live.ended


async def test_never_started(ai, cloud, read):
    """A session that does not start in time ends, which is noticed."""
    cloud.turn("ai_timing", never_start=True, start_limit=0.05)
    session = await ai.sessions.create()
    async with ai.attach(session.id) as live:
        await read(live).task
        assert End("startup_timeout", 1) == live.ended


async def test_signed_urls_stay_out(ai, cloud, running, read):
    """A message with a signed URL that somebody else asked for is not given."""
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        cloud.turn("ai_emit", type="upload_url", payload={"request_id": "other", "url": "https://x/?Signature=s3cret"})
        cloud.turn("ai_end")
        await reader.task
        assert b"s3cret" not in b"".join(reader.raw)


async def test_no_answer_for_a_file(ai, cloud, running, read, monkeypatch):
    """A request for a file that nobody answers ends in time."""
    monkeypatch.setattr(live_module, "REPLY_TIME", 0.3)
    session = await running()
    async with ai.attach(session.id) as live:
        reader = read(live)
        await reader.until("system")
        cloud.turn("ai_limit")
        with pytest.raises(PipelineError, match="did not answer"):
            await live.download("/workspace/output.txt")


async def test_leaving(ai, running):
    """Leaving leaves nothing behind, also where nobody took a message."""
    session = await running()
    before = asyncio.all_tasks()
    async with ai.attach(session.id) as live:
        await live.prompt("list the files")
    await live.close()
    tasks = {task for task in asyncio.all_tasks() - before if "emulator" not in repr(task.get_coro())}
    assert not {task for task in tasks if "limacharlie" in json.dumps(repr(task.get_coro()))}
