"""The official SDK, only its addresses changed, calls the REST API of a real emulator process over TLS.

It runs in a process of its own, as its users do; each script prints one JSON value.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROLOGUE = """
import json, os, time, uuid
import limacharlie.sdk.spout as spout_module
from limacharlie.client import Client
from limacharlie.sdk.api_keys import ApiKeys
from limacharlie.sdk.artifacts import Artifacts
from limacharlie.sdk.dr_rules import DRRules
from limacharlie.sdk.exfil import Exfil
from limacharlie.sdk.extensions import Extensions
from limacharlie.sdk.hive import Hive, HiveRecord
from limacharlie.sdk.insight import Insight
from limacharlie.sdk.installation_keys import InstallationKeys
from limacharlie.sdk.integrity import Integrity
from limacharlie.sdk.organization import Organization
from limacharlie.sdk.outputs import Outputs
from limacharlie.sdk.payloads import Payloads
from limacharlie.sdk.replay import Replay
from limacharlie.sdk.search import Search
from limacharlie.sdk.sensor import Sensor
from limacharlie.sdk.spout import Spout
from limacharlie.sdk.users import Users

ready = json.loads(os.environ["READY"])
spout_module._STREAM_URL = ready["url"]
org = Organization(Client(oid=ready["oid"], api_key=ready["api_key"]))
sensors = {row["sid"]: row for row in org.list_sensors()}
online = set(org.get_online_sensors())
agents = [Sensor(org, sid) for sid, row in sensors.items() if row["arch"] != 9]
sensor = next(one for one in agents if one.sid in online)
away = next(one for one in agents if one.sid not in online)

def turn(knob, **arguments):
    import requests
    requests.post(f"{ready['url']}/_emulator/{knob}", json=arguments, timeout=5).raise_for_status()

def said(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""


class Emulator:
    """One process for all tests of this file: each leaves it as it found it, or works on names of its own."""

    def __init__(self, folder: Path) -> None:
        path = folder / "ready.json"
        command = [sys.executable, "-m", "pipeline.cli", "emulate", "--listen", "127.0.0.1:0", "--tls", "--rate", "50"]
        self.popen = subprocess.Popen([*command, "--keepalive", "1", "--ready-file", str(path)])
        while not path.exists():
            assert self.popen.poll() is None, "the emulator ended"
            time.sleep(0.02)
        self.ready: dict[str, Any] = json.loads(path.read_text())

    def sdk(self, script: str) -> Any:
        """Run a script after the prologue; gives the JSON that it printed."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
        url, ca = self.ready["url"], self.ready["ca"]
        fixed = {"LC_API_URL": url, "LC_JWT_URL": url, "LC_EPHEMERAL_CREDS": "1", "READY": json.dumps(self.ready)}
        trust = {"SSL_CERT_FILE": ca, "REQUESTS_CA_BUNDLE": ca}
        done = subprocess.run(
            [sys.executable, "-c", PROLOGUE + textwrap.dedent(script)],
            env=clean | fixed | trust,
            capture_output=True,
            timeout=18,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    process = Emulator(tmp_path_factory.mktemp("emulator"))
    yield process
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(10) == 0


@pytest.fixture
def sdk(emulator: Emulator) -> Callable[[str], Any]:
    return emulator.sdk


def test_sensors(sdk):
    """Sensors are listed with filters, in pages, found by host name, and looked at."""
    result = sdk("""
        row = sensors[sensor.sid]
        print(json.dumps([
            len(sensors), len(list(org.list_sensors(limit=5))), len(list(org.list_sensors(selector="plat == linux"))),
            [one["sid"] for one in org.list_sensors(with_hostname_prefix=row["hostname"])] == [sensor.sid],
            [one["sid"] for one in org.list_sensors(with_ip=row["int_ip"])] == [sensor.sid],
            len(list(org.list_sensors(is_online_only=True))) == len(online),
            org.find_sensors_by_hostname(row["hostname"])["sid"][0]["sid"] == sensor.sid,
            sensor.get_info()["hostname"] == row["hostname"], sensor.is_online(), away.is_online(),
            sensor.is_windows, len(org.export_sensors()["sensors"]),
        ]))
    """)
    assert result == [12, 12, 3, True, True, True, True, True, True, False, True, 12]


def test_bad_selector(sdk):
    """A selector that makes no sense is an error with its text."""
    assert "invalid selector" in sdk("print(json.dumps(said(lambda: list(org.list_sensors(selector='a b c')))))")


def test_tags(sdk):
    """Tags are added, listed over the organization, found, and removed; by selector too."""
    result = sdk("""
        sensor.add_tag(["sdk-a", "sdk-b"]); sensor.add_tag("sdk-c", ttl=60)
        have = [tag in sensor.get_tags() for tag in ("sdk-a", "sdk-b", "sdk-c")]
        all_tags = "sdk-a" in org.get_all_tags()
        found = list(org.find_sensors_by_tag("sdk-a"))
        sensor.remove_tag(["sdk-a", "sdk-b"]); sensor.remove_tag("sdk-c")
        left = [tag for tag in sensor.get_tags() if tag.startswith("sdk-")]
        mass = org.mass_tag("plat == linux", "sdk-mass"), org.mass_untag("`sdk-mass` in tags", "sdk-mass")
        print(json.dumps([have, all_tags, found == [sensor.sid], left, mass[0]["tagged"], mass[1]["untagged"]]))
    """)
    assert result == [[True] * 3, True, True, [], 3, 3]


def test_isolation_and_seal(sdk):
    """A sensor is isolated and rejoined, sealed and unsealed."""
    result = sdk("""
        steps = []
        for do, look in ((sensor.isolate, sensor.is_isolated), (sensor.rejoin, sensor.is_isolated),
                         (sensor.seal, sensor.is_sealed), (sensor.unseal, sensor.is_sealed)):
            do(); steps.append(look())
        print(json.dumps(steps))
    """)
    assert result == [True, False, True, False]


def test_task_is_answered_in_the_stream(sdk):
    """A task that is sent with an investigation id is confirmed and answered in the spout of the investigation."""
    result = sdk("""
        investigation = str(uuid.uuid4())
        spout = Spout(org, "event", inv_id=investigation)
        assert spout.wait_connected(10)
        sensor.task("os_version", inv_id=f"{investigation}/1")
        records = [spout.get(timeout=5) for _ in range(2)]
        print(json.dumps([(r["routing"]["event_type"], r["routing"]["sid"] == sensor.sid) for r in records]), flush=True)
        os._exit(0)
    """)
    assert result == [["CLOUD_NOTIFICATION", True], ["OS_VERSION_REP", True]]


def test_unknown_task(sdk):
    """A command that no sensor knows is an error with its name."""
    assert "unknown command: bogus" in sdk("print(json.dumps(said(sensor.task, 'bogus')))")


def test_command_line_request(sdk):
    """The SDK's own command sends a task to a sensor and shows the answer."""
    result = sdk("""
        import contextlib, io
        from limacharlie.cli import cli
        os.environ.update(LC_OID=ready["oid"], LC_API_KEY=ready["api_key"])
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            cli(["--output", "json", "task", "request", "--sid", sensor.sid, "--command", "os_processes"], standalone_mode=False)
        answers = json.loads(shown.getvalue())
        print(json.dumps([[one["routing"]["event_type"], bool(one["event"]["PROCESSES"])] for one in answers]), flush=True)
        os._exit(0)
    """)
    assert result == [["OS_PROCESSES_REP", True]]


def test_reliable_tasking(sdk):
    """A task for a sensor that is away waits, is listed, and is answered with its context when the sensor comes."""
    result = sdk("""
        ext = Extensions(org)
        subscribed = "ext-reliable-tasking" in ext.list_subscribed()
        turn("presence", sensor=away.sid, online=False)
        ask = lambda action, **data: ext.request("ext-reliable-tasking", action, data, unwrap=True)
        made = ask("task", task="os_version", selector=f"sid == '{away.sid}'", context="later", ttl=600)
        queued = ask("list")[away.sid][made["task_id"]]["context"]
        spout = Spout(org, "event", inv_id="later")
        assert spout.wait_connected(10)
        turn("presence", sensor=away.sid, online=True)
        kinds = [spout.get(timeout=5)["routing"]["event_type"] for _ in range(2)]
        left = away.sid in ask("list")
        turn("presence", sensor=away.sid, online=False)
        ask("task", task="os_version", sid=away.sid)
        deleted = ask("untask", sid=away.sid)
        schema = sorted(ext.get_schema("ext-reliable-tasking")["request_schema"])
        print(json.dumps([subscribed, made["queued_sensors"], queued, kinds, left, deleted, schema]), flush=True)
        os._exit(0)
    """)
    assert result == [
        True, 1, "later", ["CLOUD_NOTIFICATION", "OS_VERSION_REP"], False, {"deleted": 1}, ["list", "task", "untask"],
    ]  # fmt: skip


def test_not_subscribed(sdk):
    """Without a subscription the SDK raises its error for a missing right, and subscribing mends it."""
    text = sdk("""
        ext = Extensions(org)
        ext.unsubscribe("ext-exfil")
        text = said(ext.request, "ext-exfil", "list_rules")
        ext.subscribe("ext-exfil"); ext.rekey("ext-exfil")
        ext.request("ext-exfil", "list_rules")
        ext.unsubscribe("ext-exfil")
        names = [one["name"] for one in ext.get_all()["definitions"]]
        assert ext.get(names[0])["name"] == names[0]
        print(json.dumps(text))
    """)
    assert text.startswith("PermissionDeniedError")
    assert "not subscribed" in text


def test_hive(sdk):
    """Records are set, read, listed whole and in pages, renamed, validated and deleted."""
    result = sdk("""
        hive = Hive(org, "lookup")
        for number in range(5):
            hive.set(HiveRecord(f"r {number}/x", data={"n": number}, tags=["sdk"], enabled=True))
        one = hive.get("r 1/x")
        pages = [list(page) for page in hive.iter_pages(limit=2, tag_prefix="sd")]
        hive.rename("r 1/x", "renamed")
        names = list(hive.list())
        mtd = hive.get_metadata("renamed")
        hive.validate(HiveRecord("v", data={"x": 1}))
        for name in names:
            hive.delete(name)
        kind = hive.get_schema()["schema"]["type"]
        print(json.dumps([one.data, one.tags, one.enabled, pages, names, mtd.tags, list(hive.list()), kind]))
    """)
    one = [f"r {number}/x" for number in range(5)]
    assert result == [
        {"n": 1}, ["sdk"], True, [one[:2], one[2:4], one[4:]], [one[0], *one[2:], "renamed"], ["sdk"], [], "object",
    ]  # fmt: skip


def test_hive_too_large(sdk):
    """A hive that cannot be listed at once is read in pages by the SDK without a word."""
    result = sdk("""
        hive = Hive(org, "playbook")
        for number in range(3):
            hive.set(HiveRecord(f"p{number}", data={"x": number}))
        turn("hive_limit", size=1)
        try:
            print(json.dumps([list(hive.list()), list(hive.list_mtd())]))
        finally:
            turn("hive_limit")
    """)
    assert result == [["p0", "p1", "p2"]] * 2


def test_hive_etags(sdk):
    """A transaction is done again when someone else was first; an old etag is refused; a missing record is known as such."""
    result = sdk("""
        from limacharlie.errors import ApiError
        from limacharlie.sdk.hive import is_record_not_found
        hive = Hive(org, "secret")
        hive.set(HiveRecord("tx", data={"secret": "0"}))
        tries = []
        def change(record):
            tries.append(record.etag)
            if len(tries) == 1:
                hive.set(HiveRecord("tx", data={"secret": "other"}))
            record.data["secret"] += "+"
        hive.update_tx("tx", change)
        stale = said(hive.set, HiveRecord("tx", data={"secret": "x"}, etag=tries[0]))
        try:
            hive.get("nope")
        except ApiError as error:
            missing = is_record_not_found(error)
        merged = hive.merge_current_metadata(HiveRecord("nope"))
        print(json.dumps([len(tries), hive.get("tx").data, "ETAG_MISMATCH" in stale, missing, merged]))
    """)
    assert result == [2, {"secret": "other+"}, True, True, False]


def test_rules_and_replay(sdk):
    """A detection rule is stored, replayed over events and over history, and removed."""
    result = sdk("""
        rules, replay = DRRules(org), Replay(org)
        data = {"detect": {"event": "NEW_PROCESS", "op": "exists", "path": "event/FILE_PATH"},
                "respond": [{"action": "report", "name": "x"}]}
        rules.create("sdk-rule", data)
        stored = rules.get("sdk-rule")["data"] == data
        events = [{"routing": {"event_type": "NEW_PROCESS"}, "event": {"FILE_PATH": "x"}},
                  {"routing": {"event_type": "OTHER"}, "event": {"FILE_PATH": "x"}}]
        given = replay.scan_events(events, rule_content=data)
        time.sleep(1)
        now = int(time.time())
        past = replay.run(rule_name="sdk-rule", start=now - 600, end=now, limit_events=2000)
        valid = replay.validate_rule(data)["error"]
        broken = replay.validate_rule({"detect": {"op": "bogus"}, "respond": []})["error"]
        rules.delete("sdk-rule")
        gone = "RECORD_NOT_FOUND" in said(rules.get, "sdk-rule")
        print(json.dumps([stored, len(given["results"]), past["did_match"], valid, "bogus" in broken, gone]))
    """)
    assert result == [True, 1, True, "", True, True]


def test_history(sdk):
    """Events of a sensor, detections and audit are had from what was generated."""
    result = sdk("""
        time.sleep(2)
        now = int(time.time())
        span = (now - 3600, now)
        events = list(sensor.get_events(*span))
        back = list(sensor.get_events(*span, is_forward=False, limit=3))
        detections = list(org.get_detections(*span, limit=20))
        audit = list(org.get_audit_logs(*span, limit=20))
        one = org.get_detection_by_id(detections[0]["detect_id"])
        kind = events[0]["routing"]["event_type"]
        typed = {event["routing"]["event_type"] for event in sensor.get_events(*span, event_type=kind)} == {kind}
        atom = sensor.get_event_by_atom(events[0]["routing"]["this"])["event"] == events[0]
        times = [event["routing"]["event_time"] for event in back]
        print(json.dumps([
            len(events) > 3, times == sorted(times, reverse=True),
            len(detections), len(audit), one == detections[0], typed, atom, bool(sensor.get_overview(*span)),
            Insight(org).is_enabled(), Insight(org).search_ioc("domain", "%", wildcards=True)["type"],
        ]))
    """)
    assert result == [True, True, 20, 20, True, True, True, True, True, "domain"]


def test_search(sdk):
    """A query is validated, run over several pages, listed while open, and refused when it makes no sense."""
    result = sdk("""
        search = Search(org)
        now = int(time.time())
        while len(list(sensor.get_events(now - 3600, now, limit=50))) < 50:
            time.sleep(0.2)
            now = int(time.time())
        turn("searches", page=20, polls=0)
        good = search.validate("* | * | / exists", now - 3600, now)
        bad = search.validate("nonsense", now - 3600, now)["error"]
        open_now, pages = [], []
        for item in search.execute(f"sid == `{sensor.sid}` | * | / exists | LIMIT 50", now - 3600, now):
            pages.append(len(item["rows"]))
            open_now.append(len(search.list_open_queries()["queries"]))
            assert {row["data"]["routing"]["sid"] for row in item["rows"]} <= {sensor.sid}
        refused = said(lambda: list(search.execute("nonsense", now - 3600, now)))
        limits = search.get_limits()["pagination"]["resultsPerPage"]
        left = search.list_open_queries()["count"]
        told = "transcode" in bad, "transcode" in refused
        print(json.dumps([sum(pages), max(open_now), left, good["stats"]["eventsInScope"] > 0, *told, limits]))
    """)
    assert result == [50, 1, 0, True, True, True, 20]


def test_artifacts(sdk):
    """An artifact is uploaded in one piece and in parts, listed, and comes back byte for byte."""
    result = sdk("""
        import base64, gzip, tempfile
        import limacharlie.sdk.artifacts as module
        module.MAX_UPLOAD_PART_SIZE = 1000
        store = Artifacts(org, access_token=ready["ingestion_key"])
        done = []
        for size in (10, 3500):
            data = os.urandom(size)
            with tempfile.NamedTemporaryFile() as file:
                file.write(data)
                file.flush()
                name = store.upload(file.name, source="sdk", hint="bin", original_path="/x/y")["payload"]
            back = gzip.decompress(base64.b64decode(store.get_url(name)["payload"]))
            done.append(back == data)
        rows = store.list(sid="sdk")["artifacts"]
        store.set_rule("r", ["linux"], ["/var/log/*"])
        rules = list(store.get_rules())
        store.delete_rule("r")
        print(json.dumps([done, sorted(row["size"] for row in rows), rows[0]["path"], rules, store.get_rules()]))
    """)
    assert result == [[True, True], [10, 3500], "/x/y", ["r"], {}]


def test_keys_and_users(sdk):
    """API keys, installation keys, ingestion keys, users and their rights are managed."""
    result = sdk("""
        keys = ApiKeys(org)
        made = keys.create("sdk[bulk]", ["sensor.list", "sensor.get"])
        other = Organization(Client(oid=ready["oid"], api_key=made["api_key"]))
        works = len(list(other.list_sensors())) == 12
        named = keys.list()[made["key_hash"]]["name"]
        keys.delete(made["key_hash"])
        installs = InstallationKeys(org)
        iid = installs.create("sdk", tags=["a", "b"])["iid"]
        install = installs.get(iid)["tags"], iid in installs.list()
        installs.delete(iid)
        org.create_ingestion_key("sdk"); ingestion = "sdk" in org.get_ingestion_keys(); org.delete_ingestion_key("sdk")
        users = Users(org)
        users.invite("sdk@example.com"); users.add_permission("sdk@example.com", "dr.list")
        rights = users.list_permissions()["sdk@example.com"]
        role = users.set_role("sdk@example.com", "Viewer")["role"]
        users.remove_permission("sdk@example.com", "dr.list"); users.remove("sdk@example.com")
        left = iid in installs.list(), "sdk@example.com" in users.list()
        print(json.dumps([works, named, install, ingestion, rights, role, *left]))
    """)
    assert result == [True, "sdk[bulk]", ["a,b", True], True, ["dr.list"], "Viewer", False, False]


def test_organization(sdk):
    """What the SDK asks about an organization is answered, and what it sets is kept."""
    result = sdk("""
        from limacharlie.sdk.billing import Billing
        billing = Billing(org)
        org.set_config("sdk", "on")
        org.set_quota(33)
        result = [
            org.get_info()["oid"] == ready["oid"], org.get_config("sdk"), org.get_quota_usage()["quota"],
            "usage" in org.get_stats(), billing.get_status()["status"], "plans" in billing.get_plans(),
            "customer" in billing.get_details(), org.get_jobs(), org.get_groups(), bool(org.get_schemas()["event_types"]),
            org.test_auth(["sensor.task"]), org.test_auth(["no.such"]), org.list_accessible_orgs()["orgs"] == [ready["oid"]],
        ]
        print(json.dumps(result))
    """)
    assert result == [True, "on", 33, True, "active", True, True, [], [], True, True, False, True]


def test_services_and_payloads(sdk):
    """The services that hold rules, and payloads, do what the SDK asks."""
    result = sdk("""
        import tempfile
        exfil, integrity, payloads = Exfil(org), Integrity(org), Payloads(org)
        exfil.create_event("e", ["NEW_PROCESS"], platforms=["linux"])
        listed = list(exfil.list()["list"])
        exfil.delete_event("e")
        rules = org.service_request("integrity", {"action": "list_rules"})
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"MZ")
            file.flush()
            payloads.upload("sdk.exe", file.name)
        size = payloads.list()["sdk.exe"]["size"]
        payloads.delete("sdk.exe")
        print(json.dumps([listed, rules, size, payloads.list()]))
    """)
    assert result == [["e"], {}, 2, {}]


def test_what_is_not_served(emulator):
    """What is not served is an error at once, never a hang."""
    import ssl

    context = ssl.create_default_context(cafile=emulator.ready["ca"])
    for path in ("/v1/cases", "/v1/ai/lcql", "/v1/vulnerability/x"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(emulator.ready["url"] + path, timeout=5, context=context)
        assert "error" in json.load(caught.value)
