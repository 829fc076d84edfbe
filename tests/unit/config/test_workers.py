"""What a configuration with several workers may have."""

import pytest

from pipeline.config.load import loads
from pipeline.core.errors import ConfigError

BASE = """\
sources: {a: {type: spout, max_record: 1MiB}}
sinks: {out: {type: file, path: /data/a.jsonl}, lake: {type: kafka, bootstrap_servers: k:9092, topic: t}}
routes: {r: {from: a, to: [out, lake]}}
"""


def mistakes(text):
    with pytest.raises(ConfigError) as caught:
        loads(text, {})
    return str(caught.value)


def test_files_and_kafka_take_several_workers():
    """The ordinary sinks need nothing else for it, in memory and on disk."""
    assert loads(BASE + "workers: 4\n", {}).config.processes == 4
    assert loads(BASE + "workers: 4\nspool: {type: disk, path: /s}\n", {}).config.processes == 4
    assert loads(BASE + "workers: auto\n", {}).config.processes >= 1


def test_the_standard_output_takes_one():
    """Lines of several processes would run into each other."""
    text = mistakes(BASE.replace("type: file, path: /data/a.jsonl", "type: stdout") + "workers: 2\n")
    assert "sinks.out.type: a sink of the type `stdout` works in one process only, and there are 2 workers" in text


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        ("0", "greater than or equal to 1, not 0"),
        ("65", "less than or equal to 64, not 65"),
        ("many", "'auto' or a whole number"),
    ],
)
def test_a_number_that_makes_no_sense_is_a_mistake(number, wanted):
    """There are from 1 to 64 workers, or as many as CPUs, and who is told so is told which it is."""
    assert f"workers: should be {wanted}" in mistakes(BASE + f"workers: {number}\n")


def test_a_record_must_fit_into_a_workers_share():
    """The largest record is held against a quarter of what one worker has of the spool that was given."""
    text = mistakes(BASE + "workers: 4\nspool: {type: memory, max_size: 8MiB}\n")
    assert "more than a quarter of the spool's 8MiB, which 4 workers share" in text
    assert "at least 16MiB" in text
