"""Source `spout` and its credentials: refused tokens, missing permissions, revoked keys, certificates."""

import asyncio

import pytest

from pipeline.core.config import ClientTls
from pipeline.limacharlie.client import LimaCharlie


async def refuse(connection, status, text):
    connection.writer.write(
        b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text)
    )


async def test_a_refused_token_is_replaced_once(bench, cloud):
    """An `error: unauthorized` under an old token is answered with a new token, and then all is well."""
    first = ""

    async def script(connection):
        nonlocal first
        first = first or connection.form["jwt"]
        if connection.form["jwt"] == first:
            connection.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await connection.send(b"error: unauthorized")
            await connection.end()
        else:
            await cloud.idle(connection)

    cloud.script = script
    async with bench.running():
        await bench.report.until(lambda: any(state == "ok" for state, _, _ in bench.report.states))
    assert cloud.mints == 2
    assert len(cloud.connections) == 2


@pytest.mark.parametrize("early", [True, False])
async def test_a_missing_permission_is_not_hammered(bench, cloud, early):
    """When a new token is refused too it is the permission: shown as failed, tried again slowly, without new tokens."""

    async def script(connection):
        if early:
            await refuse(connection, 401, b'{"error":"unauthorized"}')
        else:
            connection.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await connection.send(b'{"error":"unauthorized"}')
            await connection.end()

    cloud.script = script
    async with bench.running(host="stream" if early else "stream-tmp"):
        await bench.report.until(lambda: sum(state == "failed" for state, _, _ in bench.report.states) >= 4)
    failed = [state for state in bench.report.states if state[0] == "failed"]
    assert {code for _, _, code in failed} == {"permission"}
    assert "output.set" in failed[0][1]
    assert cloud.mints == 2
    assert len(cloud.connections) <= 6


async def test_refused_credentials_are_shown_and_rarely_tried(bench, cloud):
    """A revoked key is failed with `authentication`; the token service is asked once for many tries."""
    cloud.mint_status = 401
    async with bench.running(reconnect={"refused_base": 0.02, "refused_cap": 0.05}):
        await bench.report.until(lambda: len(bench.report.states) >= 5)
    assert {(state, code) for state, _, code in bench.report.states} == {("failed", "authentication")}
    assert cloud.mints == 1
    assert cloud.connections == []


async def test_a_certificate_that_is_not_trusted_is_named(secure_bench):
    """Without the authority nothing is sent, and the reason is shown."""
    bench = secure_bench
    section = bench.account.config.model_copy(update={"tls": ClientTls()})
    async with LimaCharlie(section, environ={}) as bench.account, bench.running():
        await bench.report.until(lambda: bool(bench.report.states))
    state, text, _ = bench.report.states[0]
    assert state == "degraded"
    assert "certificate is not trusted" in text
    assert bench.cloud.mints == 0


async def test_a_refusal_that_repeats_the_token_does_not_show_it(bench, cloud):
    """What LimaCharlie says reaches states and logs without our secrets."""

    async def script(connection):
        connection.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await connection.send(b"error: unauthorized " + connection.form["jwt"].encode() + b" eyJh.eyJi.c2ln")
        await connection.end()

    cloud.script = script
    async with bench.running():
        await bench.report.until(lambda: len(bench.report.states) >= 2)
    shown = str(bench.report.states)
    assert "[secret] [secret]" in shown
    assert not any(connection.form["jwt"] in shown for connection in cloud.connections)


async def test_tokens_that_expire_twice_in_a_row_are_both_replaced(bench, cloud):
    """A confirmed connection shows that its token was good: what is refused later is old, not without permission."""
    good = 1

    async def script(connection):
        nonlocal good
        if tokens.index(connection.form["jwt"]) >= good - 1:
            await connection.live()
            await asyncio.sleep(0.05)
            good += 1
            connection.abort()
        else:
            await refuse(connection, 401, b"unauthorized")

    tokens = []
    make = cloud.token
    cloud.token = lambda: tokens.append(make()) or tokens[-1]
    cloud.script = script
    async with bench.running():
        await bench.report.until(lambda: [state for state, _, _ in bench.report.states].count("ok") == 3)
    assert "failed" not in {state for state, _, _ in bench.report.states}
    assert cloud.mints == 3


async def test_a_stream_that_is_refused_after_each_confirmation_is_not_hammered(bench, cloud):
    """A few new tokens are tried, then it is taken for a missing permission."""

    async def script(connection):
        await connection.live()
        await asyncio.sleep(0.02)
        await connection.send(b"error: unauthorized")
        await connection.end()

    cloud.script = script
    async with bench.running():
        await bench.report.until(lambda: [state for state, _, _ in bench.report.states].count("failed") == 3)
    assert cloud.mints == 4
