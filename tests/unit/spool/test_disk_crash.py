"""kill -9 at each point of append, roll, commit and unlink, with a real process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.spool.disk import DiskSpool

from .disk_driver import A, FakeLane, config, findings, records, spooling

VICTIM = Path(__file__).with_name("disk_victim.py")
POINTS = [
    ("write", "before", 3), ("write", "within", 20), ("write", "after", 40),
    ("datasync", "before", 5), ("datasync", "after", 21), ("datasync", "before", 17),
    ("create", "before", 2), ("create", "after", 3),
    ("header", "before", 2), ("header", "after", 2),
    ("sync_directory", "before", 2), ("sync_directory", "after", 2),
    ("commit", "before", 4), ("commit", "after", 4),
    ("checkpoint", "before", 1), ("checkpoint", "after", 2),
    ("unlink", "before", 1), ("unlink", "after", 2),
    ("remove", "before", 2), ("remove", "after", 2),
]  # fmt: skip


@pytest.mark.parametrize("on_full", ["block", "drop_oldest"])
@pytest.mark.parametrize(("point", "moment", "number"), POINTS)
async def test_a_kill_loses_nothing(tmp_path: Path, point: str, moment: str, number: int, on_full: str) -> None:
    """After the kill the spool is whole, no position is ahead of what was committed, and all that was accepted is there."""
    sync = "normal" if number % 2 else "full"
    arguments = [str(tmp_path), sync, point, moment, str(number), on_full]
    ended = subprocess.run([sys.executable, str(VICTIM), *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    accepted = committing = committed = 0
    skipped: set[int] = set()
    for line in ended.stdout.splitlines():
        word, *numbers = line.split()
        if word == "accepted":
            accepted = int(numbers[0])
        elif word == "committing":
            committing = int(numbers[0])
        elif word == "committed":
            committed = int(numbers[0])
        else:
            skipped.update(range(int(numbers[0]), int(numbers[1])))

    assert [text for text, _, harmless in findings(tmp_path) if not harmless] == []
    spool = DiskSpool(config(tmp_path, 1 << 20))
    restored = await spool.open([A])
    await spool.close()
    position = restored.positions["r/s", A]
    assert committed <= position <= max(committed, committing)
    assert restored.marks.get("s", {"at": 0})["at"] == position

    lane = FakeLane()
    async with spooling(tmp_path, lane, max_size=1 << 20) as spool:
        end = spool.stats()[A].end
        found = await lane.drain(spool)
    assert accepted <= end <= accepted + 8
    missing = set(range(position, end)) - {number for number, _ in found}
    assert missing <= skipped
    assert found == [
        (number, raw)
        for number, raw in enumerate(records(end, size=2000))
        if number >= position and number not in missing
    ]
    assert findings(tmp_path) == []
