"""When the comparison of two commits accepts and when it refuses."""

import os
import random

import pytest

from benchmarks.compare import instructions, interval, verdict


def ratios(mean, noise, pairs=12, seed=3):
    dice = random.Random(seed)
    return [mean * dice.lognormvariate(0, noise) for _ in range(pairs)]


@pytest.mark.parametrize(
    ("mean", "noise", "expected"),
    [(1.0, 0.01, "no slower"), (1.1, 0.02, "slower"), (0.9, 0.02, "quicker"), (1.02, 0.2, "not decided")],
)
def test_verdict(mean, noise, expected):
    """A clear difference is told; where noise hides it, so is that."""
    _, low, high = interval(ratios(mean, noise))
    assert verdict(low, high, 0.03, 12) == expected


def test_false_alarms():
    """Two equal commits are called slower in few of many comparisons, although each pair is off by 5 %."""
    alarms = sum(verdict(*interval(ratios(1.0, 0.05, seed=seed))[1:], 0.03, 12) == "slower" for seed in range(40))
    assert alarms <= 2


def test_few_pairs_decide_nothing():
    """Two pairs that happen to agree are no evidence."""
    _, low, high = interval([1.05, 1.06])
    assert (verdict(low, high, 0.03, 2), verdict(low, high, 0.03, 6)) == ("not decided", "slower")


def test_the_instructions_are_those_of_the_tree_that_is_named(tmp_path, monkeypatch, capsys):
    """Who compares with another commit counts its program, wherever the benchmarks come from."""
    tool = tmp_path / "bin" / "valgrind"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nshift 3\nexec "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise SystemExit('the other program')")
    assert instructions(tmp_path, tmp_path / "events") is None
    assert "No instruction count: the other program" in capsys.readouterr().err
