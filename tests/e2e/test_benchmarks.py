"""The benchmarks run, and tell exact counts; their figures are no matter here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def bench(module, *arguments):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.timeout(60)
def test_flow():
    """A run over TLS and one over a spout bring every record through, and the table says so."""
    if shutil.which("cc") is None and not os.environ.get("CI"):
        pytest.skip("needs a C compiler")
    done = bench(
        "benchmarks.flow", "--quick", "--jobs", "json-file,spout-file", "--systems", "lc-pipeline (disk,bare loop"
    )
    assert done.returncode == 0, done.stderr
    groups = json.loads((RESULTS / "flow-quick.json").read_text())["flow"]["groups"]
    assert [["bare loop", "bare loop (projection)", "lc-pipeline (disk spool)"], ["lc-pipeline (disk spool)"]] == [
        [system["name"] for system in group["systems"]] for group in groups
    ]
    assert all(
        run["received"] == run["sent"] == 8000 for group in groups for s in group["systems"] for run in s["runs"]
    )


def test_micro():
    """Each case of the parts asked for has a cost."""
    done = bench("benchmarks.micro", "--quick", "--parts", "split,filters,kafka")
    assert done.returncode == 0, done.stderr
    found = json.loads((RESULTS / "micro-quick.json").read_text())["micro"]
    assert {"split", "filters", "kafka"} == {case["part"] for case in found}
    assert all(cost > 0 for case in found for cost in case["costs"])
