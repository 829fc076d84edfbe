"""Our client and the official SDK ask the same emulator, and get the same; meanwhile ours never holds up its event loop."""

import asyncio
import base64
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.limacharlie import artifacts
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.hive import HiveRecord
from pipeline.limacharlie.outputs import Output
from pipeline.limacharlie.simple_request import SimpleRequests

EVENTS = 150
EVERYTHING = "* | * | / exists"
PROLOGUE = """
import base64, gzip, json, os, sys
from limacharlie.client import Client
from limacharlie.sdk.artifacts import Artifacts
from limacharlie.sdk.extensions import Extensions
from limacharlie.sdk.hive import Hive
from limacharlie.sdk.organization import Organization
from limacharlie.sdk.replay import Replay
from limacharlie.sdk.search import Search
from limacharlie.sdk.sensor import Sensor

ready, known = json.loads(os.environ["READY"]), json.loads(os.environ["KNOWN"])
org = Organization(Client(oid=ready["oid"], api_key=ready["api_key"]))
sid, away, tid, aid, did = (known[name] for name in ("sid", "away", "task", "artifact", "detection"))
span = known["span"]
rule = {"detect": {"op": "exists", "path": "event/a"}, "respond": [{"action": "report", "name": "x"}]}
given = [{"routing": {"event_type": "X"}, "event": {"a": 1}}, {"routing": {"event_type": "X"}, "event": {"b": 1}}]
query = f"sid == `{sid}` | * | / exists"
steady = lambda row: {key: value for key, value in row.items() if key != "alive"}  # it is there, at each moment
answers = {}
for name, expression in json.loads(os.environ["CALLS"]).items():
    answers[name] = eval(expression)
json.dump(answers, sys.stdout, default=sorted)
"""


async def drain(walk: Any) -> list[Any]:
    return [each async for each in walk]


async def search(lab: "Lab", query: str = "") -> list[Any]:
    async with lab.account.search.run(query or lab.query, *lab.span) as found:
        return [row.data async for row in found.rows()]


async def replayed(lab: "Lab") -> list[Any]:
    rule = {"detect": {"op": "exists", "path": "event/a"}, "respond": [{"action": "report", "name": "x"}]}
    given = [{"routing": {"event_type": "X"}, "event": {"a": 1}}, {"routing": {"event_type": "X"}, "event": {"b": 1}}]
    found = await lab.account.replay.events(rule, given)
    return [found.matched, len(found.results)]


CALLS: dict[str, tuple[str, Callable[["Lab"], Any]]] = {
    "who": ("sorted(org.who_am_i()['perms'])", lambda lab: names(lab.account.organization.who(), "permissions")),
    "organization": ("org.get_info()", lambda lab: part(lab.account.organization.info(), "doc")),
    "urls": ("org.get_urls()", lambda lab: lab.account.organization.urls()),
    "usage": ("org.get_stats()", lambda lab: lab.account.organization.usage()),
    "quota": ("org.get_quota_usage()", lambda lab: lab.account.organization.quota_usage()),
    "mitre": ("org.get_mitre_report()", lambda lab: lab.account.organization.mitre()),
    "sensors": ("[steady(row) for row in org.list_sensors()]", lambda lab: rows(lab.account.sensors.list(page_size=5))),
    "selected": (
        "[row['sid'] for row in org.list_sensors(selector='plat == linux')]",
        lambda lab: parts(lab.account.sensors.list("plat == linux"), "sid"),
    ),
    "sensor": ("steady(Sensor(org, sid).get_info())", lambda lab: row(lab.account.sensors.get(lab.sid))),
    "is online": (
        "[Sensor(org, sid).is_online(), Sensor(org, away).is_online()]",
        lambda lab: both(lab.account.sensors.get(lab.sid), lab.account.sensors.get(lab.away), "online"),
    ),
    "online": (
        "sorted(org.get_online_sensors())",
        lambda lab: true_keys(lab.account.sensors.online([lab.sid, lab.away, *lab.others])),
    ),
    "tags": ("sorted(Sensor(org, sid).get_tags())", lambda lab: keys(lab.account.tags.of(lab.sid))),
    "all tags": ("org.get_all_tags()", lambda lab: listed(lab.account.tags.all())),
    "tagged": ("sorted(org.find_sensors_by_tag('same'))", lambda lab: keys(lab.account.tags.sensors("same"))),
    "outputs": ("sorted(org.get_outputs())", lambda lab: keys(lab.account.outputs.list())),
    "output": (
        "org.get_outputs()['same']['dest_host']",
        lambda lab: part(lab.account.outputs.get("same"), "fields", "dest_host"),
    ),
    "hive": (
        "{name: record.data for name, record in Hive(org, 'lookup').list().items()}",
        lambda lab: fields(lab.account.hive("lookup").list(), "data"),
    ),
    "hive record": (
        "Hive(org, 'lookup').get('same').data",
        lambda lab: part(lab.account.hive("lookup").get("same"), "data"),
    ),
    "hive metadata": (
        "Hive(org, 'lookup').get_metadata('same').tags",
        lambda lab: listed(part(lab.account.hive("lookup").metadata("same"), "tags")),
    ),
    "hive schema": ("Hive(org, 'lookup').get_schema()['schema']", lambda lab: lab.account.hive("lookup").schema()),
    "users": ("sorted(org.get_users())", lambda lab: ordered(lab.account.users.list())),
    "keys": ("sorted(org.get_api_keys())", lambda lab: keys(lab.account.api_keys.list())),
    "installation keys": (
        "sorted(org.get_installation_keys().get(ready['oid'], org.get_installation_keys()))",
        lambda lab: keys(lab.account.installation_keys.list()),
    ),
    "subscriptions": (
        "sorted(Extensions(org).list_subscribed())",
        lambda lab: ordered(lab.account.extensions.subscriptions()),
    ),
    "extension": (
        "Extensions(org).get_schema('ext-reliable-tasking')",
        lambda lab: lab.account.extensions.schema("ext-reliable-tasking"),
    ),
    "reliable tasks": (
        "Extensions(org).request('ext-reliable-tasking', 'list', {}, unwrap=True)[away][tid]['command']",
        lambda lab: part(lab.first(lab.account.reliable_tasking.list(sid=lab.away)), "command"),
    ),
    "events": (
        "list(Sensor(org, sid).get_events(*span))",
        lambda lab: drain(lab.account.history.events(lab.sid, *lab.span)),
    ),
    "last events": (
        "list(Sensor(org, sid).get_events(*span, limit=3, is_forward=False))",
        lambda lab: drain(lab.account.history.events(lab.sid, *lab.span, limit=3, forward=False)),
    ),
    "detections": ("list(org.get_detections(*span))", lambda lab: drain(lab.account.history.detections(*lab.span))),
    "detection": ("org.get_detection_by_id(did)", lambda lab: lab.account.history.detection(lab.detection)),
    "audit": (
        "list(org.get_audit_logs(*span, limit=50))",
        lambda lab: drain(lab.account.history.audit(*lab.span, limit=50)),
    ),
    "query": (
        "Search(org).validate(query, *span)['stats']['eventsInScope']",
        lambda lab: part(lab.account.search.validate(lab.query, *lab.span), "stats", "eventsInScope"),
    ),
    "search": (
        "[row['data'] for page in Search(org).execute(query, *span) for row in page['rows']]",
        search,
    ),
    "search limits": ("Search(org).get_limits()", lambda lab: lab.account.search.limits()),
    "replay": (
        "(lambda found: [found['did_match'], len(found['results'])])(Replay(org).scan_events(given, rule_content=rule))",
        replayed,
    ),
    "artifacts": (
        "[row['payload_id'] for row in Artifacts(org).list('same', *span)['artifacts']]",
        lambda lab: lab.artifact_ids(),
    ),
    "artifact": (
        "base64.b64encode(gzip.decompress(base64.b64decode(Artifacts(org).get_url(aid)['payload']))).decode()",
        lambda lab: encoded(lab.account.artifacts.read(lab.artifact)),
    ),
    "artifact rules": ("Artifacts(org).get_rules()", lambda lab: lab.account.artifacts.rules()),
}


async def part(call: Any, *names: str) -> Any:
    found = await call
    for name in names:
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


async def parts(walk: Any, name: str) -> list[Any]:
    return [getattr(one, name) async for one in walk]


def steady(doc: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in doc.items() if key != "alive"}


async def rows(walk: Any) -> list[Any]:
    return [steady(sensor.doc) async for sensor in walk]


async def row(call: Any) -> Any:
    return steady((await call).doc)


async def names(call: Any, name: str) -> list[str]:
    return sorted(getattr(await call, name))


async def both(first: Any, second: Any, name: str) -> list[Any]:
    return [getattr(await first, name), getattr(await second, name)]


async def keys(call: Any) -> list[str]:
    return sorted(await call)


async def true_keys(call: Any) -> list[str]:
    return sorted(key for key, value in (await call).items() if value)


async def ordered(call: Any) -> list[str]:
    return sorted(await call)


async def listed(call: Any) -> list[Any]:
    return list(await call)


async def fields(call: Any, name: str) -> dict[str, Any]:
    return {key: getattr(record, name) for key, record in (await call).items()}


async def encoded(call: Any) -> str:
    return base64.b64encode(await call).decode()


class Lab:
    """What both clients look at: an emulator that has made its events, and what we put there."""

    def __init__(self, ready: dict[str, Any], account: LimaCharlie) -> None:
        self.ready = ready
        self.account = account
        self.sid = self.away = self.task = self.artifact = self.detection = ""
        self.others: list[str] = []
        self.span = (0, 0)

    @property
    def query(self) -> str:
        return f"sid == `{self.sid}` | * | / exists"

    async def first(self, call: Any) -> Any:
        return (await call)[0]

    async def artifact_ids(self) -> list[str]:
        return [doc["payload_id"] async for doc in self.account.artifacts.list(*self.span) if doc["source"] == "same"]

    async def fill(self) -> None:
        """Put something under each noun."""
        account = self.account
        sensors = [one async for one in account.sensors.list() if one.architecture != "usp_adapter"]
        online = await account.sensors.online(one.sid for one in sensors)
        linux = [one.sid for one in sensors if one.platform == "linux"]
        self.sid = next(sid for sid in linux if online[sid])
        self.away = next(sid for sid in linux if not online[sid])
        self.others = [one.sid async for one in account.sensors.list() if one.sid not in (self.sid, self.away)]
        await account.tags.add(self.sid, "same", "other", ttl=3600)
        await account.outputs.put(Output.make("same", "s3", "detect", bucket="b", dest_host="h:1"))
        await account.hive("lookup").put(HiveRecord("same", {"a": [1, 2]}, enabled=True, tags=("t",)))
        await account.users.invite("same@example.com")
        await account.api_keys.create("same", ["sensor.list"], bulk=True)
        await account.installation_keys.create("same", tags=["a"])
        self.task = (await account.reliable_tasking.task("os_version", sid=self.away, ttl=3600)).task_id
        key = await account.ingestion_keys.create("same")
        sent = await account.artifact_upload.send(os.urandom(2000), source="same", hint="bin", key=key)
        self.artifact = sent.artifact_id
        await account.artifacts.put_rule("same", ["/var/log/*"], platforms=["linux"])
        now = int(time.time())
        self.span = (now - 3600, now + 60)
        # the generator stops by itself; until then the answers would differ from moment to moment
        while len(await drain(account.history.detections(*self.span))) < EVENTS:
            await asyncio.sleep(0.1)
        while len(await drain(account.history.audit(*self.span))) < EVENTS:
            await asyncio.sleep(0.1)
        while len(await search(self, EVERYTHING)) < EVENTS:
            await asyncio.sleep(0.1)
        self.detection = (await anext(account.history.detections(*self.span)))["detect_id"]

    def sdk(self) -> dict[str, Any]:
        """What the SDK gets, in a process of its own."""
        known = {name: getattr(self, name) for name in ("sid", "away", "task", "artifact", "detection", "span")}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
        url, ca = self.ready["url"], self.ready["ca"]
        ours = {
            "LC_API_URL": url,
            "LC_JWT_URL": url,
            "LC_EPHEMERAL_CREDS": "1",
            "READY": json.dumps(self.ready),
            "KNOWN": json.dumps(known),
            "CALLS": json.dumps({name: expression for name, (expression, _) in CALLS.items()}),
            "SSL_CERT_FILE": ca,
            "REQUESTS_CA_BUNDLE": ca,
        }
        command = [sys.executable, "-c", PROLOGUE]
        done = subprocess.run(command, env=clean | ours, capture_output=True, timeout=50, check=False)
        assert done.returncode == 0, done.stderr.decode()
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def blocking(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether an audit event is one that waits for a disk or the network."""
    if event == "socket.connect":
        return bool(arguments[0].gettimeout() != 0)
    return event in (
        "open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir", "os.truncate", "shutil.copyfile",
        "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "time.sleep",
    )  # fmt: skip


class Watch:
    """Notes what holds up the loop of this thread: calls that wait, and callbacks that take long.

    An audit hook stays for the life of a process; this one comes with the first use, and sleeps unless it is on.
    """

    def __init__(self) -> None:
        self.on = False
        self.thread = 0
        self.calls: list[str] = []
        self._installed = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or threading.get_ident() != self.thread or not blocking(event, arguments):
            return
        self.on = False
        stack = traceback.extract_stack()[:-1]
        # importing on first use is allowed
        if not any("importlib" in frame.filename for frame in stack) and any(
            "asyncio" in frame.filename for frame in stack
        ):
            self.calls.append(
                f"{event}{arguments!r:.80} from " + " < ".join(f"{f.filename}:{f.lineno}" for f in stack[-4:][::-1])
            )
        self.on = True

    @contextmanager
    def here(self) -> Iterator[None]:
        self.calls.clear()
        if not self._installed:
            self._installed = True
            sys.addaudithook(self._hear)
        sleep = time.sleep

        def heard(seconds: float) -> None:
            self._hear("time.sleep", (seconds,))  # no audit event before Python 3.13
            sleep(seconds)

        time.sleep = heard
        self.thread, self.on = threading.get_ident(), True
        try:
            yield
        finally:
            self.on = False
            time.sleep = sleep


WATCH = Watch()


@pytest.fixture(scope="module")
def emulator(shared_emulator) -> Any:
    return shared_emulator("--tls", "--rate", "500", "--events", str(EVENTS))


@pytest.fixture
def ready(emulator) -> dict[str, Any]:
    found: dict[str, Any] = emulator.ready
    return found


@pytest.fixture
async def lab(ready):
    section = LimaCharlieConfig.model_validate(
        {"oid": ready["oid"], "api_key": ready["api_key"], "url": ready["url"], "tls": {"ca": ready["ca"]}}
    )
    async with LimaCharlie(section, environ={}) as account:
        yield Lab(ready, account)


@pytest.mark.timeout(60)
async def test_the_same_answers(lab):
    """Whatever is asked, both clients say the same of it."""
    await lab.fill()
    theirs = await asyncio.to_thread(lab.sdk)
    ours = {name: await mine(lab) for name, (_, mine) in CALLS.items()}
    different = [name for name in CALLS if json.loads(json.dumps(ours[name])) != theirs[name]]
    assert different == [], {name: (ours[name], theirs[name]) for name in different[:1]}
    assert [name for name in CALLS if theirs[name] in ([], {}, None)] == []


async def test_a_search_goes_on_in_another_process(lab, emulator):
    """After a cut, from the page that was not finished with, as JSON can carry it; together the rows are those of one search."""
    await lab.fill()
    emulator.turn("searches", page=40, polls=0)
    whole = await search(lab, EVERYTHING)
    first: list[Any] = []
    async with lab.account.search.run(EVERYTHING, *lab.span) as found:
        async for page in found.pages():
            if page.number == 2:
                break
            first += [row.data for row in page.rows]
        place = json.loads(json.dumps(dataclasses.asdict(found.checkpoint)))
    code = """
import asyncio, json, os, sys
from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.search import Checkpoint, Query

async def main():
    place = json.loads(os.environ["PLACE"])
    section = LimaCharlieConfig.model_validate(json.loads(os.environ["SECTION"]))
    async with LimaCharlie(section, environ={}) as account:
        async with account.search.resume(Checkpoint(**place | {"query": Query(**place["query"])})) as found:
            json.dump([row.data async for row in found.rows()], sys.stdout)

asyncio.run(main())
"""
    known = lab.ready
    section = {"oid": known["oid"], "api_key": known["api_key"], "url": known["url"], "tls": {"ca": known["ca"]}}
    environment = os.environ | {"PLACE": json.dumps(place), "SECTION": json.dumps(section)}
    command = [sys.executable, "-c", code]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, timeout=15, check=True
    )
    assert len(first) == 40
    assert first + json.loads(done.stdout) == whole
    assert len(whole) >= EVENTS


@pytest.mark.timeout(60)
async def test_the_loop_is_never_held_up(lab, tmp_path, monkeypatch):
    """All of that, and large things besides, waits for no disk and no name in the loop, and no step takes long."""
    monkeypatch.setattr(artifacts, "_NOT_YET", (0.2, 1.0))
    await lab.fill()
    large = tmp_path / "large"
    large.write_bytes(os.urandom(6 << 20))
    steps: list[float] = []

    async def tick() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.002)
            steps.append(time.thread_time() - before)

    section = lab.account.config
    async with LimaCharlie(section, environ={"LC_LOGS_TOKEN": lab.ready["ingestion_key"]}) as account:
        lab.account = account
        with WATCH.here():
            ticking = asyncio.create_task(tick())
            for _, mine in CALLS.values():
                await mine(lab)
            artifact = await account.artifact_upload.send(large, source="loop")
            assert await account.artifacts.download(artifact.artifact_id, tmp_path / "back") == 6 << 20
            await account.hive("lookup").put(HiveRecord("large", {"a": "x" * (2 << 20)}))
            assert await account.hive("lookup").get("large")
            async with SimpleRequests(account) as requests:
                await asyncio.gather(*(requests.send(lab.sid, "os_processes") for _ in range(5)))
            ticking.cancel()
    assert (tmp_path / "back").read_bytes() == large.read_bytes()
    assert [] == WATCH.calls
    # processor time, so that a busy machine is no fault of ours
    assert max(steps) < 0.1


async def test_what_holds_up_the_loop_is_noticed(tmp_path):
    """The check itself sees a file that is opened, and a sleep, in the loop, and not those in a thread."""
    with WATCH.here():
        await asyncio.to_thread((tmp_path / "thread").write_text, "x")
        assert WATCH.calls == []
        (tmp_path / "loop").write_text("x")
        time.sleep(0.001)
    assert [call.split("(")[0] for call in WATCH.calls][:2] == ["open", "time.sleep"]
