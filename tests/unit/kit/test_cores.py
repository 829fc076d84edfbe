"""How many CPUs count as usable."""

import os

import pytest

from pipeline.kit import cores

HERE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", HERE),
        ("100000 100000", 1),
        ("50000 100000", 1),
        (f"{HERE * 100_000} 100000", HERE),
        ("rubbish", HERE),
    ],
)
def test_a_quota_of_the_container_counts(tmp_path, quota, expected):
    """The quota of CPU time, rounded up, is the number where it is less than the CPUs of the machine."""
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert expected == cores.usable(file)


def test_without_a_container_all_count(tmp_path):
    """Where there is no quota, the CPUs that the process may run on are the number."""
    assert cores.usable(tmp_path / "missing") == HERE
