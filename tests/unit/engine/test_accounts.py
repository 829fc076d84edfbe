"""Which organizations a configuration's sources get."""

import pytest

from pipeline.config.load import loads
from pipeline.core.errors import AuthenticationError, ConfigError
from pipeline.engine.accounts import accounts

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
HEAD = "sinks: {out: {type: stdout}}\nroutes: {all: {from: in, to: out}}\n"
SPOUT = HEAD + "sources: {in: {type: spout, stream: detect}}\n"
FIREHOSE = HEAD + "sources: {in: {type: firehose, output: {name: o, address: 'a:4443'}}}\n"
LISTENER = HEAD + "sources: {in: {type: firehose}}\n"


async def names(text: str, environ: dict[str, str]) -> dict[str, str | None]:
    loaded = loads(text, {})
    async with accounts(loaded.config, loaded.registry, {"LC_EPHEMERAL_CREDS": "1", **environ}) as orgs:
        return {name: org.oid for name, org in orgs.items()}


@pytest.mark.parametrize("text", [SPOUT, FIREHOSE])
async def test_a_key_without_an_organization_is_a_mistake(text: str) -> None:
    """A source that works with an account cannot start without the organization's id, and says what to set."""
    with pytest.raises(ConfigError, match="no organization id") as caught:
        await names(text, {"LC_API_KEY": "k"})
    assert "LC_OID" in caught.value.fix
    assert caught.value.exit_code == 4


async def test_a_sink_that_acts_needs_a_key() -> None:
    """A sink that tasks sensors needs the keys of those organizations whose records reach it, and no others'."""
    other = "1cbe27f4-bfa1-4afb-ba19-138cd51389cd"
    text = f"""
orgs: {{a: {{oid: {OID}, api_key: k}}, b: {{oid: {other}}}}}
sources: {{in: {{type: firehose, orgs: [ORG]}}}}
sinks: {{act: {{type: reliable_task, task: os_version, confirm: CONFIRM}}}}
routes: {{all: {{from: in, to: act}}}}
spool: {{type: disk, path: spool}}
"""
    with pytest.raises(AuthenticationError):
        await names(text.replace("ORG", "b").replace("CONFIRM", "true"), {})
    expected = {"a": OID, "b": other}
    assert expected == await names(text.replace("ORG", "a").replace("CONFIRM", "true"), {})
    assert expected == await names(text.replace("ORG", "b").replace("CONFIRM", "false"), {})


async def test_without_need_nothing_is_asked_for() -> None:
    """A source that only listens starts without an id, and without a key."""
    assert {"": None} == await names(LISTENER, {"LC_API_KEY": "k"}) == await names(LISTENER, {})


async def test_a_key_and_an_id_are_enough() -> None:
    """With both, the organization is known."""
    assert {"": OID} == await names(SPOUT, {"LC_API_KEY": "k", "LC_OID": OID})


async def test_without_a_key_no_source_that_needs_one_starts() -> None:
    """That is a matter of authentication, not of the configuration."""
    with pytest.raises(AuthenticationError):
        await names(SPOUT, {"LC_OID": OID})
