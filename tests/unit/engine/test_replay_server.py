"""The socket by which a replay reaches a running process: whatever somebody says to it, the process goes on."""

import asyncio
import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from pipeline.engine import replay_server
from pipeline.engine.replay import Request
from pipeline.kit import unix

from .test_replay import Scene, of_sink


@pytest.fixture
def folder():
    """A short path, as an address may be."""
    path = Path(tempfile.mkdtemp(prefix="lc"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def scene(folder):
    one = Scene(folder, "disk")
    one.runner._services = [replay_server.serve]
    async with one:
        yield one


@contextlib.asynccontextmanager
async def dialing(scene):
    sock = unix.connect(replay_server.address(scene.plan.config), 1.0)
    reader, writer = await asyncio.open_unix_connection(sock=sock)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def say(scene, data):
    """What is answered, line by line; nothing where we are sent away."""
    answer = b""
    async with dialing(scene) as (reader, writer), asyncio.timeout(10):
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            answer = await reader.read()
    return [json.loads(line) for line in answer.splitlines()]


@pytest.mark.parametrize(
    "rubbish", [b"hello\n", b"\xff\n", b"[]\n", b'{"kind":"letters","rate":-1}\n', b'{"kind":"letters","more":1}\n']
)
async def test_rubbish_is_refused(scene, rubbish):
    """What is no request gets an error with its exit code, and the connection ends."""
    (answer,) = await say(scene, rubbish)
    assert (answer["error"]["code"], answer["error"]["exit_code"]) == ("usage", 4)


async def test_a_request_has_a_longest_size(scene, monkeypatch):
    """A line without an end is not kept beyond the bound."""
    monkeypatch.setattr(replay_server, "LONGEST", 1 << 16)
    async with dialing(scene) as (reader, writer), asyncio.timeout(10):
        sent = 0
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"x" * (1 << 20))
                await writer.drain()
                sent += 1
    assert sent < 16
    assert scene.runner.health.ready


async def test_who_says_nothing_is_left(scene, monkeypatch):
    """A connection without a request ends after a while; so many may be open, and one more is told so."""
    monkeypatch.setattr(replay_server, "PATIENCE", 0.3)
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(10):
        idle = [await stack.enter_async_context(dialing(scene)) for _ in range(replay_server._VISITORS)]
        (answer,) = await say(scene, b"x\n")
        assert (answer["error"]["code"], answer["error"]["what"]) == (
            "unavailable", "the pipeline serves 8 replays and fills already"
        )  # fmt: skip
        assert [await reader.read() for reader, _ in idle] == [b""] * len(idle)
    assert len(await say(scene, b"x\n")) == 1


async def test_hanging_up_ends_the_replay(scene):
    """When the command is gone the replay ends, and what it did not take stays; the next one may begin."""
    scene.put("lanes/all.one", *(of_sink(f'{{"n":{number}}}') for number in range(500)))
    async with dialing(scene) as (reader, writer), asyncio.timeout(10):
        writer.write(Request(kind="letters", names=("all/one",), rate=200).model_dump_json().encode() + b"\n")
        while json.loads(await reader.readline())["progress"]["accepted"] < 50:
            pass
    request = Request(kind="letters", names=("all/one",)).model_dump_json().encode() + b"\n"
    async with asyncio.timeout(10):
        while len(scene.left("lanes/all.one")) == 500:
            await asyncio.sleep(0.02)
    left = len(scene.left("lanes/all.one"))
    report = (await say(scene, request))[-1]["report"]
    assert 0 < report["accepted"] == left < 500
    assert [record["n"] for record in scene.kept("one")] == list(range(500))


async def test_two_at_once_take_turns(scene):
    """Two replays of the same letters send each letter once."""
    scene.put("lanes/all.one", *(of_sink(f'{{"n":{number}}}') for number in range(300)))
    request = Request(kind="letters", names=("all/one",)).model_dump_json().encode() + b"\n"
    answers = await asyncio.gather(say(scene, request), say(scene, request))
    assert sum(answer[-1]["report"]["accepted"] for answer in answers) == 300
    assert [record["n"] for record in scene.kept("one")] == list(range(300))
