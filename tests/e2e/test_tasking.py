"""From a detection to a sensor's answer, by configuration alone; and kill -9 in between tasks nobody twice."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sqlite3
import time
import urllib.parse
import urllib.request
from collections import Counter

import pytest


class Tasking:
    """An emulator, and a pipeline that tasks the sensors of detections; the pipeline can be killed and started again."""

    def __init__(self, cloud, pipeline, folder, until):
        self.cloud = cloud
        self.folder = folder
        self.until = until
        self._start = pipeline
        self._token = None
        self.detections = {}
        ready = cloud.ready
        self.config = {
            "limacharlie": {"url": ready["url"], "oid": ready["oid"], "api_key": ready["api_key"]},
            "sources": {
                "detections": {"type": "spout", "stream": "detect"},
                "answers": {"type": "spout", "stream": "event", "inv_id": "triage"},
            },
            "sinks": {
                "triage": {
                    "type": "reliable_task", "task": "os_version", "context": "triage", "confirm": True,
                    "lookup_delay": "2s", "rate_limit": {"tasks": 1000, "per": "1m"},
                    "retry": {"base": "100ms", "cap": "200ms"},
                },
                "evidence": {"type": "file", "path": f"{folder}/data/{{stream}}.jsonl", "batch": {"max_wait": "50ms"}},
            },
            "routes": {
                "act": {"from": "detections", "to": "triage"},
                "answers": {
                    "from": "answers", "filters": [{"type": "responses", "context": "triage"}], "to": "evidence",
                },
            },
            "spool": {"type": "disk", "path": str(folder / "spool"), "max_size": "256MiB"},
        }  # fmt: skip
        self.process = None

    def start(self):
        self.process = self._start(self.config)
        self.process.wait_log("Running")
        self.until(self._connected, "both streams are open", process=self.process.process)

    def _connected(self):
        text = self.process.get("readyz")[1]
        return text.count('"Connected."') >= 2

    def kill(self):
        """kill -9, as a crash; what the cloud was told to hold or to answer so is forgotten."""
        self.process.stop(signal.SIGKILL)
        self.cloud.turn("clear")

    def restart(self):
        self.kill()
        self.start()

    def rest(self, method, path, **form):
        if self._token is None:
            ready = self.cloud.ready
            body = urllib.parse.urlencode({"oid": ready["oid"], "secret": ready["api_key"]}).encode()
            with urllib.request.urlopen(f"{ready['url']}/jwt", body, timeout=10) as answer:
                self._token = json.load(answer)["jwt"]
        body = urllib.parse.urlencode(form).encode() if form else None
        request = urllib.request.Request(
            f"{self.cloud.ready['url']}/v1/{path}", body, {"Authorization": f"Bearer {self._token}"}, method=method
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def offline(self, count=1):
        """Sensors that take tasks and are made to be offline."""
        sensors = self.rest("GET", f"sensors/{self.cloud.ready['oid']}")["sensors"]
        sids = [sensor["sid"] for sensor in sensors if sensor["plat"] in (0x10000000, 0x20000000)][:count]
        for sid in sids:
            self.cloud.turn("presence", sensor=sid, online=False)
        assert count == len(sids)
        return sids

    def detect(self, *sids):
        """A detection about each of these sensors, over the stream."""
        made = {f"detect-{len(self.detections) + number}": sid for number, sid in enumerate(sids)}
        self.detections |= made
        records = [
            {"cat": "test", "detect": {"event": {}}, "detect_id": name, "routing": {"sid": sid, "event_type": "X"}}
            for name, sid in made.items()
        ]
        assert 1 == self.cloud.turn("emit", stream="detect", records=records)["connections"]
        return list(made)

    def queue(self):
        """(context, sid) of every task that waits, as often as it does."""
        form = {"oid": self.cloud.ready["oid"], "action": "list", "data": "{}"}
        answer = self.rest("POST", "extension/request/ext-reliable-tasking", **form)
        answer = answer.get("data", answer)
        return Counter((task["context"], sid) for sid, tasks in answer.items() for task in tasks.values())

    def expected(self):
        return Counter({(f"triage/{name}", sid): 1 for name, sid in self.detections.items()})

    def marks(self):
        """Intents as the disk has them."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder}/spool/state.db?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT key, value FROM marks WHERE sink = 'triage'").fetchall()
        return {key: json.loads(value) for key, value in rows}

    def calls(self):
        return sum(self.cloud.requests().get("POST /v1/extension/request/{name}", {}).values())


@pytest.fixture
def tasking(emulator, pipeline, tmp_path, until):
    tasking = Tasking(emulator("--rate", "0.001"), pipeline, tmp_path, until)
    tasking.start()
    return tasking


@pytest.mark.timeout(90)
def test_a_detection_tasks_an_offline_sensor_by_config_alone(tasking, lines):
    """The task waits for the sensor; it comes online, and its answer is in the file, with the detection's id beside it."""
    [sid] = tasking.offline()
    [name] = tasking.detect(sid)
    tasking.until(lambda: tasking.queue() == tasking.expected(), "the task waits")
    tasking.cloud.turn("presence", sensor=sid, online=True)
    data = tasking.folder / "data"
    tasking.until(lambda: data.exists() and lines(data), "the answer is in the file")
    assert 0 == tasking.process.stop()
    [record] = [json.loads(line) for line in lines(data)]
    assert {"context": "triage", "id": name} == record["request"]
    assert ("OS_VERSION_REP", sid) == (record["routing"]["event_type"], record["routing"]["sid"])
    assert f"triage/{name}" == record["routing"]["investigation_id"]


@pytest.mark.timeout(90)
def test_a_kill_between_intent_and_call_tasks_once(tasking):
    """The intent is on the disk and the call was not made: after the start it is, once."""
    [sid] = tasking.offline()
    tasking.cloud.turn("latency", route="jwt", seconds=60, times=None)
    tasking.cloud.turn("expire_tokens")
    tasking._token = None
    tasking.detect(sid)
    tasking.until(tasking.marks, "the intent is on the disk")
    tasking.kill()
    assert Counter() == tasking.queue()
    tasking.start()
    tasking.until(tasking.queue, "the task waits", timeout=30)
    tasking.process.wait_log("Sent a task")
    assert tasking.expected() == tasking.queue()
    assert 0 == tasking.process.stop()
    assert [True] == ["result" in mark for mark in tasking.marks().values()]


@pytest.mark.timeout(90)
def test_a_kill_between_call_and_answer_tasks_once(tasking):
    """The call was made and its answer never booked: after the start the task is found, and not sent again."""
    [sid] = tasking.offline()
    tasking.cloud.turn("latency", route="extension", seconds=60, after=True)
    tasking.detect(sid)
    tasking.until(lambda: tasking.calls() >= 1, "the call was made")
    assert [{"at"}] == [set(mark) for mark in tasking.marks().values()]
    tasking.restart()
    tasking.process.wait_log("outcome was unknown had been accepted", timeout=30)
    assert tasking.expected() == tasking.queue()
    assert 0 == tasking.process.stop()
    assert "Sent a task." not in [entry["event"] for entry in tasking.process.log]


@pytest.mark.timeout(180)
def test_kills_at_any_moment_task_each_sensor_once(tasking):
    """However often it is killed, under slow and failing answers, each detection is one task in the end."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    sids = tasking.offline(4)
    for _ in range(5):
        for _ in range(dice.randrange(3)):
            fault = dice.choice(("before", "after", "error"))
            if fault == "error":
                tasking.cloud.turn("respond", route="extension", status=dice.choice((500, 504, 429)))
            else:
                tasking.cloud.turn("latency", route="extension", seconds=dice.uniform(0, 1.5), after=fault == "after")
        sent = tasking.detect(*dice.choices(sids, k=dice.randrange(1, 4)))
        spool = "pipeline_source_received_records_total"
        tasking.process.wait_metric(spool, len(sent), source="detections")
        time.sleep(dice.uniform(0, 0.5))
        tasking.restart()
    tasking.until(lambda: len(tasking.queue()) == len(tasking.detections), "all tasks wait", timeout=60)
    tasking.process.wait_metric("pipeline_lane_waiting_records", 0, sink="triage")
    tasking.until(
        lambda: tasking.process.metric("pipeline_lane_waiting_records", sink="triage") == 0,
        "all is settled",
        timeout=60,
    )
    assert tasking.expected() == tasking.queue()
    assert 0 == tasking.process.stop()
