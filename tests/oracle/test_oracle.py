"""A part of the oracle for every run of the tests; `oracle.py` takes a count for longer ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = os.environ.get("LC_PIPELINE_ORACLE_ROUNDS", "100" if os.environ.get("CI") else "10")
MEMORY = Path("/dev/shm")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_oracle(kafka_broker, tmp_path):
    """Whatever is done to a pipeline, what was accepted arrives, once in files, and nothing else does."""
    # A kill leaves what was written, on the disk or not; waiting for the disk would only take time.
    place = MEMORY if os.access(MEMORY, os.W_OK) else tmp_path
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("oracle.py")), "--rounds", ROUNDS],
        env=os.environ | {"TMPDIR": str(place)}, capture_output=True, text=True, check=False, timeout=1150,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert f"{ROUNDS} rounds in" in done.stdout
