"""Secrets leave the client in requests only."""

import asyncio
import logging
import traceback
from functools import cached_property

import pytest
import structlog.testing
from aiohttp import web

from pipeline.core.errors import PipelineError
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.feed import Subscription

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
KEY = "sEcReT-key-0123456789"


def everything(error):
    """All texts of an error and of all that it is chained to, with the repr of their attributes."""
    texts, seen = [], set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        texts += [str(error), repr(error), repr(vars(error)), repr(error.args)]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


async def broken(reader, writer):
    """Answer with what is not HTTP."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/9.9 nonsense \x00\r\n\r\n")
    await writer.drain()
    writer.close()


async def silent(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


def echo(asked):
    """Repeat all that came, as careless servers do."""
    said = f"bad token {asked.token} of {KEY}"
    return web.json_response({"error": said}, status=400)


@pytest.fixture
async def faults(service):
    """Addresses of services that fail in ways which make aiohttp raise with the request attached."""
    servers = [await asyncio.start_server(handler, "127.0.0.1", 0) for handler in (broken, silent)]
    yield [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers] + ["http://127.0.0.1:1"]
    for server in servers:
        server.close()


async def test_no_error_holds_a_secret(account, service, faults, caplog):
    """Neither in its text nor in its attributes nor in its chain, however the other side fails; nor does any log."""
    token = (await account.transport.tokens.get()).text
    service.answers = [echo]
    found = []
    with structlog.testing.capture_logs() as lines, caplog.at_level(logging.DEBUG):
        for base in [None, *faults]:
            with pytest.raises(PipelineError) as caught:
                await account.transport.request("POST", "/x", base=base, form={"lc_api_key": KEY})
            found.append(everything(caught.value))
            assert caught.value.__context__ is None
        for base in faults:
            account.transport.endpoints.streams["stream"] = base
            feed = account.subscribe(Subscription("event", host="stream"))
            with pytest.raises(PipelineError) as caught:
                await feed.open()
            feed.close()
            found.append(everything(caught.value))
    text = "\n".join([*found, str(lines), caplog.text])
    assert "[secret]" in found[0]
    assert KEY not in text
    assert token not in text


async def test_a_refused_key_is_not_repeated(account, service):
    """Not even where the token service repeats it."""
    service.mint = lambda form: web.json_response({"error": f"unknown api key {form['secret']}"}, status=401)
    with pytest.raises(PipelineError, match="unknown api key") as caught:
        await account.transport.tokens.get()
    assert KEY not in everything(caught.value)
    with pytest.raises(PipelineError) as again:
        await account.transport.tokens.get()
    assert KEY not in everything(again.value)
    assert KEY not in "".join(traceback.format_exception(again.value))


async def test_no_object_shows_a_secret(account):
    """The repr of everything that holds a key or a token."""
    token = await account.transport.tokens.get()
    section = LimaCharlieConfig(oid=OID, api_key=KEY)
    shown = [account, account.config, account.credentials, account.transport, account.transport.tokens, token, section]
    text = "\n".join([*map(repr, shown), *map(str, shown), section.model_dump_json()])
    assert KEY not in text
    assert token.text not in text


def test_a_wrong_section_does_not_show_its_key():
    """pydantic quotes values in its errors."""
    with pytest.raises(ValueError, match="api_key") as caught:
        LimaCharlieConfig(oid=OID, api_key=[KEY])
    assert KEY not in str(caught.value.errors(include_input=False))


async def test_a_client_needs_no_network_to_be_made():
    """And tells at once when there is no key."""
    with pytest.raises(PipelineError, match="no LimaCharlie API key"):
        LimaCharlie(LimaCharlieConfig(oid=OID), environ={"LC_EPHEMERAL_CREDS": "1"})


async def test_no_noun_shows_a_secret(account):
    """Whatever hangs on the client: none of them carries a key in its text."""
    nouns = [name for name in dir(type(account)) if isinstance(getattr(type(account), name), cached_property)]
    await account.transport.tokens.get()
    text = "\n".join(repr(getattr(account, name)) + repr(vars(getattr(account, name))) for name in nouns)
    assert len(nouns) > 15
    assert KEY not in text
    assert account.transport.tokens.current.text not in text
