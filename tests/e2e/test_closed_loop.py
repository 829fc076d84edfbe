"""From a detection over a task, its answer and an AI session to the verdict in the file, with real processes and real kills."""

import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.limacharlie.client import LimaCharlie
from pipeline.limacharlie.config import LimaCharlieConfig
from pipeline.limacharlie.hive import HiveRecord

ROOT = Path(__file__).parents[2]

SECRETS = re.compile(r"eyJ[\w-]{8,}\.|sk-ant-|[?&](token|sig|signature)=")


def get(ready, path):
    """Ask the AI service in the organization's name."""
    headers = {"Authorization": f"Bearer {ready['api_key']}", "X-LC-OID": ready["oid"]}
    with urllib.request.urlopen(urllib.request.Request(ready["url"] + path, headers=headers), timeout=10) as response:
        return json.load(response)


def start(ready, prompt, **profile):
    body = json.dumps({"prompt": prompt, "anthropic_key": "sk-ant-x", "profile": profile}).encode()
    headers = {"Authorization": f"Bearer {ready['api_key']}", "X-LC-OID": ready["oid"]}
    request = urllib.request.Request(f"{ready['url']}/v1/api/sessions", body, headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)["session_id"]


def section(ready):
    return {key: ready[key] for key in ("url", "oid", "api_key")}


def follow(ready, folder):
    """A pipeline that writes what sessions say to files."""
    return {
        "limacharlie": section(ready),
        "log": {"level": "debug"},
        "sources": {"sessions": {"type": "ai_session", "poll": "200ms"}},
        "sinks": {"files": {"type": "file", "path": f"{folder}/{{stream}}/all.jsonl", "batch": {"max_wait": "50ms"}}},
        "routes": {"transcripts": {"from": "sessions", "to": "files", "dedupe": True}},
        "spool": {"type": "disk", "path": f"{folder}/spool", "max_size": "256MiB"},
    }


def no_secrets(ready, *pipelines):
    """Neither a key nor a token nor a signed URL is in any log, at any level."""
    assert any(one.log for one in pipelines)
    for one in pipelines:
        for entry in one.log:
            text = json.dumps(entry)
            assert ready["api_key"] not in text, entry
            assert not SECRETS.search(text), entry


@pytest.mark.timeout(90)
def test_demo_closed_loop(tmp_path, lines):
    """`demo --closed-loop` ends by itself within a minute; detection and answer are in the prompt, the verdict is beside them."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "demo", "--closed-loop", "--path", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=80,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert time.monotonic() - began < 60
    records = {
        folder: [json.loads(line) for line in lines(tmp_path / folder)] for folder in ("detect", "event", "ai_session")
    }
    (detection,), transcript = records["detect"], records["ai_session"]
    answers = [record for record in records["event"] if record["routing"]["event_type"] == "OS_PROCESSES_REP"]
    assert {"context": "triage", "id": detection["detect_id"]} == answers[0]["request"]
    assert {detection["detect_id"]} == {record["session"]["detect_id"] for record in transcript}
    said = {record["routing"]["event_type"]: record["event"]["payload"] for record in transcript}
    command_line = json.dumps(detection["detect"]["event"]["COMMAND_LINE"])
    assert command_line in said["AI_USER"]["text"]
    assert "OS_PROCESSES_REP" in said["AI_USER"]["text"]
    assert said["AI_RESULT"]["summary"].startswith("Verdict:")
    assert "Verdict: true positive" in done.stdout
    assert "Adds up" in done.stderr


@pytest.mark.timeout(120)
def test_twenty_cuts_and_two_kills(emulator, pipeline, tmp_path, until, lines):
    """Through 20 cuts at random moments and two kills of the process (seed 11), each message is exactly once in the file."""
    rng = random.Random(11)
    cloud = emulator("--rate", "0", "--events", "0")
    cloud.turn("ai_timing", start=0.05, pace=0.002)
    signed = {"url": "https://storage.example/x?sig=secret"}
    session = start(cloud.ready, "begin", allowed_tools=["Bash"])
    runs = [pipeline(follow(cloud.ready, tmp_path / "out"))]
    files = tmp_path / "out" / "ai_session"
    until(lambda: files.exists() and any(b"AI_RESULT" in line for line in lines(files)), "the session is followed")
    kills = sorted(rng.sample(range(3, 18), 2))
    for cut in range(20):
        cloud.turn("ai_emit", session_id=session, count=rng.randrange(1, 40), payload={"cut": cut})
        cloud.turn("ai_emit", session_id=session, type="upload_url", payload=signed)
        if rng.random() < 0.5:
            time.sleep(rng.random() * 0.05)  # somewhere in the middle of what is under way
        cloud.turn("ai_replay", copies=2)
        cloud.turn("ai_drop", session_id=session, how=rng.choice(["reset", "reset", "half"]))
        if cut in kills:
            runs[-1].stop(signal.SIGKILL)
            cloud.turn("ai_emit", session_id=session, count=rng.randrange(1, 5), payload={"away": cut})
            runs.append(pipeline(follow(cloud.ready, tmp_path / "out")))
    runs[-1].stop(signal.SIGKILL)
    cloud.turn("ai_end", session_id=session, reason="completed")  # nobody is there
    runs.append(pipeline(follow(cloud.ready, tmp_path / "out")))
    until(lambda: any(b"AI_SESSION_END" in line for line in lines(files)), "the end is noticed", 40)
    assert 0 == runs[-1].stop()
    wanted = get(cloud.ready, f"/v1/org/sessions/{session}/history")["messages"]
    wanted = [message for message in wanted if message["type"] != "upload_url"]
    got = [json.loads(line)["event"] for line in lines(files)]
    assert Counter(map(json.dumps, wanted)) == Counter(map(json.dumps, got))
    no_secrets(cloud.ready, *runs)


def _opened(run):
    return any(
        entry.get("event", "").startswith(("Opened a session", "A session of unknown outcome")) for entry in run.log
    )


@pytest.mark.timeout(90)
def test_killed_while_sessions_are_opened(emulator, pipeline, tmp_path, until):
    """kill -9 around the opening of sessions opens one for each detection, however often it comes again."""
    cloud = emulator("--rate", "0", "--events", "4")
    cloud.turn("ai_timing", start=0.05, pace=0.002)
    out = tmp_path / "out"
    config = {
        "limacharlie": section(cloud.ready),
        "log": {"level": "debug"},
        "sources": {"detections": {"type": "spout", "stream": "detect"}},
        "sinks": {
            "investigate": {
                "type": "ai_session",
                "anthropic_key": "sk-ant-secret",
                "prompt": "Verdict? {record}",
                "confirm": True,
                "lookup_delay": "500ms",
                "retry": {"base": "100ms", "cap": "500ms"},
            }
        },
        "routes": {"act": {"from": "detections", "to": "investigate"}},
        "spool": {"type": "disk", "path": f"{out}/spool", "max_size": "256MiB"},
    }
    cloud.turn("latency", route="api", seconds=1.0, times=1)  # the first answer does not come before the kill
    runs = [pipeline(config)]
    until(lambda: any("/v1/api/sessions" in path for path in cloud.requests()), "a session is asked for")
    runs[-1].stop(signal.SIGKILL)
    for _ in range(2):
        runs.append(pipeline(config))
        # Where the run before was quick, all are opened, and there is nothing to wait for.
        until(lambda: _opened(runs[-1]) or len(get(cloud.ready, "/v1/org/sessions")["sessions"]) >= 4, "a session", 30)
        runs[-1].stop(signal.SIGKILL)
    runs.append(pipeline(config))
    # The emulator gives each connection the same four detections.
    until(lambda: len(get(cloud.ready, "/v1/org/sessions")["sessions"]) >= 4, "each detection has its session", 30)
    runs[-1].wait_metric("pipeline_lane_records_total", 4, route="act", outcome="delivered")
    assert 0 == runs[-1].stop()
    names = [one["name"] for one in get(cloud.ready, "/v1/org/sessions")["sessions"]]
    assert 4 == len(names) == len(set(names)), names
    no_secrets(cloud.ready, *runs)


async def prepare(ready):
    """An agent's definition, and a sensor of Windows."""
    config = LimaCharlieConfig(**section(ready))
    async with LimaCharlie(config, environ={}) as account:
        definition = {"anthropic_secret": "sk-ant-agent", "allowed_tools": ["Read"], "prompt": "unused"}
        await account.hive("ai_agent").put(HiveRecord("triage", data=definition))
        return (await anext(aiter(account.sensors.list("plat == windows")))).doc


@pytest.mark.timeout(120)
def test_the_example_by_config_alone(emulator, pipeline, tmp_path, until, lines):
    """examples/closed-loop.yaml as it is, killed after the task and after the answer: one answer, one session, one transcript."""
    cloud = emulator("--rate", "0", "--events", "0")
    cloud.turn("ai_timing", start=0.5, pace=0.05)
    cloud.turn("ai_script", match="Verdict", steps=[{"say": "It is."}, {"result": "Verdict: true positive."}])
    sensor = asyncio.run(prepare(cloud.ready))
    cloud.turn("presence", sensor=sensor["sid"], online=False)
    example = YAML(typ="safe", pure=True).load(ROOT / "examples" / "closed-loop.yaml")
    out = tmp_path / "out"
    environment = {
        "LC_URL": cloud.ready["url"],
        "LC_OID": cloud.ready["oid"],
        "LC_API_KEY": cloud.ready["api_key"],
        "LC_CONFIRM": "true",
        "LC_DATA": str(out),
    }
    routing = {"sid": sensor["sid"], "hostname": sensor["hostname"], "event_type": "NEW_PROCESS", "event_id": "e-1"}
    detection = {"cat": "x", "priority": 7, "detect_id": "11111111-2222-3333-4444-555555555555", "routing": routing}
    detection |= {
        "detect": {"event": {"COMMAND_LINE": "evil.exe"}, "routing": routing},
        "gen_time": int(time.time() * 1000),
    }

    runs = [pipeline(example, environment)]
    until(lambda: cloud.turn("emit", stream="detect", records=[detection])["connections"] == 1, "the spout listens")
    runs[-1].wait_log("Sent a task")
    runs[-1].stop(signal.SIGKILL)
    runs.append(pipeline(example, environment))
    until(lambda: cloud.turn("emit", stream="event", records=[{"routing": {}}])["connections"] == 1, "it listens again")
    cloud.turn("presence", sensor=sensor["sid"], online=True)
    runs[-1].wait_log("Opened a session")
    runs[-1].stop(signal.SIGKILL)
    runs.append(pipeline(example, environment))
    until(lambda: any(b"AI_SESSION_END" in line for line in lines(out / "ai_session")), "the session ends", 30)
    until(lambda: any(b"OS_PROCESSES_REP" in line for line in lines(out / "event")), "the answer is kept", 30)
    assert 0 == runs[-1].stop()

    (kept,) = [json.loads(line) for line in lines(out / "event")]
    assert detection["detect_id"] == kept["request"]["id"]
    (session,) = get(cloud.ready, "/v1/org/sessions")["sessions"]
    transcript = [json.loads(line) for line in lines(out / "ai_session")]
    assert {(session["id"], detection["detect_id"])} == {
        (r["session"]["id"], r["session"]["detect_id"]) for r in transcript
    }
    wanted = get(cloud.ready, f"/v1/org/sessions/{session['id']}/history")["messages"]
    assert Counter(map(json.dumps, wanted)) == Counter(json.dumps(record["event"]) for record in transcript)
    assert "Verdict: true positive." in [record["event"]["payload"].get("summary") for record in transcript]
    (prompt,) = [record["event"]["payload"]["text"] for record in transcript if record["event"]["type"] == "user"]
    assert "evil.exe" in prompt
    assert "OS_PROCESSES_REP" in prompt
    no_secrets(cloud.ready, *runs)
