"""`lc-pipeline demo --closed-loop`: the pipeline that it runs, and what befalls the local LimaCharlie meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.core.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.engine.runner import Runner
    from pipeline.limacharlie.client import LimaCharlie

CAT = "LSASS memory dumped with comsvcs.dll"
COMMAND_LINE = "rundll32.exe C:\\Windows\\System32\\comsvcs.dll, MiniDump 624 C:\\Windows\\Temp\\l.dmp full"
OFFLINE = 2.0
"""Seconds for which the task is seen to wait."""
PATIENCE = 45.0
"""Seconds that each step may take."""
SCRIPT = [
    {"say": "The detection says that comsvcs.dll was used to write the memory of process 624 to a file."},
    {"tool": "Read", "input": {"file_path": "/workspace/output.txt"}},
    {"say": "The answer lists what runs now. rundll32.exe is not among it: the dump is over, and was not stopped."},
    {"result": "Verdict: true positive. Isolate the sensor, and renew the credentials of who was logged in."},
]


def config(ready: dict[str, Any], path: Path, kafka: str | None) -> str:
    """A configuration as a user would write it: examples/closed-loop.yaml, with the local LimaCharlie."""
    lake = (
        f'\n  lake: {{type: kafka, bootstrap_servers: "{kafka}", topic: "lc.{{stream}}", key: routing/sid}}'
        if kafka
        else ""
    )
    evidence = "[evidence, lake, terminal]" if kafka else "[evidence, terminal]"
    return f"""\
# Written by `lc-pipeline demo --closed-loop`: this is a pipeline as you would write one.
limacharlie:
  url: {ready["url"]}          # the local LimaCharlie; leave it out for the real one
  oid: {ready["oid"]}
  api_key: "${{DEMO_API_KEY}}"

sources:
  detections: {{type: spout, stream: detect}}
  answers: {{type: spout, stream: event, inv_id: triage}}
  sessions: {{type: ai_session, poll: 1s}}

sinks:
  triage: {{type: reliable_task, task: os_processes, context: triage, confirm: true}}
  investigate:
    type: ai_session
    anthropic_key: sk-ant-demo
    name: Triage of {{routing/hostname}}
    prompt: |
      A detection was raised on the sensor {{routing/hostname}}:
      {{detection}}
      This is what runs there now:
      {{record}}
      Is it a true positive? End with a verdict.
    allowed_tools: [Read]
    budget: {{max_turns: 10, max_usd: 0.5, ttl: 5m}}
    confirm: true
  evidence: {{type: file, path: "{path}/{{stream}}/%Y-%m-%d.jsonl", batch: {{max_wait: 200ms}}}}
  terminal: {{type: stdout, format: pretty}}{lake}

routes:
  act: {{from: detections, filters: [{{type: match, op: is greater than, path: priority, value: 3}}], to: triage}}
  investigate:
    from: answers
    filters: [{{type: responses, context: triage}}, {{type: events, include: [OS_PROCESSES_REP]}}]
    to: investigate
  detections: {{from: detections, to: {evidence}}}
  answers: {{from: answers, filters: [{{type: responses, context: triage}}], to: {evidence}}}
  transcripts: {{from: sessions, to: {evidence}, dedupe: true}}

spool: {{type: disk, path: "{path}/spool", max_size: 256MiB}}
dead_letter: {{path: "{path}/dead-letter"}}
admin: {{listen: 127.0.0.1:0}}
stop_timeout: 10s
"""


def say(text: str) -> None:
    """Tell what happens now, beside the records."""
    click.echo(click.style(f"· {text}", bold=True) if sys.stderr.isatty() else f"· {text}", err=True)


@contextlib.asynccontextmanager
async def story(runner: Runner, ready: dict[str, Any], path: Path) -> AsyncIterator[None]:
    """Let it happen while the pipeline runs, then stop it."""
    task = asyncio.create_task(_happen(runner, ready, path))
    task.add_done_callback(
        lambda done: runner.stop("the story is told" if done.cancelled() or not done.exception() else "it failed")
    )
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _happen(runner: Runner, ready: dict[str, Any], path: Path) -> None:
    from pipeline.limacharlie.client import LimaCharlie
    from pipeline.limacharlie.config import LimaCharlieConfig

    async def connected() -> bool:
        return all(status.current == "ok" for status in runner.plan.board.of("source"))

    section = LimaCharlieConfig(oid=ready["oid"], api_key=ready["api_key"], url=ready["url"])
    async with LimaCharlie(section, environ={}) as account:
        sensor = await anext(aiter(account.sensors.list("plat == windows")))
        await _turn(account, ready, "presence", sensor=sensor.sid, online=False)
        await _turn(account, ready, "ai_script", match="verdict", steps=SCRIPT)
        await _turn(account, ready, "ai_timing", pace=0.4)
        await _until("connected", connected)
        detection = _detection(ready["oid"], sensor.doc)
        say(f"A detection is raised on {sensor.hostname}, which is offline.")
        await _turn(account, ready, "emit", stream="detect", records=[detection])
        await _until("the task in its queue", account.reliable_tasking.list)
        say("The sensor's task waits in Reliable Tasking …")
        await asyncio.sleep(OFFLINE)
        say(f"{sensor.hostname} comes online, gets its task and answers; an AI session (here with a script) follows.")
        await _turn(account, ready, "presence", sensor=sensor.sid, online=True)
        transcript = path / "ai_session"

        async def ended() -> bool:
            return detection["detect_id"] in _ended(transcript)

        await _until("the end of the session", ended)
        say(
            f"The transcript, with the verdict, is beside the evidence. What was said for this detection:\n"
            f"  jq -c 'select(.session.detect_id == \"{detection['detect_id']}\") | .event.payload' {transcript}/*.jsonl"
        )


def _ended(folder: Path) -> str:
    """The lines of the transcripts that tell of an end."""
    lines = [line for file in folder.glob("*.jsonl") for line in file.read_text(encoding="utf-8").splitlines()]
    return "".join(line for line in lines if '"AI_SESSION_END"' in line)


async def _until(what: str, holds: Callable[[], Awaitable[Any]]) -> None:
    end = time.monotonic() + PATIENCE
    while not await holds():
        if time.monotonic() > end:
            raise PipelineError(f"it took too long: {what}", where="demo")
        await asyncio.sleep(0.1)


async def _turn(account: LimaCharlie, ready: dict[str, Any], knob: str, **arguments: Any) -> None:
    """Turn a knob of the local LimaCharlie."""
    session = await account.transport.session()
    async with session.post(f"{ready['url']}/_emulator/{knob}", json=arguments) as answer:
        if answer.status != 200:
            raise PipelineError(f"the local LimaCharlie refuses: {(await answer.text())[:200]}", where="demo")


def _detection(oid: str, sensor: dict[str, Any]) -> dict[str, Any]:
    """A detection about a sensor, as LimaCharlie writes it."""
    now = int(time.time() * 1000)
    routing = {
        "oid": oid,
        "sid": sensor["sid"],
        "hostname": sensor["hostname"],
        "event_type": "NEW_PROCESS",
        "event_id": str(uuid.uuid4()),
        "event_time": now,
        "plat": sensor["plat"],
        "arch": sensor["arch"],
        "int_ip": sensor["int_ip"],
        "ext_ip": sensor["ext_ip"],
        "tags": sensor["tags"],
    }
    event = {"COMMAND_LINE": COMMAND_LINE, "FILE_PATH": "C:\\Windows\\System32\\rundll32.exe", "PROCESS_ID": 4711}
    return {
        "cat": CAT,
        "source_rule": "general.lsass-dump-comsvcs",
        "priority": 7,
        "detect_id": str(uuid.uuid4()),
        "gen_time": now,
        "ts": now,
        "routing": routing,
        "detect": {"event": event, "routing": routing},
    }
