"""Every call that clients of LimaCharlie make is served; what is not served says so at once."""

import json
import time
from urllib.parse import quote

import pytest

NOW = int(time.time())
SPAN = f"start={NOW - 600}&end={NOW + 60}"
SEARCH = {"query": "* | * | / exists", "startTime": str(NOW - 600), "endTime": str(NOW + 60)}
MISSING = "00000000-0000-4000-8000-000000000000"

SERVED = """
GET /v1/who
GET /v1/orgs/{oid}
GET /v1/orgs/{oid}/url
GET /v1/orgs/{oid}/subscriptions
GET /v1/orgs/{oid}/keys
GET /v1/orgs/{oid}/schema
GET /v1/orgs/{oid}/schema/{kind}
GET /v1/orgs/{oid}/users
GET /v1/orgs/{oid}/users/permissions
GET /v1/orgs/{oid}/billing/status
GET /v1/orgs/{oid}/billing/details
GET /v1/sensors/{oid}
GET /v1/{sid}
GET /v1/{sid}/tags
POST /v1/{sid} tasks=os_version
POST /v1/{sid}/tags tags=a
DELETE /v1/{sid}/tags tag=a
POST /v1/{sid}/isolation
DELETE /v1/{sid}/isolation
POST /v1/{sid}/seal
DELETE /v1/{sid}/seal
GET /v1/sensor/{oid}/{sid}
POST /v1/sensor/{oid}/{sid}/task tasks=os_version
POST /v1/sensor/{oid}/{sid}/tag tags=a
DELETE /v1/sensor/{oid}/{sid}/tag tag=a
GET /v1/online/{oid}
POST /v1/online/{oid} sids={sid}
GET /v1/tags/{oid}
GET /v1/tags/{oid}/a
GET /v1/hostnames/{oid}?hostname=d
POST /v1/export/{oid}/sensors
GET /v1/outputs/{oid}
POST /v1/outputs/{oid} name=m&module=s3&type=detect&bucket=b
DELETE /v1/outputs/{oid} name=m
GET /v1/errors/{oid}
GET /v1/usage/{oid}
GET /v1/quota_usage/{oid}
GET /v1/mitre/{oid}
GET /v1/user/orgs
GET /v1/groups
GET /v1/plans
GET /v1/events
GET /v1/ontology
GET /v1/job/{oid}
GET /v1/runtime_mtd/{oid}
GET /v1/installationkeys/{oid}
POST /v1/installationkeys/{oid} desc=d&tags=a
GET /v1/payload/{oid}
GET /v1/hive/lookup/{oid}
GET /v1/hive/lookup/schema
POST /v1/hive/lookup/{oid}/m/data data=%7B%22a%22%3A1%7D
GET /v1/hive/lookup/{oid}/m/data
GET /v1/hive/lookup/{oid}/m/mtd
POST /v1/hive/lookup/{oid}/m/mtd usr_mtd=%7B%22enabled%22%3Atrue%7D
POST /v1/hive/lookup/{oid}/m/validate data=%7B%22a%22%3A1%7D
POST /v1/hive/lookup/{oid}/m/rename?new_name=n
DELETE /v1/hive/lookup/{oid}/n
POST /v1/hive request={batch}
GET /v1/rules/{oid}
GET /v1/fp/{oid}
GET /v1/extension/definition
GET /v1/extension/schema/ext-reliable-tasking?oid={oid}
POST /v1/extension/request/ext-reliable-tasking oid={oid}&action=list&data=%7B%7D
POST /v1/orgs/{oid}/subscription/extension/ext-exfil
DELETE /v1/orgs/{oid}/subscription/extension/ext-exfil
POST /v1/service/{oid}/exfil request_data=eyJhY3Rpb24iOiAibGlzdF9ydWxlcyJ9&is_async=False
GET /v1/insight/{oid}/{sid}?{span}
GET /v1/insight/{oid}/detections?{span}
GET /v1/insight/{oid}/audit?{span}
GET /v1/insight/{oid}/artifacts?{span}
GET /v1/insight/{oid}/artifacts/rules
GET /v1/insight/{oid}/ingestion_keys
GET /v1/insight/{oid}/objects/domain?name=example.com&info=summary
GET /v1/search/{oid}/queries
GET /v1/search/{oid}/limits
"""

GONE = """
GET /v1/{missing} 404
GET /v1/insight/{oid}/detections/nope 404
GET /v1/hive/lookup/{oid}/nope/data 400
POST /v1/insight/{oid}/artifacts/originals/nope 404
GET /v1/search/nope 404
GET /v1/extension/schema/ext-nope?oid={oid} 404
POST /v1/extension/request/ext-exfil 403
GET /v1/sensors/{missing} 401
DELETE /v1/errors/{oid}/nothing 404
GET /v1/ai/lcql 404
POST /v1/ai/dr 404
POST /v1/usp/validate/{oid} 404
GET /v1/cases 404
PATCH /v1/orgs/{oid}/nothing 404
GET /no/such/thing/at/all 404
"""


async def fill(local, line: str) -> tuple[str, str, str]:
    method, path, *form = line.split()
    sid = (await local.sensor())["sid"]
    batch = json.dumps(
        {"get_record": {"record_id": {"hive": {"name": "fp", "partition": local.oid}, "name": "x", "guid": ""}}},
        separators=(",", ":"),
    )
    known: dict[str, str] = {"batch": quote(batch), "kind": ""}
    if "{kind}" in path:
        # of what was generated so far; the first events need a moment
        async def seen() -> bool:
            kinds = (await local.api("GET", f"/v1/orgs/{local.oid}/schema"))["event_types"]
            known["kind"] = quote(kinds[0], safe="") if kinds else ""
            return bool(kinds)

        await local.until(seen)
    known |= {"oid": local.oid, "sid": sid, "span": SPAN, "missing": MISSING}
    return method, path.format(**known), "".join(form).format(**known)


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def test_served(emulate):
    """Each call of the list is answered with a JSON success."""
    local = await emulate(rate=20)
    failed = []
    for line in SERVED.strip().splitlines():
        method, path, form = await fill(local, line)
        headers = {**FORM, "Authorization": f"Bearer {await local.token()}"}
        async with local.client.request(method, local.ready["url"] + path, data=form, headers=headers) as answer:
            body = await answer.read()
            if answer.status != 200 or not isinstance(json.loads(body), dict | list):
                failed.append((line, answer.status, body[:100]))
    assert failed == []


@pytest.mark.parametrize("path", ["/v1/search/validate", "/v1/search"])
async def test_search_is_served(emulate, path):
    """A query is checked and started with JSON."""
    local = await emulate(rate=20)
    answer = await local.api("POST", path, json={"oid": local.oid, **SEARCH})
    assert not answer.get("error")


async def test_not_there_and_not_served(emulate):
    """What is not there, not allowed, or not served at all, is a JSON error with its status, at once."""
    local = await emulate()
    wrong = []
    for line in GONE.strip().splitlines():
        call, _, status = line.rpartition(" ")
        method, path, _ = await fill(local, call)
        began = time.monotonic()
        headers = {**FORM, "Authorization": f"Bearer {await local.token()}"}
        form = f"oid={local.oid}&action=list_rules&data=%7B%7D" if method == "POST" else ""
        async with local.client.request(method, local.ready["url"] + path, data=form, headers=headers) as answer:
            body = await answer.read()
        error = json.loads(body).get("error") if body.startswith(b"{") else None
        if answer.status != int(status) or not isinstance(error, str) or time.monotonic() - began > 2:
            wrong.append((line, answer.status, body[:100]))
    assert wrong == []
