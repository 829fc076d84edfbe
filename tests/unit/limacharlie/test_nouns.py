"""Outputs, errors, addresses, identity: what goes over the wire and what comes of it."""

import pytest
from aiohttp import web

from pipeline.core.errors import NotFoundError, UnavailableError
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.org_errors import OrgError
from pipeline.limacharlie.outputs import Output

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
LISTED = {
    OID: {
        "prod": {
            "name": "prod",
            "module": "syslog",
            "for": "event",
            "dest_host": "a:1",
            "is_tls": "true",
            "tag": "",
            "sid": None,
        }
    }
}


def answer(doc):
    return lambda _: web.json_response(doc)


async def test_outputs_are_listed_without_what_is_not_set(account, service):
    """The API gives every known field, empty where unset, and the stream as `for`."""
    service.answers = [answer(LISTED)]
    expected = Output("prod", "syslog", "event", {"dest_host": "a:1", "is_tls": "true"})
    assert await account.outputs.list() == {"prod": expected}
    assert await account.outputs.get("prod") == expected
    with pytest.raises(NotFoundError, match="'lab'"):
        await account.outputs.get("lab")


async def test_an_organization_without_outputs_has_none(account, service):
    """The API leaves the organization out."""
    service.answers = [answer({})]
    assert await account.outputs.list() == {}


@pytest.mark.parametrize("doc", [[], {OID: []}, "x"])
async def test_an_unreadable_list_is_a_failure_and_not_an_empty_list(account, service, doc):
    """Else one would register what is there."""
    service.answers = [answer(doc)]
    with pytest.raises(UnavailableError, match="outputs"):
        await account.outputs.list()


async def test_an_output_is_created_with_strings(account, service):
    """Booleans, numbers and lists as LimaCharlie writes them; what is not set is left out."""
    output = Output.make(
        "prod", "syslog", "event", dest_host="a:1", is_tls=True, sample_rate=3, tag=None, cat_white_list=["a", "b"]
    )
    service.answers = [answer({"name": "prod", "module": "syslog", "for": "event", "dest_host": "a:1"})]
    assert await account.outputs.put(output) == Output("prod", "syslog", "event", {"dest_host": "a:1"})
    assert (service.asked[0].method, service.asked[0].path) == ("POST", f"/v1/outputs/{OID}")
    assert service.asked[0].form == {
        "name": "prod",
        "module": "syslog",
        "type": "event",
        "dest_host": "a:1",
        "is_tls": "true",
        "sample_rate": "3",
        "cat_white_list": "a\nb",
    }


async def test_an_output_is_deleted_by_name(account, service):
    """The name travels in the body."""
    await account.outputs.delete("prod")
    assert (service.asked[0].method, service.asked[0].form) == ("DELETE", {"name": "prod"})


def test_an_output_does_not_show_its_secrets():
    """Passwords and tokens are masked in its repr."""
    shown = repr(
        Output.make("x", "webhook", "event", secret_key="S1", password="S2", dest_host="h", structured_data="S3")
    )
    assert "S1" not in shown
    assert "S2" not in shown
    assert "S3" not in shown
    assert "'dest_host': 'h'" in shown


async def test_errors_are_listed_in_seconds_and_fit_for_a_log(account, service):
    """Times may be milliseconds; texts may be anything."""
    errors = [
        {"component": "outputs/prod", "error": "no\x1b[31m route", "ts": 1_700_000_000_000, "oid": OID},
        {"component": "x", "error": None, "ts": True},
        "nonsense",
    ]
    service.answers = [answer({"errors": errors})]
    assert await account.errors.list() == [
        OrgError("outputs/prod", "no [31m route", 1_700_000_000.0),
        OrgError("x", "None", None),
    ]
    assert (await account.errors.of_output("prod")).text == "no [31m route"
    assert await account.errors.of_output("lab") is None


async def test_an_error_is_dismissed_by_its_component(account, service):
    """Its slash is part of the name and not of the path."""
    await account.errors.dismiss("outputs/a b")
    assert (service.asked[0].method, service.asked[0].path) == ("DELETE", f"/v1/errors/{OID}/outputs%2Fa%20b")


async def test_addresses_are_asked_for_once_and_without_a_token(account, service):
    """The list is public."""
    service.answers = [answer({"url": {"ai": "ai.example.com", "x": 5}, "certs": {}})]
    assert await account.organization.urls() == {"ai": "ai.example.com"}
    assert await account.organization.urls() == {"ai": "ai.example.com"}
    assert [(asked.path, asked.token) for asked in service.asked] == [(f"/v1/orgs/{OID}/url", "")]
    assert service.mints == []


async def test_a_service_is_the_configured_one_or_the_organizations(service):
    """With https where the list has no scheme; a service that is nowhere is an error."""
    service.answers = [answer({"url": {"ai": "ai.example.com/", "search": "http://s"}})]
    section = LimaCharlieConfig(oid=OID, api_key="k", endpoints={"api": service.url, "hooks": "http://h"})
    async with LimaCharlie(section, environ={}) as account:
        assert await account.organization.service("hooks") == "http://h"
        assert await account.organization.service("ai") == "https://ai.example.com"
        assert await account.organization.service("search") == "http://s"
        with pytest.raises(NotFoundError, match="logs"):
            await account.organization.service("logs")


@pytest.mark.parametrize(
    "doc",
    [{"ident": "key", "perms": ["a.b"], "orgs": [OID]}, {"ident": "key", "user_perms": {OID: ["a.b"], "x": ["c.d"]}}],
)
async def test_who_we_are_in_both_shapes(account, service, doc):
    """An organization's key and a user's."""
    service.answers = [answer(doc)]
    found = await account.organization.who()
    assert (found.name, found.permissions) == ("key", {"a.b"})
