"""What is wanted of the figures, and what the table says of those that were found."""

import pytest

from benchmarks import targets
from benchmarks.flow.job import FRAMINGS, JOBS
from benchmarks.flow.ours import systems

OURS = {system.name: system for system in systems()}
PEERS = {"rsyslog", "syslog-ng", "Redpanda Connect", "Vector", "Fluent Bit"}


def test_targets_are_about_what_is_measured():
    """Each target names a job, and two systems of which ours, the SDK and the bare loops do that job."""
    for target in targets.TARGETS:
        assert target.job in JOBS
        for name in (target.system, target.beside):
            assert name in PEERS or target.job in OURS[name].jobs, target


@pytest.mark.parametrize("job", ["json-file", "bytes-file", "raw-file", "json-kafka", "raw-kafka"])
def test_each_job_of_the_bare_loop_is_held_against_ours(job):
    """Wherever the least that Python can do was measured, the table says how far from it we are."""
    assert any(target.job == job and target.beside.startswith("bare loop") for target in targets.TARGETS)


def test_the_table_takes_the_bound_of_the_framing():
    """A spout's cost beside the SDK's may be a quarter in large TLS records, a sixth where each event has its own."""

    def group(framing):
        def system(name, cost):
            return {"name": name, "runs": [{"cost": cost, "rate": 1.0, "peak_mib": 10.0}]}

        systems = [system("lc-pipeline", 20.0), system("official SDK", 100.0)]
        return {"job": "spout-file", "framing": framing, "systems": systems}

    rows = targets.table({"flow": {"groups": [group(framing) for framing in FRAMINGS.values()]}}).splitlines()
    assert "| 0.20 | ≤ 0.25 | met |" in rows[2]
    assert "| 0.20 | ≤ 0.17 | missed by 20% |" in rows[3]
