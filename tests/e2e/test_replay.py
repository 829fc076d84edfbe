"""`lc-pipeline replay` with real processes: beside a running pipeline and without one, and through crashes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import zstandard

EVENTS = 300


class Scene:
    """A cloud that sends some events, a sink that can be blocked, and a disk spool."""

    def __init__(self, folder, cloud, start_pipeline, lc_pipeline):
        self.folder = folder
        self.cloud = cloud
        self.blocker = folder / "lake"
        self.letters = folder / "letters" / "lanes" / "all.lake"
        self._start = start_pipeline
        self._command = lc_pipeline
        self.path = Path()

    def block(self):
        """No file can be made under a file."""
        self.blocker.write_text("in the way")

    def unblock(self):
        self.blocker.unlink()

    def config(self, *, expires="300ms", filters=(), spool="disk", source=None, lake=None):
        ready = self.cloud.ready
        kept = (
            {"type": "disk", "path": f"{self.folder}/spool", "max_size": "64MiB"}
            if spool == "disk"
            else {"type": "memory"}
        )
        retry = {"base": "50ms", "cap": "100ms", **({"expires": expires} if expires else {})}
        return {
            "limacharlie": {"url": ready["url"], "oid": ready["oid"], "api_key": ready["api_key"]},
            "sources": {"telemetry": {"type": "spout", "stream": "event", **(source or {})}},
            "sinks": {
                "lake": {
                    **(lake or {"type": "file", "path": f"{self.blocker}/x.jsonl"}),
                    "batch": {"max_wait": "50ms"}, "retry": retry,
                },
                "archive": {"type": "file", "path": f"{self.folder}/archive/x.jsonl", "batch": {"max_wait": "50ms"}},
            },
            "routes": {"all": {"from": "telemetry", "filters": list(filters), "to": ["lake", "archive"]}},
            "spool": kept,
            "dead_letter": {"path": f"{self.folder}/letters"},
        }  # fmt: skip

    def run(self, **keys):
        process = self._start(self.config(**keys))
        self.path = process.folder / "pipeline.json"
        process.wait_log("Running")
        return process

    def refused(self):
        """Run until the lake has refused all events; the pipeline that did it."""
        self.block()
        process = self.run()
        process.wait_metric("pipeline_lane_records_total", EVENTS, sink="lake", outcome="rejected", timeout=30)
        process.wait_metric("pipeline_lane_records_total", EVENTS, sink="archive", outcome="delivered")
        return process

    def start_replay(self, *arguments):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
        return subprocess.Popen(
            [*self._command, "replay", *arguments], cwd=self.folder, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )  # fmt: skip

    def replay(self, kind, *arguments, code=0):
        """Run the command to its end; its report."""
        process = self.start_replay(kind, str(self.path), *arguments, "--json")
        out, err = process.communicate(timeout=40)
        assert process.returncode == code, (out, err)
        return json.loads(out)

    def letter_lines(self):
        return [
            json.loads(line) for file in sorted(self.letters.glob("*.jsonl")) for line in file.read_bytes().splitlines()
        ]

    def stored(self):
        return (self.blocker / "x.jsonl").read_bytes().splitlines()


@pytest.fixture
def scene(tmp_path, emulator, pipeline, lc_pipeline):
    return Scene(tmp_path, emulator("--rate", "0", "--events", str(EVENTS)), pipeline, lc_pipeline)


DROP_ALL = [{"type": "match", "op": "is", "path": "no/such", "value": "x"}]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("beside", [True, False])
def test_letters_go_to_the_sink_that_refused_them(scene, beside):
    """Exactly the refused records reach that sink, and no other, without the filters; then the dead letter is empty.

    So it is beside a running pipeline and without one.
    """
    assert scene.refused().stop() == 0
    assert len(scene.letter_lines()) == EVENTS
    scene.unblock()
    # No event of this life passes the filter, so whatever comes to the lake was replayed.
    process = scene.run(filters=DROP_ALL)
    process.wait_metric("pipeline_lane_records_total", EVENTS, sink="lake", outcome="filtered")
    if not beside:
        assert process.stop() == 0
    archived = (scene.folder / "archive" / "x.jsonl").read_bytes()
    report = scene.replay("letters", "all/lake")
    assert report["targets"] == {"telemetry → all/lake (without filters)": EVENTS}
    assert (report["accepted"], report["outcomes"]["delivered"], report["skipped"]) == (EVENTS, EVENTS, {})
    assert scene.stored() == scene.cloud.sent("spout", "event")[:EVENTS]
    assert (scene.folder / "archive" / "x.jsonl").read_bytes() == archived
    assert scene.letter_lines() == []
    if beside:
        assert process.metric("pipeline_replay_records_total", sink="lake", outcome="delivered") == EVENTS
        assert process.metric("pipeline_replay_records_total", sink="archive") == 0
        assert process.metric("pipeline_conservation_error_records") == 0
        socket = scene.folder / "spool" / "replay.sock"
        assert socket.stat().st_mode & 0o777 == 0o600
        assert process.stop() == 0
        assert not socket.exists()


@pytest.mark.timeout(90)
def test_a_kill_after_acceptance_loses_nothing(scene, until):
    """Letters that were accepted and taken out of the dead letter survive kill -9 in the spool, and are delivered by the next life."""
    assert scene.refused().stop() == 0
    process = scene.run(expires=None)  # the lake is still blocked, and waits
    client = scene.start_replay("letters", str(scene.path), "all/lake")
    until(lambda: not list(scene.letters.glob("*.jsonl")), "all letters are in the spool")
    process.process.kill()
    process.process.wait()
    _, err = client.communicate(timeout=20)
    assert client.returncode == 1
    assert b"the pipeline ended" in err.lower()
    scene.unblock()
    again = scene.run(expires=None)
    again.wait_metric("pipeline_replay_records_total", EVENTS, sink="lake", outcome="delivered", timeout=20)
    assert again.metric("pipeline_conservation_error_records") == 0
    assert again.stop() == 0
    assert set(scene.cloud.sent("spout", "event")[:EVENTS]) <= set(scene.stored())


@pytest.mark.timeout(90)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_replay_that_is_broken_off_can_be_repeated(scene, until, number):
    """After a stop in the middle what was accepted has left the dead letter, and each record is stored once in the end.

    After kill -9 some may be there twice, and none is lost.
    """
    assert scene.refused().stop() == 0
    scene.unblock()
    process = scene.run(filters=DROP_ALL)
    client = scene.start_replay("letters", str(scene.path), "all/lake", "--rate", "100", "--json")
    process.wait_metric("pipeline_replay_records_total", 50, sink="lake", outcome="delivered")
    process.process.send_signal(number)
    out, err = client.communicate(timeout=30)
    assert client.returncode == 1
    process.process.wait(30)
    left = len(scene.letter_lines())
    if number == signal.SIGTERM:
        report = json.loads(out)
        assert (report["complete"], report["accepted"], EVENTS - left) == (False, EVENTS - left, report["accepted"])
    else:
        assert b"the pipeline ended" in err.lower()
    assert scene.replay("letters", "all/lake")["accepted"] == left
    sent = scene.cloud.sent("spout", "event")[:EVENTS]
    stored = scene.stored()
    assert sorted(stored) == sorted(sent) if number == signal.SIGTERM else set(stored) == set(sent)


@pytest.mark.timeout(90)
def test_a_memory_spool_keeps_letters_until_they_are_delivered(scene, until):
    """With a memory spool a letter stays until its record is stored; a kill before that leaves it in the dead letter."""
    scene.block()
    process = scene.run(spool="memory")
    process.wait_metric("pipeline_lane_records_total", EVENTS, sink="lake", outcome="rejected", timeout=30)
    assert process.stop() == 0
    process = scene.run(spool="memory", expires=None)
    client = scene.start_replay("letters", str(scene.path), "all/lake")
    process.wait_metric("pipeline_replay_records_total", EVENTS, sink="lake", outcome="accepted")
    process.process.kill()
    client.communicate(timeout=20)
    assert len(scene.letter_lines()) == EVENTS
    scene.unblock()
    assert scene.replay("letters", "all/lake")["outcomes"]["delivered"] == EVENTS
    assert scene.letter_lines() == []
    assert scene.stored() == scene.cloud.sent("spout", "event")[:EVENTS]


@pytest.mark.timeout(90)
def test_a_dry_run_changes_nothing_and_a_rate_is_kept(scene):
    """`--dry-run` says what would go where and leaves every file as it is; `--rate` bounds how fast it goes."""
    assert scene.refused().stop() == 0
    scene.unblock()

    def files():
        return {path: path.read_bytes() for path in scene.folder.rglob("*") if path.is_file()}

    before = files()
    report = scene.replay("letters", "--all", "--dry-run")
    assert report["targets"] == {"telemetry → all/lake (without filters)": EVENTS}
    assert report["accepted"] == 0
    assert files() == before
    began = time.monotonic()
    scene.replay("letters", "all/lake", "--rate", "200")
    assert time.monotonic() - began > EVENTS / 200 * 0.7


@pytest.mark.timeout(90)
def test_files_and_logs_go_through_the_routes(scene):
    """Files of records, compressed too, and a range of the spool's log go through the filters of the routes into all their sinks."""
    process = scene.run()
    process.wait_metric("pipeline_lane_records_total", 2 * EVENTS, outcome="delivered")
    sent = scene.cloud.sent("spout", "event")[:EVENTS]
    packed = scene.folder / "old.jsonl.zst"
    packed.write_bytes(zstandard.compress(b"\n".join([*sent[:100], b"no object", b""])))
    report = scene.replay("files", str(packed), code=1)
    assert (report["accepted"], report["outcomes"]["delivered"]) == (100, 200)
    assert report["skipped"] == {"not_an_object": 1}
    report = scene.replay("log", "telemetry", "--from", "10", "--to", "60", "--route", "all")
    assert (report["accepted"], report["outcomes"]["delivered"], report["unit"]) == (50, 100, "records")
    assert process.metric("pipeline_conservation_error_records") == 0
    assert process.stop() == 0
    assert scene.stored() == [*sent, *sent[:100], *sent[10:60]]
    assert (scene.folder / "archive" / "x.jsonl").read_bytes().splitlines() == scene.stored()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("beside", [True, False])
async def test_what_kafka_refused_comes_to_it_later(scene, kafka, kafka_topics, beside):
    """Records that a topic found too large reach it once it takes them, once and marked as replayed; the others came live."""
    topic = await kafka_topics.make(configs={"max.message.bytes": "1200"})
    lake = {"type": "kafka", "bootstrap_servers": kafka, "topic": topic, "compression": "none", "headers": ["origin"]}
    process = scene.run(expires=None, lake=lake)
    process.wait_metric("pipeline_sink_sent_records_total", EVENTS, sink="archive")
    process.wait_delivered(30)
    refused = [letter["payload"].encode() for letter in scene.letter_lines()]
    assert {letter["reason"] for letter in scene.letter_lines()} == {"too_large"}
    assert 10 < len(refused) < EVENTS - 10
    await kafka_topics.limit(topic, 1_000_000)
    if not beside:
        assert process.stop() == 0
    report = scene.replay("letters", "all/lake")
    assert (report["accepted"], report["outcomes"]["delivered"]) == (len(refused), len(refused))
    assert scene.letter_lines() == []
    if beside:
        assert process.metric("pipeline_replay_records_total", sink="lake", outcome="delivered") == len(refused)
        assert process.metric("pipeline_conservation_error_records") == 0
        assert process.stop() == 0
    stored = [(record.value, dict(record.headers)["origin"]) for record in await kafka_topics.read(topic)]
    live = [line for line in scene.cloud.sent("spout", "event")[:EVENTS] if line not in set(refused)]
    assert sorted(stored) == sorted([*((line, b"live") for line in live), *((line, b"replay") for line in refused)])
