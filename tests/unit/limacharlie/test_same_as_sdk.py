"""The official SDK is the referee: for the same call, ours puts the same request on the wire."""

import asyncio
from urllib.parse import urlsplit

import limacharlie.client as sdk
import orjson
import pytest
from limacharlie.sdk.artifacts import Artifacts
from limacharlie.sdk.extensions import Extensions
from limacharlie.sdk.hive import Hive, HiveRecord
from limacharlie.sdk.organization import Organization
from limacharlie.sdk.search import Search
from limacharlie.sdk.sensor import Sensor

from pipeline.limacharlie import hive as ours

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
SID = "9cbed57a-6d6a-4af0-b881-803a99b177d9"
RANGE = (1_700_000_000, 1_700_003_600)
RULE = {"detect": {"op": "exists", "path": "event"}, "respond": []}


async def drain(walk):
    return [each async for each in walk]


CALLS = {
    "task": (
        lambda org: Sensor(org, SID).task(["os_version", "netstat"], inv_id="inc/1"),
        lambda a: a.tasks.send(SID, "os_version", "netstat", inv_id="inc/1", if_offline="unchecked"),
    ),
    "sensor": (lambda org: Sensor(org, SID).get_info(), lambda a: a.sensors.get(SID)),
    "sensors": (
        lambda org: list(org.list_sensors("plat == windows", limit=5, with_ip="10.0.0.1", is_online_only=True)),
        lambda a: drain(
            a.sensors.list("plat == windows", page_size=5, with_ip="10.0.0.1", online_only=True, compressed=False)
        ),
    ),
    "hostname": (lambda org: org.find_sensors_by_hostname("d"), lambda a: a.sensors.by_hostname("d")),
    "online": (lambda org: org.get_online_sensors([SID]), lambda a: a.sensors.online([SID])),
    "isolate": (lambda org: Sensor(org, SID).isolate(), lambda a: a.sensors.isolate(SID)),
    "rejoin": (lambda org: Sensor(org, SID).rejoin(), lambda a: a.sensors.rejoin(SID)),
    "seal": (lambda org: Sensor(org, SID).seal(), lambda a: a.sensors.seal(SID)),
    "delete": (lambda org: Sensor(org, SID).delete(), lambda a: a.sensors.delete(SID)),
    "tags": (lambda org: Sensor(org, SID).get_tags(), lambda a: a.tags.of(SID)),
    "add tags": (lambda org: Sensor(org, SID).add_tag(["a", "b"], ttl=60), lambda a: a.tags.add(SID, "a", "b", ttl=60)),
    "remove tag": (lambda org: Sensor(org, SID).remove_tag("a"), lambda a: a.tags.remove(SID, "a")),
    "remove tags": (lambda org: Sensor(org, SID).remove_tag(["a", "b"]), lambda a: a.tags.remove(SID, "a", "b")),
    "all tags": (lambda org: org.get_all_tags(), lambda a: a.tags.all()),
    "tagged": (lambda org: org.find_sensors_by_tag("a/b"), lambda a: a.tags.sensors("a/b")),
    "events": (
        lambda org: list(Sensor(org, SID).get_events(*RANGE, limit=5, event_type="DNS_REQUEST", is_forward=False)),
        lambda a: drain(a.history.events(SID, *RANGE, limit=5, event_type="DNS_REQUEST", forward=False)),
    ),
    "detections": (
        lambda org: list(org.get_detections(*RANGE, limit=5, category="c")),
        lambda a: drain(a.history.detections(*RANGE, limit=5, category="c")),
    ),
    "audit": (
        lambda org: list(org.get_audit_logs(*RANGE, limit=5, event_type="x", sid=SID)),
        lambda a: drain(a.history.audit(*RANGE, limit=5, event_type="x", sid=SID)),
    ),
    "detection": (lambda org: org.get_detection_by_id("d1"), lambda a: a.history.detection("d1")),
    "hive get": (lambda org: Hive(org, "fp").get("a b/c"), lambda a: a.hive("fp").get("a b/c")),
    "hive mtd": (lambda org: Hive(org, "fp").get_metadata("a"), lambda a: a.hive("fp").metadata("a")),
    "hive set": (
        lambda org: Hive(org, "fp").set(HiveRecord("a", RULE, enabled=True, tags=["t"], comment="c", etag="e")),
        lambda a: a.hive("fp").put(ours.HiveRecord("a", RULE, enabled=True, tags=("t",), comment="c", etag="e")),
    ),
    "hive set mtd": (
        lambda org: Hive(org, "fp").set(HiveRecord("a", enabled=True, expiry=1_700_000_000_000)),
        lambda a: a.hive("fp").put(ours.HiveRecord("a", enabled=True, expires_at=1_700_000_000)),
    ),
    "hive validate": (
        lambda org: Hive(org, "fp").validate(HiveRecord("a", RULE)),
        lambda a: a.hive("fp").validate(ours.HiveRecord("a", RULE)),
    ),
    "hive rename": (lambda org: Hive(org, "fp").rename("a", "b c"), lambda a: a.hive("fp").rename("a", "b c")),
    "hive delete": (lambda org: Hive(org, "fp").delete("a"), lambda a: a.hive("fp").delete("a")),
    "hive schema": (lambda org: Hive(org, "fp").get_schema(), lambda a: a.hive("fp").schema()),
    "users": (lambda org: org.get_users(), lambda a: a.users.list()),
    "grant": (
        lambda org: org.add_user_permission("a@x.org", "dr.set"),
        lambda a: a.users.grant("a@x.org", "dr.set"),
    ),
    "role": (lambda org: org.set_user_role("a@x.org", "Viewer"), lambda a: a.users.set_role("a@x.org", "Viewer")),
    "api keys": (lambda org: org.get_api_keys(), lambda a: a.api_keys.list()),
    "new api key": (
        lambda org: org.add_api_key("k[bulk]", ["dr.list", "dr.set"], "10.0.0.0/8"),
        lambda a: a.api_keys.create("k", ["dr.set", "dr.list"], bulk=True, allowed_ip_range="10.0.0.0/8"),
    ),
    "delete api key": (lambda org: org.remove_api_key("h"), lambda a: a.api_keys.delete("h")),
    "installation keys": (lambda org: org.get_installation_keys(), lambda a: a.installation_keys.list()),
    "new installation key": (
        lambda org: org.create_installation_key("lab", tags=["a", "b"]),
        lambda a: a.installation_keys.create("lab", tags=["a", "b"]),
    ),
    "ingestion keys": (lambda org: org.get_ingestion_keys(), lambda a: a.ingestion_keys.list()),
    "delete ingestion key": (lambda org: org.delete_ingestion_key("a b"), lambda a: a.ingestion_keys.delete("a b")),
    "subscribe": (lambda org: Extensions(org).subscribe("ext-a"), lambda a: a.extensions.subscribe("ext-a")),
    "unsubscribe": (lambda org: Extensions(org).unsubscribe("ext-a"), lambda a: a.extensions.unsubscribe("ext-a")),
    "extension schema": (lambda org: Extensions(org).get_schema("ext-a"), lambda a: a.extensions.schema("ext-a")),
    "artifacts": (
        lambda org: Artifacts(org).list(SID, *RANGE),
        lambda a: drain(a.artifacts.list(*RANGE, sid=SID)),
    ),
    "artifact rule": (
        lambda org: Artifacts(org).set_rule("r", ["linux"], ["/x"], tags=["t"]),
        lambda a: a.artifacts.put_rule("r", ["/x"], platforms=["linux"], tags=["t"]),
    ),
    "delete artifact rule": (lambda org: Artifacts(org).delete_rule("r"), lambda a: a.artifacts.delete_rule("r")),
    "validate query": (
        lambda org: Search(org).validate("* | * | / exists", *RANGE, stream="event"),
        lambda a: a.search.validate("* | * | / exists", *RANGE),
    ),
    "search limits": (lambda org: Search(org).get_limits(), lambda a: a.search.limits()),
    "usage": (lambda org: org.get_stats(), lambda a: a.organization.usage()),
    "quota": (lambda org: org.get_quota_usage(), lambda a: a.organization.quota_usage()),
    "mitre": (lambda org: org.get_mitre_report(), lambda a: a.organization.mitre()),
}
ANSWER = {"events": "", "iid": SID, "api_key": "k", "artifacts": [], "url": {}}


def wire(asked):
    """A request, with JSON read, so that spaces and the order of fields do not count."""

    def value(text):
        try:
            return orjson.loads(text)
        except ValueError:
            return text

    form = [(key, value(text)) for key, text in asked.fields]
    form.sort(key=lambda field: field[0])
    return asked.method, urlsplit(asked.path).path, asked.query, form, None if form else value(asked.body)


@pytest.mark.parametrize("name", CALLS)
async def test_the_same_request(account, service, monkeypatch, name):
    """Method, path, query and body, whatever the call."""
    monkeypatch.setenv("LC_EPHEMERAL_CREDS", "1")
    monkeypatch.setattr(sdk, "ROOT_URL", service.url)
    monkeypatch.setattr(sdk, "JWT_URL", service.url)
    service.reply({**ANSWER, "events": service.packed([]), "detects": service.packed([])})
    urls = f"GET /v1/orgs/{OID}/url"
    service.route(urls, {"url": {"search": service.url}})
    theirs, mine = CALLS[name]
    await asyncio.to_thread(theirs, Organization(sdk.Client(oid=OID, api_key=SID)))
    expected = [wire(asked) for asked in service.asked if asked.route != urls]
    service.asked.clear()
    await mine(account)
    assert [wire(asked) for asked in service.asked] == expected
    assert len(expected) == 1
