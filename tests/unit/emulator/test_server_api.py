"""Tokens, the caller's rights, organizations, outputs and errors over the wire."""

import base64
import gzip
import json
import time

import pytest


def claims(token: str) -> dict:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


async def test_org_key(emulate):
    """An organization's key gives an RS256 token with its oid and permissions as lists."""
    local = await emulate()
    token = await local.token()
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    held = claims(token)
    assert (header["alg"], held["aud"], held["oid"]) == ("RS256", "lce_control_plane", [local.oid])
    assert "output.set" in held["perms"]
    assert 3590 < held["exp"] - time.time() < 3610


async def test_user_key(emulate):
    """A user's key gives a token for all organizations, with permissions by oid."""
    local = await emulate(orgs=3)
    token = await local.token(uid=local.ready["uid"], secret=local.ready["user_api_key"])
    assert set(claims(token)["oid"]) == {org["oid"] for org in local.ready["orgs"]}
    _, who = await local.call("GET", "/v1/who", token=token)
    assert set(who["user_perms"]) == {org["oid"] for org in local.ready["orgs"]}


async def test_user_key_narrowed(emulate):
    """A user's key with an oid gives a token for that organization alone."""
    local = await emulate(orgs=2)
    other = local.ready["orgs"][1]["oid"]
    token = await local.token(oid=other, uid=local.ready["uid"], secret=local.ready["user_api_key"])
    assert list(claims(token)["oid"]) == [other]
    status, body = await local.call("GET", f"/v1/outputs/{local.oid}", token=token)
    assert status == 401
    assert "no access" in body["error"]


async def test_minimal_token(emulate):
    """The oid "-" gives a token that says who, and opens nothing."""
    local = await emulate()
    token = await local.token(oid="-", uid=local.ready["uid"], secret=local.ready["user_api_key"])
    assert claims(token)["oid"] == {}


@pytest.mark.parametrize(
    "form",
    [
        {"secret": "wrong"},
        {"uid": "stale"},
        {"oid": ""},
        {"oid": "another"},
    ],
)
async def test_bad_credentials(emulate, form):
    """A wrong key, a uid beside an organization's key, or a foreign oid is an unknown api key."""
    local = await emulate()
    answer = await local.mint(**{"oid": local.oid, "secret": local.api_key, **form})
    assert answer == (401, {"error": "unknown api key"})


async def test_get_and_jwt_path(emulate):
    """A token can be had by GET and under /jwt as well."""
    local = await emulate()
    query = f"?oid={local.oid}&secret={local.api_key}"
    assert "jwt" in (await local.call("GET", "/" + query))[1]
    assert "jwt" in (await local.call("POST", "/jwt", {"oid": local.oid, "secret": local.api_key}))[1]


@pytest.mark.parametrize("absolute", [False, True])
async def test_expiry(emulate, absolute):
    """An expiry is a moment when it is large, else a duration."""
    local = await emulate()
    asked = int(time.time()) + 500 if absolute else 500
    token = await local.token(oid=local.oid, secret=local.api_key, expiry=str(asked))
    assert 490 < claims(token)["exp"] - time.time() <= 501


async def test_perms_narrowing(emulate):
    """A token can be asked to carry less than its key."""
    local = await emulate()
    token = await local.token(oid=local.oid, secret=local.api_key, perms="output.list,org.get,made.up")
    assert claims(token)["perms"] == ["org.get", "output.list"]
    status, body = await local.call("DELETE", f"/v1/outputs/{local.oid}", {"name": "x"}, token)
    assert (status, body["error"]) == (401, "unauthorized: missing permission output.del")


async def test_token_expires(emulate):
    """A token is refused once its time has come."""
    local = await emulate()
    token = await local.token(oid=local.oid, secret=local.api_key, expiry=str(1))
    assert (await local.call("GET", "/v1/who", token=token))[0] == 200

    async def refused() -> bool:
        return (await local.call("GET", "/v1/who", token=token))[0] == 401

    await local.until(refused)
    assert time.time() >= claims(token)["exp"]


async def test_forged_token(emulate):
    """A token whose claims were changed does not verify."""
    local = await emulate()
    head, body, signature = (await local.token()).split(".")
    changed = {**claims(f"{head}.{body}."), "perms": ["everything"]}
    forged = base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("=")
    for token in (f"{head}.{forged}.{signature}", "x", "..", "é.é.é", f"{head}.{body}"):
        assert (await local.call("GET", "/v1/who", token=token))[0] == 401


async def test_who_org_key(emulate):
    """The caller with an organization's key sees its oid, permissions and name."""
    local = await emulate()
    _, who = await local.call("GET", "/v1/who", token=await local.token())
    assert who["orgs"] == [local.oid]
    assert "output.list" in who["perms"]
    assert who["ident"]


async def test_urls_need_no_token(emulate):
    """The services' hosts are told to anyone, without a scheme, and are all this server."""
    local = await emulate()
    status, body = await local.call("GET", f"/v1/orgs/{local.oid}/url")
    assert status == 200
    assert {body["url"][name] for name in ("lc", "search", "ai", "hooks")} == {local.ready["url"].split("//")[1]}


async def test_org_and_sensors(emulate):
    """The organization's sensors are listed, plain or compressed, and found one by one."""
    local = await emulate()
    token = await local.token()
    assert (await local.call("GET", f"/v1/orgs/{local.oid}", token=token))[1]["oid"] == local.oid
    _, plain = await local.call("GET", f"/v1/sensors/{local.oid}", token=token)
    _, packed = await local.call("GET", f"/v1/sensors/{local.oid}?is_compressed=true", token=token)
    assert json.loads(gzip.decompress(base64.b64decode(packed["sensors"])))[0]["sid"] == plain["sensors"][0]["sid"]
    assert "continuation_token" not in plain
    _, online = await local.call("GET", f"/v1/sensors/{local.oid}?is_online_only=true", token=token)
    assert 0 < len(online["sensors"]) < len(plain["sensors"])
    sid = online["sensors"][0]["sid"]
    _, one = await local.call("GET", f"/v1/{sid}", token=token)
    assert (one["info"]["sid"], one["is_online"]) == (sid, True)
    _, asked = await local.call("POST", f"/v1/online/{local.oid}", {"sids": sid}, token)
    assert asked == {sid: True}
    assert (await local.call("GET", f"/v1/online/{local.oid}", token=token))[1]["count"] == len(online["sensors"])


async def test_outputs(emulate):
    """An output is created with strings, listed with every field under its oid and name, and deleted."""
    local = await emulate()
    token = await local.token()
    status, made = await local.output("one", dest_host="127.0.0.1:1", is_tls="true")
    assert (status, made["for"], made["is_tls"], made["tag"]) == (200, "event", "true", "")
    _, listed = await local.call("GET", f"/v1/outputs/{local.oid}", token=token)
    assert listed == {local.oid: {"one": made}}
    assert await local.call("DELETE", f"/v1/outputs/{local.oid}", {"name": "one"}, token) == (200, {"success": True})
    assert (await local.call("GET", f"/v1/outputs/{local.oid}", token=token))[1] == {local.oid: {}}
    assert (await local.call("DELETE", f"/v1/outputs/{local.oid}", {"name": "one"}, token))[0] == 404


@pytest.mark.parametrize(
    "fields",
    [{"module": "carrier_pigeon"}, {"type": "gossip"}, {}, {"dest_host": "h:1", "is_flat": "true"}],
)
async def test_bad_output(emulate, fields):
    """An output with an unknown module or type, without destination, or with what is not emulated is refused."""
    local = await emulate()
    status, body = await local.output("bad", **fields)
    assert status == 400
    assert body["error"]


async def test_errors_are_dismissed(emulate):
    """An error of a component whose name has a slash is listed and dismissed, escaped or not."""
    local = await emulate()
    token = await local.token()
    org = local.emulator.hub.cloud.first
    for path in ("outputs/one", "outputs%2Fone"):
        org.report("outputs/one", "it failed")
        _, body = await local.call("GET", f"/v1/errors/{local.oid}", token=token)
        assert [(row["component"], row["error"], row["oid"]) for row in body["errors"]] == [
            ("outputs/one", "it failed", local.oid)
        ]
        assert (await local.call("DELETE", f"/v1/errors/{local.oid}/{path}", token=token))[0] == 200
    assert (await local.call("GET", f"/v1/errors/{local.oid}", token=token))[1] == {"errors": []}


@pytest.mark.parametrize("path", ["/v1/cases", "/v1/hive/secret/x/y/z/0", "/nowhere/at/all", "/v1/not-a-sid"])
async def test_unknown_path(emulate, path):
    """What is not served answers at once with a JSON error."""
    local = await emulate()
    status, body = await local.call("GET", path)
    assert status == 404
    assert body["error"]


async def test_https_by_real_name(emulate):
    """Over TLS the certificate is good for the address and for the real host names."""
    import asyncio
    import ssl

    local = await emulate(tls=True)
    context = ssl.create_default_context(cafile=local.ready["ca"])
    port = int(local.ready["url"].rpartition(":")[2])
    for name in ("127.0.0.1", "api.limacharlie.io", "stream-tmp.limacharlie.io", "localhost"):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        writer.close()
        await writer.wait_closed()


async def test_same_seed_same_keys(emulate):
    """The same seed gives the same organizations and keys, another one others."""
    first, second, other = [await emulate(seed=seed, ledger=None) for seed in (1, 1, 2)]
    assert (first.oid, first.api_key) == (second.oid, second.api_key)
    assert first.oid != other.oid
