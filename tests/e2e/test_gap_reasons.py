"""Gaps of other reasons than a restart: each is in the ledger with its reason, and what it missed comes once."""

import collections
import json
import subprocess

import pytest


class Scene:
    """Detections or, over a firehose, events, into one file; a sink that is blocked fills the small spool soon."""

    def __init__(self, cloud, pipeline, folder, port, command):
        self.cloud, self.folder, self.command = cloud, folder, command
        self.stream = "event" if port else "detect"
        ready = cloud.ready
        source = {"type": "spout", "stream": "detect", "reconnect": {"base": "100ms", "cap": "300ms"}}
        if port:
            address = f"127.0.0.1:{port}"
            output = {"name": "e2e", "address": address, "recheck": "300ms"}
            source = {"type": "firehose", "stream": "event", "listen": address, "output": output}
        else:
            self.block()
        self.config = {
            "limacharlie": {"url": ready["url"], "oid": ready["oid"], "api_key": ready["api_key"]},
            "sources": {"tap": {**source, "max_record": "256KiB", "backfill": {"delay": "1s", "margin": "10s"}}},
            "sinks": {
                "archive": {
                    "type": "file", "path": f"{folder}/data/all.jsonl", "batch": {"max_wait": "50ms"},
                    "retry": {"base": "100ms", "cap": "300ms"},
                }
            },
            "routes": {"all": {"from": "tap", "to": "archive", "dedupe": {"entries": 16_000}}},
            "spool": {"type": "disk", "path": f"{folder}/spool", "max_size": "2MiB"},
        }  # fmt: skip
        self._pipeline = pipeline

    def run(self, **route):
        self.config["routes"]["all"].update(route)
        self.process = self._pipeline(self.config)
        return self.process

    def block(self):
        (self.folder / "data").write_text("a file where the directory should be, so that the sink cannot open")

    def unblock(self):
        (self.folder / "data").unlink()

    def gaps(self, *arguments):
        command = [*self.command, "gaps", *(arguments or [f"{self.folder}/spool"]), "--json"]
        return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)

    def filled(self, reason):
        """The gaps with this reason, once all of them are filled."""
        found = [gap for gap in self.gaps() if gap["reason"] == reason]
        return found if found and all(gap["state"] == "filled" for gap in found) else []

    def generated(self):
        return (self.cloud.ledger / f"generated-{self.stream}.jsonl").read_bytes().splitlines()

    def check(self):
        """Stop it; from the first record that was delivered to the last all are there, each once. Returns how many."""
        self.process.wait_delivered()
        assert self.process.metric("pipeline_conservation_error_records") == 0
        assert self.process.stop() == 0
        places = {line: number for number, line in enumerate(self.generated())}
        delivered = (self.folder / "data" / "all.jsonl").read_bytes().splitlines()
        times = collections.Counter(places[line] for line in delivered)
        assert set(times.values()) == {1}
        assert set(times) == set(range(min(times), max(times) + 1))
        return len(times)


@pytest.fixture
def scene(emulator, pipeline, tmp_path, lc_pipeline):
    def make(port=None):
        return Scene(emulator("--rate", "300", "--keepalive", "1"), pipeline, tmp_path, port, lc_pipeline)

    return make


@pytest.mark.timeout(90)
def test_what_passed_while_the_spool_was_full(scene, until):
    """A spout that is cut off while a full spool keeps it from reading has a gap `spool_full`; back-fill closes it."""
    made = scene()
    process = made.run()
    process.wait_log("The spool is full", timeout=30)
    made.cloud.turn("close", via="spout", how="abort")
    missed = len(made.generated())
    until(lambda: len(made.generated()) > missed + 300, "the cloud goes on", 30, process.process)
    made.unblock()
    until(lambda: made.filled("spool_full"), "the gap is filled", 40, process.process)
    assert sum(gap["added"] for gap in made.filled("spool_full")) >= 300
    assert made.check() > 600


@pytest.mark.timeout(90)
def test_what_a_lane_gave_up(scene, until):
    """What a lane with `drop_oldest` gave up is a gap `shed` with its number of records, and comes when somebody asks for it."""
    made = scene()
    process = made.run(on_full="drop_oldest")
    process.wait_metric("pipeline_lane_records_total", 500, timeout=30, outcome="discarded")
    made.unblock()
    process.wait_metric("pipeline_lane_records_total", 300, timeout=30, outcome="delivered")
    given_up, fetched = 0, 0
    # What is fetched may be given up again while there is no room for it: then it is a gap again.
    while shed := [gap for gap in made.gaps() if gap["reason"] == "shed" and gap["state"] == "closed"]:
        filled = made.gaps("fill", f"{made.folder}/spool", *(str(gap["id"]) for gap in shed))
        assert {gap["state"] for gap in filled} == {"filled"}
        given_up += sum(gap["records"] for gap in shed)
        fetched += sum(gap["added"] for gap in filled)
        process.wait_delivered()
    assert given_up == process.metric("pipeline_lane_records_total", outcome="discarded") >= 500
    assert fetched >= given_up
    assert made.check() > given_up


@pytest.mark.timeout(90)
def test_what_came_while_no_output_was_connected(scene, until, free_port):
    """While the Output of a firehose is disabled there is a gap `no_connection`; when it is enabled again, back-fill closes it."""
    made = scene(free_port())
    process = made.run()
    process.wait_metric("pipeline_lane_records_total", 300, timeout=30, outcome="delivered")
    made.cloud.turn("output", name="e2e", enabled=False)
    until(lambda: made.filled("no_connection"), "the gap is filled", 40, process.process)
    assert sum(gap["added"] for gap in made.filled("no_connection")) > 0
    before = process.metric("pipeline_lane_records_total", outcome="delivered")
    process.wait_metric("pipeline_lane_records_total", before + 100, outcome="delivered")
    assert made.check() > 400
