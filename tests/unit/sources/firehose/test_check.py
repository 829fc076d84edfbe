"""What `validate --connect` finds out about a `firehose`."""

from __future__ import annotations

import dataclasses
import socket

import pytest
import trustme

from pipeline.core.component import Org
from pipeline.core.errors import AuthenticationError, ConfigError, PermissionDeniedError
from pipeline.limacharlie.client import LimaCharlie
from pipeline.sources.firehose import Firehose, FirehoseConfig
from pipeline.testing import context

OUTPUT = {"name": "hose", "address": "firehose.example.com:4443"}


def firehose(*orgs: Org, **config: object) -> Firehose:
    section = FirehoseConfig.model_validate({"listen": "127.0.0.1:0", "tls": "off", **config})
    return Firehose(section, context("hose", orgs=orgs or (Org(),)))


@pytest.fixture
def pair(tmp_path):
    """A certificate and its key, as files."""
    issued = trustme.CA().issue_cert("localhost")
    tls = {"cert": tmp_path / "tls.crt", "key": tmp_path / "tls.key"}
    issued.cert_chain_pems[0].write_to_path(tls["cert"])
    issued.private_key_pem.write_to_path(tls["key"])
    return tls


async def test_a_sound_firehose_passes_and_nothing_is_done(cloud, free_port, pair):
    """With a good pair and good keys the check passes, without the port and without an Output."""
    with socket.create_server(("127.0.0.1", free_port)):
        await firehose(*cloud, listen=f"127.0.0.1:{free_port}", tls=pair, output=OUTPUT).check()
    assert [await org.account.outputs.list() for org in cloud] == [{}, {}]


async def test_a_pair_that_does_not_fit_is_named(pair, tmp_path):
    """A key of another certificate is found before the start, with the files' names."""
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(pair["key"])
    with pytest.raises(ConfigError, match=r"tls\.crt and .*tls\.key") as caught:
        await firehose(tls=pair).check()
    assert caught.value.where == "sources.hose.tls"


async def test_an_oid_of_nobody_is_named():
    """An allow-list that no organization of several has anything to do with is found before the start."""
    orgs = (Org("acme", "8cbe27f4-aaaa-4bbb-8ccc-000000000001"), Org("globex", "8cbe27f4-aaaa-4bbb-8ccc-000000000002"))
    with pytest.raises(ConfigError, match="8cbe27f4-ffff"):
        await firehose(*orgs, allow_oids=["8cbe27f4-ffff-4bbb-8ccc-000000000003"]).check()


async def test_without_an_output_no_key_is_needed():
    """A firehose that registers nothing passes without an account."""
    await firehose().check()


@pytest.mark.parametrize("missing", ["output.list", "output.set"])
async def test_a_missing_permission_is_named_with_its_organization(cloud, turn, missing):
    """Of two organizations, the one whose key cannot register an Output is named, with what its key lacks."""
    left = sorted({"output.list", "output.set", "output.del"} - {missing})
    await turn(cloud[1], "permissions", oid=cloud[1].oid, permissions=left)
    with pytest.raises(PermissionDeniedError) as caught:
        await firehose(*cloud, output=OUTPUT).check()
    assert (
        caught.value.what == f"In globex: The API key cannot register an Output in {cloud[1].oid}: it lacks {missing}."
    )
    assert caught.value.fix == "Give it the permissions output.list, output.set."


@pytest.mark.parametrize(("on_stop", "passes"), [("keep", True), ("remove", False)])
async def test_removing_needs_a_permission_of_its_own(cloud, turn, on_stop, passes):
    """Only `on_stop: remove` asks for output.del."""
    await turn(cloud[0], "permissions", oid=cloud[0].oid, permissions=["output.list", "output.set"])
    source = firehose(cloud[0], output={**OUTPUT, "on_stop": on_stop})
    if passes:
        await source.check()
    else:
        with pytest.raises(PermissionDeniedError, match=r"lacks output\.del\."):
            await source.check()


async def test_all_organizations_that_fail_are_named(cloud, turn):
    """A revoked key and a weak one are both in the error, which is of the first one's type."""
    await turn(cloud[0], "revoke", oid=cloud[0].oid)
    await turn(cloud[1], "permissions", oid=cloud[1].oid, permissions=["org.get"])
    with pytest.raises(
        AuthenticationError, match=r"hose: In acme: .* refuses the credentials .* globex: .* lacks output"
    ) as caught:
        await firehose(*cloud, output=OUTPUT).check()
    assert cloud[0].account.config.api_key.get_secret_value() not in str(caught.value)


async def test_an_unknown_organization_id_is_found(cloud):
    """A user's key without an oid gets a token, but an Output needs an organization."""
    config = cloud[0].account.config.model_copy(update={"oid": None})
    async with LimaCharlie(config, environ={}) as account:
        org = dataclasses.replace(cloud[0], account=account)
        with pytest.raises(ConfigError, match="In acme: The organization is not known"):
            await firehose(org, output=OUTPUT).check()
