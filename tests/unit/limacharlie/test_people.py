"""Users, API keys, installation keys, ingestion keys, and what an organization counts."""

import pytest

from pipeline.core.errors import NotFoundError, UnavailableError, UsageError
from pipeline.limacharlie.api_keys import with_flair

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
IID = "11111111-1111-4111-8111-111111111111"


async def test_users_come_and_go(account, service):
    """Each by the email address, in the body."""
    service.reply({"users": ["a@x.org", "b@x.org"]}, {"success": True, "invite_sent": True}, {})
    assert await account.users.list() == ("a@x.org", "b@x.org")
    assert await account.users.invite("c@x.org", "Viewer") == {"success": True, "invite_sent": True}
    await account.users.remove("a@x.org")
    assert [(asked.route, asked.form) for asked in service.asked] == [
        (f"GET /v1/orgs/{OID}/users", {}),
        (f"POST /v1/orgs/{OID}/users", {"email": "c@x.org", "invite_missing": "true", "role": "Viewer"}),
        (f"DELETE /v1/orgs/{OID}/users", {"email": "a@x.org"}),
    ]


async def test_permissions_are_granted_one_by_one_or_by_role(account, service):
    """A role travels as JSON and replaces all others."""
    service.reply({"user_permissions": {"a@x.org": ["dr.set", "dr.list"]}}, {}, {}, {"permissions": ["dr.list"]})
    assert await account.users.permissions() == {"a@x.org": {"dr.set", "dr.list"}}
    await account.users.grant("a@x.org", "sensor.task")
    await account.users.revoke("a@x.org", "dr.set")
    assert await account.users.set_role("a@x.org", "Viewer") == {"dr.list"}
    assert [asked.route for asked in service.asked[1:]] == [
        f"POST /v1/orgs/{OID}/users/permissions",
        f"DELETE /v1/orgs/{OID}/users/permissions",
        f"PUT /v1/orgs/{OID}/users/role",
    ]
    assert service.asked[2].form == {"email": "a@x.org", "perm": "dr.set"}
    assert service.asked[3].json == {"email": "a@x.org", "role": "Viewer"}


async def test_api_keys_are_listed_without_their_values(account, service):
    """With the flair that is in the name."""
    listed = {"h1": {"name": "ci[bulk][segment]", "priv": ["dr.list"], "by": "me", "allowed_ip_range": "10.0.0.0/8"}}
    service.reply({"api_keys": listed})
    key = (await account.api_keys.list())["h1"]
    assert (key.name, key.permissions, key.allowed_ip_range) == ("ci[bulk][segment]", {"dr.list"}, "10.0.0.0/8")
    assert key.flair == {"bulk", "segment"}


async def test_a_new_api_key_shows_its_value_once_and_in_no_text(account, service):
    """Flair stands at the end of the name."""
    service.reply({"api_key": "VaLuE", "key_hash": "h2"})
    key = await account.api_keys.create("ci", ["dr.set", "dr.list"], bulk=True, allowed_ip_range="10.0.0.0/8")
    assert (key.value.get_secret_value(), key.key_hash, key.name) == ("VaLuE", "h2", "ci[bulk]")
    assert "VaLuE" not in repr(key)
    assert service.asked[0].form == {
        "key_name": "ci[bulk]",
        "perms": "dr.list,dr.set",
        "allowed_ip_range": "10.0.0.0/8",
    }


async def test_making_a_key_is_not_repeated(account, service):
    """The first try may have made one."""
    service.answers = [service.refusal(503)]
    with pytest.raises(UnavailableError):
        await account.api_keys.create("ci", ["dr.list"])
    with pytest.raises(UnavailableError):
        await account.installation_keys.create("lab")
    assert len(service.asked) == 2


async def test_a_key_without_permissions_is_refused(account, service):
    """It could do nothing."""
    with pytest.raises(UsageError):
        await account.api_keys.create("ci", [])
    assert service.asked == []


async def test_an_api_key_is_revoked_by_its_hash(account, service):
    """In the body."""
    await account.api_keys.delete("h1")
    assert (service.asked[0].route, service.asked[0].form) == (f"DELETE /v1/orgs/{OID}/keys", {"key_hash": "h1"})


def test_flair_is_not_doubled():
    """A name that has it keeps it as it is."""
    assert with_flair("a[bulk]", bulk=True, segment=True) == "a[bulk][segment]"


@pytest.mark.parametrize("created", ["2023-11-14 22:13:20", 1_700_000_000])
async def test_installation_keys_in_both_shapes(account, service, created):
    """Their time is text or a number, their tags are one text; keys are in no repr."""
    doc = {"iid": IID, "desc": "lab", "tags": "a, b", "key": "K1", "json_key": "K2", "created": created}
    service.reply({OID: {IID: doc}}, doc)
    listed = (await account.installation_keys.list())[IID]
    assert listed == await account.installation_keys.get(IID)
    assert (listed.description, listed.tags, listed.created_at) == ("lab", ("a", "b"), 1_700_000_000.0)
    assert listed.key.get_secret_value() == "K1"
    assert "K1" not in repr(listed)
    assert "K2" not in repr(listed)


async def test_installation_keys_are_made_and_removed(account, service):
    """Making one gives its id."""
    service.reply({"iid": IID}, {})
    assert await account.installation_keys.create("lab", tags=["a", "b"], public_ca=True) == IID
    await account.installation_keys.delete(IID)
    assert service.asked[0].form == {"desc": "lab", "tags": "a,b", "use_public_root_ca": "true"}
    assert (service.asked[1].route, service.asked[1].form) == (f"DELETE /v1/installationkeys/{OID}", {"iid": IID})


async def test_ingestion_keys(account, service):
    """Listed alone or in objects; removed by a name in the query."""
    service.reply({"keys": {"a": "K1", "b": {"key": "K2"}}}, {"key": "K3"}, {})
    listed = await account.ingestion_keys.list()
    assert {name: key.get_secret_value() for name, key in listed.items()} == {"a": "K1", "b": "K2"}
    assert "K1" not in repr(listed)
    assert (await account.ingestion_keys.create("c")).get_secret_value() == "K3"
    await account.ingestion_keys.delete("c d")
    assert service.asked[2].route == f"DELETE /v1/insight/{OID}/ingestion_keys"
    assert service.asked[2].query == {"name": "c d"}


async def test_what_an_organization_says_of_itself(account, service):
    """Its name, and numbers as LimaCharlie writes them."""
    service.reply({"oid": OID, "name": "Acme", "sensor_quota": 5}, {"usage": {}}, {"q": 1}, {"techniques": []})
    info = await account.organization.info()
    assert (info.oid, info.name, info.doc["sensor_quota"]) == (OID, "Acme", 5)
    assert await account.organization.usage() == {"usage": {}}
    assert await account.organization.quota_usage() == {"q": 1}
    assert await account.organization.mitre() == {"techniques": []}
    paths = [f"/v1/{part}/{OID}" for part in ("orgs", "usage", "quota_usage", "mitre")]
    assert [asked.path for asked in service.asked] == paths


async def test_an_answer_of_another_shape_is_a_failure(account, service):
    """Not an empty organization."""
    service.reply([])
    with pytest.raises(UnavailableError, match="JSON object"):
        await account.organization.info()
    service.answers = [service.refusal(404, "no such key")]
    with pytest.raises(NotFoundError, match="no such key"):
        await account.installation_keys.get(IID)
