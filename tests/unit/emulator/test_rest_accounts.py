"""Users, keys, groups, and the small calls about an organization."""

import re

import pytest


async def test_users(emulate):
    """A user is invited without rights, gets some or a role, loses them, and is removed."""
    local = await emulate()
    users, rights = f"/v1/orgs/{local.oid}/users", f"/v1/orgs/{local.oid}/users/permissions"
    await local.api("POST", users, {"email": "zoe@example.com"})
    assert "zoe@example.com" in (await local.api("GET", users))["users"]
    await local.api("POST", rights, {"email": "zoe@example.com", "perm": "dr.set"})
    assert (await local.api("GET", rights))["user_permissions"]["zoe@example.com"] == ["dr.set"]
    await local.api("DELETE", rights, {"email": "zoe@example.com", "perm": "dr.set"})
    assert (await local.api("GET", rights))["user_permissions"]["zoe@example.com"] == []
    role = await local.api("PUT", f"{users}/role", json={"email": "zoe@example.com", "role": "Viewer"})
    assert "sensor.list" in role["permissions"]
    await local.api("PUT", f"{users}/role", json={"email": "zoe@example.com", "role": "King"}, status=400)
    await local.api("DELETE", users, {"email": "zoe@example.com"})
    await local.api("DELETE", users, {"email": "zoe@example.com"}, status=404)


async def test_api_keys(emulate):
    """A new key works with the rights it was given, until it is deleted."""
    local = await emulate()
    keys = f"/v1/orgs/{local.oid}/keys"
    form = {"key_name": "reader[bulk]", "perms": "sensor.list,sensor.get", "allowed_ip_range": "127.0.0.0/8"}
    made = await local.api("POST", keys, form)
    row = (await local.api("GET", keys))["api_keys"][made["key_hash"]]
    assert (row["name"], row["priv"]) == ("reader[bulk]", ["sensor.get", "sensor.list"])
    assert made["api_key"] not in str(await local.api("GET", keys))
    await local.api("POST", keys, form | {"allowed_ip_range": "nowhere"}, status=400)
    assert (await local.mint(oid=local.oid, secret=made["api_key"]))[0] == 200
    await local.api("DELETE", keys, {"key_hash": made["key_hash"]})
    await local.api("DELETE", keys, {"key_hash": made["key_hash"]}, status=404)
    assert (await local.mint(oid=local.oid, secret=made["api_key"]))[0] == 401


async def test_api_key_from_elsewhere(emulate):
    """A key that may only be used from another network is unknown from here."""
    local = await emulate()
    form = {"key_name": "far", "perms": "org.get", "allowed_ip_range": "10.0.0.0/8"}
    key = (await local.api("POST", f"/v1/orgs/{local.oid}/keys", form))["api_key"]
    assert await local.mint(oid=local.oid, secret=key) == (401, {"error": "unknown api key"})


async def test_installation_keys(emulate):
    """The fleet's installation keys are there; another is made with its tags, and deleted."""
    local = await emulate()
    path = f"/v1/installationkeys/{local.oid}"
    before = (await local.api("GET", path))[local.oid]
    assert (await local.sensor())["iid"] in before
    iid = (await local.api("POST", path, {"desc": "d", "tags": "a,b", "use_public_root_ca": "true"}))["iid"]
    key = await local.api("GET", f"{path}/{iid}")
    assert (key["desc"], key["tags"], key["use_public_root_ca"]) == ("d", "a,b", True)
    await local.api("DELETE", path, {"iid": iid})
    await local.api("GET", f"{path}/{iid}", status=404)
    assert (await local.api("GET", path))[local.oid] == before


async def test_my_orgs(emulate):
    """A user's minimal token lists the user's organizations, in pages and by name."""
    local = await emulate(orgs=3)
    token = await local.token(oid="-", uid=local.ready["uid"], secret=local.ready["user_api_key"])
    _, body = await local.call("GET", "/v1/user/orgs?offset=1&limit=1", token=token)
    assert (body["total"], [org["name"] for org in body["orgs"]]) == (3, ["emulated-2"])
    _, body = await local.call("GET", "/v1/user/orgs?filter=LATED-3", token=token)
    assert [org["oid"] for org in body["orgs"]] == [local.ready["orgs"][2]["oid"]]


async def test_groups(emulate):
    """A group gets members, owners, organizations and rights, and loses them."""
    local = await emulate()
    gid = (await local.api("POST", "/v1/groups", {"name": "g"}))["data"]["gid"]
    await local.api("POST", f"/v1/groups/{gid}/users", {"member_email": "a@example.com"})
    await local.api("POST", f"/v1/groups/{gid}/orgs", {"oid": local.oid})
    await local.api("POST", f"/v1/groups/{gid}/permissions", [("perm", "dr.set"), ("perm", "dr.list")])
    group = (await local.api("GET", f"/v1/groups/{gid}"))["group"]
    assert (group["members"], group["orgs"][0]["org_id"], group["perms"]) == (
        ["a@example.com"],
        local.oid,
        ["dr.set", "dr.list"],
    )
    await local.api("DELETE", f"/v1/groups/{gid}/users", {"member_email": "a@example.com"})
    assert (await local.api("GET", f"/v1/groups/{gid}"))["group"]["members"] == []
    await local.api("DELETE", f"/v1/groups/{gid}")
    assert (await local.api("GET", "/v1/groups"))["groups"] == []


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/v1/usage/{oid}", "usage"),
        ("/v1/quota_usage/{oid}", "quota"),
        ("/v1/orgs/{oid}/billing/status", "status"),
        ("/v1/orgs/{oid}/billing/details", "customer"),
        ("/v1/orgs/{oid}/resources", "resources"),
        ("/v1/plans", "plans"),
        ("/v1/events", "events"),
        ("/v1/ontology", "ontology"),
        ("/v1/mitre/{oid}", "techniques"),
        ("/v1/job/{oid}", "jobs"),
        ("/v1/insight/{oid}", "insight_bucket"),
        ("/v1/service/{oid}", "replicants"),
    ],
)
async def test_small_calls(emulate, path, key):
    """What clients ask on the way has an answer of the right form."""
    local = await emulate()
    assert key in await local.api("GET", path.format(oid=local.oid))


async def test_settings_name_and_quota(emulate):
    """Settings, the name and the quota of an organization are kept."""
    local = await emulate()
    await local.api("POST", f"/v1/configs/{local.oid}/vt", {"value": "k"})
    assert (await local.api("GET", f"/v1/configs/{local.oid}/vt"))["value"] == "k"
    await local.api("POST", f"/v1/orgs/{local.oid}/name?name=renamed")
    assert (await local.api("GET", f"/v1/orgs/{local.oid}"))["name"] == "renamed"
    await local.api("POST", f"/v1/orgs/{local.oid}/quota", {"quota": "77"})
    assert (await local.api("GET", f"/v1/quota_usage/{local.oid}"))["quota"] == 77


async def test_schemas(emulate):
    """The schema of an event type is read from what was generated."""
    local = await emulate(events=300)
    async with local.stream() as stream:
        await stream.lines(301)
    assert "evt:NEW_PROCESS" in (await local.api("GET", f"/v1/orgs/{local.oid}/schema"))["event_types"]
    schema = (await local.api("GET", f"/v1/orgs/{local.oid}/schema/evt:NEW_PROCESS"))["schema"]
    assert "s:event/FILE_PATH" in schema["elements"]
    await local.api("GET", f"/v1/orgs/{local.oid}/schema/evt:NOPE", status=404)


async def test_every_call_needs_a_token(emulate):
    """No call of the API answers without a token but those that are meant to, and none looks at its parameters before."""
    local = await emulate()
    services = local.emulator.panel.rest.services
    open_to_all = {"/v1/orgs/{oid}/url", "/ingest", "/exports/{id}", "/signed/{id}", "/{oid}/{name}/{secret}"}
    for route in local.emulator._runner.app.router.routes():
        path = route.resource.canonical
        if getattr(route.handler, "__self__", None) not in services or route.method == "HEAD" or path in open_to_all:
            continue
        values = {"oid": local.oid, "sid": "00000000-0000-4000-8000-000000000000", "kind": "users"}
        if "search" in path:
            values["id"] = values["sid"]
        filled = re.sub(r"{(\w+)}", lambda name: values.get(name[1], "x"), path)  # noqa: B023 - used at once
        assert (await local.call(route.method, filled))[0] == 401, (route.method, path)
