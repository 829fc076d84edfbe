"""The Output that a `firehose` registers in LimaCharlie."""

from __future__ import annotations

import asyncio

import pytest
import trustme
from pydantic import ValidationError

from pipeline.core.component import Org
from pipeline.core.types import Secret
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.outputs import Output
from pipeline.sources import firehose_registration as module
from pipeline.sources.firehose_output import OutputConfig
from pipeline.sources.firehose_registration import differs

EVENTS = 40


def address(port: int) -> dict[str, str]:
    return {"name": "hose", "address": f"127.0.0.1:{port}"}


async def registered(org: Org, name: str = "hose") -> Output | None:
    return (await org.account.outputs.list()).get(name)


async def test_organizations_register_and_flow(start, cloud, free_port):
    """Each organization gets its Output, LimaCharlie connects, and records arrive under its name."""
    async with start(orgs=cloud, listen=f"127.0.0.1:{free_port}", output=address(free_port)) as lab:
        await lab.outlet.until(2 * EVENTS)
        assert {org: len(records) for org, records in lab.outlet.records.items()} == {"acme": EVENTS, "globex": EVENTS}
        output = await registered(cloud[0])
        assert output is not None
        assert {key: text for key, text in output.fields.items() if text != "false"} == {
            "dest_host": f"127.0.0.1:{free_port}",
            "is_tls": "true",
            "is_no_header": "true",
        }


async def test_a_token_travels_in_the_header(start, cloud, free_port):
    """With a token, the Output sends headers that carry it, and the records are let in."""
    async with start(
        orgs=cloud[:1], listen=f"127.0.0.1:{free_port}", output=address(free_port), token='[lc token="sesame"]'
    ) as lab:
        await lab.outlet.until(EVENTS)
        assert lab.outlet.refused == []


async def test_on_stop_remove_deletes_it(start, cloud, free_port):
    """`on_stop: remove` deletes the Output at the stop; the default keeps it."""
    for on_stop, kept in (("keep", True), ("remove", False)):
        config = {**address(free_port), "on_stop": on_stop}
        async with start(orgs=cloud[:1], listen=f"127.0.0.1:{free_port}", output=config) as lab:
            await lab.outlet.until(EVENTS)
            await lab.stop()
            assert (await registered(cloud[0]) is not None) is kept


async def test_an_old_output_is_brought_up_to_date(start, cloud, free_port):
    """An Output of our name that sends elsewhere, or filters, or deletes itself, is replaced."""
    old = Output.make("hose", "syslog", "detect", dest_host="127.0.0.1:1", tag="x", is_delete_on_failure=True)
    await cloud[0].account.outputs.put(old)
    async with start(orgs=cloud[:1], listen=f"127.0.0.1:{free_port}", output=address(free_port)) as lab:
        await lab.outlet.until(EVENTS)
        output = await registered(cloud[0])
        assert output is not None
        assert output.stream == "event"
        assert output.fields["dest_host"] == f"127.0.0.1:{free_port}"
        assert "tag" not in output.fields
        assert output.fields.get("is_delete_on_failure", "false") == "false"


async def test_a_disabled_output_is_enabled(start, cloud, free_port):
    """An Output with an error in `/errors` is updated at the start, which enables it, and the error is dismissed."""
    org = cloud[0]
    config = OutputConfig(**address(free_port))
    await org.account.outputs.put(config.output("event", tls=None, token=None))
    async with asyncio.timeout(10):
        while await org.account.errors.of_output("hose") is None:
            await asyncio.sleep(0.02)
    async with start(orgs=cloud[:1], listen=f"127.0.0.1:{free_port}", output=address(free_port)) as lab:
        await lab.outlet.until(EVENTS)
        assert await org.account.errors.of_output("hose") is None


async def test_no_connection_is_one_warning(start, cloud, free_port):
    """Without a connection for a minute after registering there is one warning, with LimaCharlie's own words."""
    nobody = {"name": "hose", "address": "127.0.0.1:1", "recheck": 0.3}
    async with start(orgs=cloud[:1], listen=f"127.0.0.1:{free_port}", output=nobody) as lab:
        await asyncio.sleep(1.5)
        warnings = [entry for entry in lab.log if entry["log_level"] == "warning"]
        assert [entry["event"] for entry in warnings] == ["LimaCharlie does not connect to this listener."]
        assert "failed to connect" in warnings[0]["error"]


async def test_one_organization_fails_alone(start, cloud, free_port):
    """An organization whose key is revoked is reported as degraded; the other flows."""
    good, bad = cloud
    config = bad.account.config.model_copy(update={"api_key": Secret("00000000-0000-4000-8000-000000000000")})
    async with LimaCharlie(config, environ={}) as account:
        orgs = (good, Org("globex", bad.oid, account))
        async with start(orgs=orgs, listen=f"127.0.0.1:{free_port}", output=address(free_port)) as lab:
            await lab.outlet.until(EVENTS)
            await lab.until(lambda: lab.report.states[-1][0] == "degraded")
            _, text, code = lab.report.states[-1]
            assert text.startswith("globex: ")
            assert code == "authentication"
            assert set(lab.outlet.records) == {"acme"}


def test_strict_tls_follows_the_certificate(tmp_path):
    """A given certificate is checked by LimaCharlie, a self-made one is not, and either can be overridden."""
    pair = {"cert": tmp_path, "key": tmp_path}
    for tls, override, strict in (
        (None, None, "false"),
        (pair, None, "true"),
        ("off", None, "true"),
        (None, True, "true"),
        (pair, False, "false"),
    ):
        config = module.OutputConfig(name="hose", address="example.com:4443", strict_tls=override)
        assert config.output("event", tls=tls, token=None).fields["is_strict_tls"] == strict


def test_an_equal_output_is_left_alone():
    """What LimaCharlie adds on its own, and false where we leave it out, is no difference."""
    wanted = OutputConfig(name="hose", address="example.com:4443").output("event", tls=None, token=None)
    same = Output(
        "hose", "syslog", "event", {"dest_host": "example.com:4443", "is_tls": "true", "is_no_header": "true"}
    )
    assert not differs(same, wanted)
    for key, text in (("sid", "x"), ("is_tls", "false"), ("event_white_list", "A"), ("is_delete_on_failure", "true")):
        assert differs(Output("hose", "syslog", "event", {**same.fields, key: text}), wanted)


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "example.com"},
        {"address": ":4443"},
        {"address": "h:0"},
        {"options": {"is_tls": False}},
        {"name": ""},
    ],
)
def test_a_wrong_section_is_refused(wrong):
    """An address nobody can dial, or an option that is ours to set, is a mistake."""
    with pytest.raises(ValidationError):
        OutputConfig(**{"name": "hose", "address": "example.com:4443", **wrong})


async def test_a_strict_output_trusts_a_given_certificate(start, cloud, free_port, tmp_path):
    """With a certificate that LimaCharlie does not trust, nothing arrives, and its alert is in our log."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    tls = {"cert": tmp_path / "tls.crt", "key": tmp_path / "tls.key"}
    async with start(orgs=cloud[:1], listen=f"127.0.0.1:{free_port}", output=address(free_port), tls=tls) as lab:
        await lab.until(lambda: any(entry["event"] == "A TLS connection failed." for entry in lab.log))
        assert lab.outlet.all == []


async def test_an_output_that_is_disabled_later_is_enabled_again(start, cloud, turn, free_port):
    """When LimaCharlie disables the Output while we run, an update enables it, and the records go on."""
    listen = f"127.0.0.1:{free_port}"
    async with start(orgs=cloud[:1], listen=listen, output={**address(free_port), "recheck": 0.1}) as lab:
        await lab.outlet.until(EVENTS)
        await turn(cloud[0], "output", name="hose", oid=cloud[0].oid, enabled=False)
        await lab.outlet.until(2 * EVENTS)
        assert "LimaCharlie does not connect to this listener." in [line["event"] for line in lab.log]
        assert lab.report.counts["output_enabled"] >= 1
