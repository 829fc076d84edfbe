"""What the side-by-side run does where a part of it cannot be had."""

import pytest

from benchmarks import flow, report, wire
from benchmarks.broker import NoKafka
from benchmarks.flow.measure import Run


@pytest.fixture
def bare(monkeypatch):
    """A machine without Kafka and without one of the other programs; nothing is measured on it."""

    def broker():
        raise NoKafka("no java")

    monkeypatch.setattr(flow, "broker", broker)
    monkeypatch.setattr(flow, "ceiling", lambda *_: Run(100, 100, 0.1, 0.1, 1.0, 0.1, 0.1))
    monkeypatch.setattr(wire, "build", lambda folder: folder)
    monkeypatch.setattr(flow.peers, "fetch", lambda: {"Vector": "no vector on the PATH"})
    monkeypatch.setattr(flow.peers, "systems", list)
    return ["--events", "100", "--rounds", "1", "--systems", "none of them"]


def test_what_is_not_here_is_told(bare):
    """Jobs that end in Kafka are left out where there is none, and the table says what is missing and why."""
    found = flow.run(flow.options(bare))
    assert {group["job"] for group in found["groups"]} == {"json-file", "bytes-file", "raw-file", "spout-file"}
    assert "Not measured: Vector (no vector on the PATH), Kafka (no java)." in report.flow(found).splitlines()


def test_a_job_that_was_asked_for_is_not_left_out(bare):
    """Who names a job gets it, or an error."""
    with pytest.raises(SystemExit, match="No Kafka: no java"):
        flow.run(flow.options([*bare, "--jobs", "raw-kafka"]))
