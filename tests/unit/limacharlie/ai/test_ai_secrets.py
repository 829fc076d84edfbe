"""Credentials and signed URLs leave the client in requests only."""

import json
import logging

import pytest
import structlog.testing

from pipeline.core.errors import PipelineError
from pipeline.limacharlie.ai import transfer
from pipeline.limacharlie.ai.socket import SocketOptions
from pipeline.limacharlie.ai.transfer import Ticket

CLAUDE = "sk-ant-api03-0123456789abcdef"
SIGNED = "http://127.0.0.1:1/storage?Signature=0123456789abcdef"


def everything(error):
    """All texts of an error and of all that it is chained to."""
    texts, seen = [], set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        texts += [str(error), repr(error), repr(vars(error)), repr(error.args)]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


async def collect(calls):
    found = []
    for call in calls:
        with pytest.raises(PipelineError) as caught:
            await call()
        found.append(everything(caught.value))
    return "\n".join(found)


async def test_keys(ai, cloud, caplog):
    """Not even where the service repeats them."""
    await ai._service.transport.tokens.get()
    cloud.turn("respond", status=400, body=json.dumps({"error": f"bad {CLAUDE} in request"}), times=None)
    with structlog.testing.capture_logs() as lines, caplog.at_level(logging.DEBUG):
        text = await collect(
            [
                lambda: ai.credentials.store_claude_key(CLAUDE),
                lambda: ai.credentials.store("openai", api_key=CLAUDE),
                lambda: ai.org_sessions.start("x", anthropic_key=CLAUDE),
                lambda: ai.org_sessions.start("x", credentials={"api_key": CLAUDE}),
                lambda: ai.org_sessions.start("x", lc_api_key=CLAUDE),
                lambda: ai.sessions.create(lc_credentials={"type": "org_api_key", "org_api_key": CLAUDE}),
            ]
        )
    assert "[secret]" in text
    assert CLAUDE not in text + str(lines) + caplog.text


@pytest.mark.parametrize("auth", ["header", "query"])
async def test_tokens(lc, cloud, running, caplog, auth):
    """A connection that is refused or broken shows no token, wherever it travels."""
    session = await running()
    token = (await lc.transport.tokens.get()).text
    texts = []
    for fault in ({"status": 404}, {"status": 400}, {"status": 302}, {"status": 200}):
        cloud.turn("respond", route="sessions", times=None, **fault)
        cloud.turn("respond", route="ws", times=None, **fault)
        with structlog.testing.capture_logs() as lines, caplog.at_level(logging.DEBUG):
            async with lc.ai.attach(session.id, SocketOptions(auth=auth), give_up=0.0) as live:
                texts.append(await collect([lambda live=live: anext(live.messages())]))
        texts.append(str(lines))
        cloud.emulator.panel.faults.clear()
    assert token not in "\n".join(texts) + caplog.text


async def test_signed_urls(ai, cloud, running, monkeypatch, caplog):
    """Neither an error nor a log nor a repr shows one, however the transfer fails."""
    monkeypatch.setattr(transfer, "TRIES", 1)
    session = await running()
    answer = json.dumps({"upload_url": SIGNED, "download_url": SIGNED, "upload_id": "u"})
    cloud.turn("respond", route="io", status=200, body=answer, times=None)
    with structlog.testing.capture_logs() as lines, caplog.at_level(logging.DEBUG):
        text = await collect(
            [lambda: ai.files.upload(session.id, b"x"), lambda: ai.files.download(session.id, "/workspace/output.txt")]
        )
    assert SIGNED not in repr(Ticket(SIGNED))
    assert "0123456789abcdef" not in text + str(lines) + caplog.text


async def test_no_object_shows_a_secret(lc, running):
    """The repr of everything that holds one."""
    session = await running()
    token = (await lc.transport.tokens.get()).text
    async with lc.ai.attach(session.id) as live:
        shown = [lc.ai, lc.ai.sessions, lc.ai.credentials, lc.ai.files, live, session, SocketOptions()]
        assert token not in "\n".join(map(repr, shown))
