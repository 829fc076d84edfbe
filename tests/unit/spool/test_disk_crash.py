"""kill -9 at each point of append, roll, commit and unlink, with a real process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .disk_driver import Promises

VICTIM = Path(__file__).with_name("disk_victim.py")
POINTS = [
    ("write", "before", 3), ("write", "within", 20), ("write", "after", 40),
    ("blocks", "before", 5), ("blocks", "within", 10), ("blocks", "within", 23), ("blocks", "after", 30),
    ("datasync", "before", 5), ("datasync", "after", 21), ("datasync", "before", 17),
    ("create", "before", 2), ("create", "after", 3),
    ("header", "before", 2), ("header", "after", 2),
    ("sync_directory", "before", 2), ("sync_directory", "after", 2),
    ("commit", "before", 4), ("commit", "after", 4),
    ("checkpoint", "before", 1), ("checkpoint", "after", 2),
    ("unlink", "before", 1), ("unlink", "after", 2),
    ("remove", "before", 2), ("remove", "after", 2),
]  # fmt: skip
if upto := int(os.environ.get("LC_PIPELINE_KILLS", "0")):  # each point at each of its first calls
    kinds = dict.fromkeys((point, moment) for point, moment, _ in POINTS)
    POINTS = [(*kind, number) for kind in kinds for number in range(1, upto + 1)]


@pytest.mark.parametrize("on_full", ["block", "drop_oldest"])
@pytest.mark.parametrize(("point", "moment", "number"), POINTS)
async def test_a_kill_loses_nothing(tmp_path: Path, point: str, moment: str, number: int, on_full: str) -> None:
    """After the kill the spool is whole, no position is ahead of what was committed, and all that was accepted is there."""
    sync = "normal" if number % 2 else "full"
    way = "blocks" if point == "blocks" or (point != "write" and on_full == "block") else "cached"
    arguments = [str(tmp_path), sync, way, point, moment, str(number), on_full]
    ended = subprocess.run([sys.executable, str(VICTIM), *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    promises = Promises()
    promises.hear(ended.stdout.splitlines())
    await promises.check(tmp_path)
