"""`lc-pipeline spool` on a folder that a pipeline has used, or uses now."""

import asyncio
import json
from pathlib import Path

import pytest

from pipeline.core.batch import Batch, LogId
from pipeline.spool.disk import DiskSpool, DiskSpoolConfig

from .conftest import Run

LOG = LogId("telemetry", "acme")


class Lane:
    """A lane that stands still."""

    logs, on_full = (LOG,), "block"

    def __init__(self, name: str, position: int = 0) -> None:
        self.id, self.position = name, position

    def wake(self) -> None: ...

    hurry = wake

    def cursor(self, log: LogId) -> int:
        del log
        return self.position

    def skip(self, log: LogId, end: int) -> None: ...


async def fill(path: Path) -> DiskSpool:
    spool = DiskSpool(DiskSpoolConfig.model_validate({"type": "disk", "path": path, "max_size": "64MiB"}))
    await spool.open([LOG])
    spool.attach([Lane("all/lake"), Lane("old/lake")])  # type: ignore[list-item]  # all that the spool calls
    for start in (0, 3):
        await spool.append(Batch([b'{"n":%d}' % number for number in range(start, start + 3)], LOG, "event", 1.5))
    await spool.commit({("all/lake", LOG): 4}, {})
    return spool


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A spool with six records; one lane is past four of them, one past none."""

    async def made() -> None:
        await (await fill(tmp_path / "spool")).close()

    asyncio.run(made())
    return tmp_path / "spool"


@pytest.fixture
def lc(spool: Path, tmp_path: Path) -> Path:
    """A configuration that has the spool, and only one of its lanes."""
    path = tmp_path / "lc.yaml"
    path.write_text(
        f"""
sources: {{telemetry: {{type: spout}}}}
sinks: {{lake: {{type: kafka, bootstrap_servers: k:9092, topic: t}}}}
routes: {{all: {{from: telemetry, to: lake}}}}
spool: {{type: disk, path: {spool}, max_size: 64MiB}}
"""
    )
    return path


@pytest.mark.timeout(60)
def test_ls_and_stat_tell_what_waits(run: Run, spool: Path, lc: Path) -> None:
    """`ls` has a row for each log, `stat` one for each lane; a lane that the configuration does not have is an orphan."""
    (log,) = json.loads(run("spool", "ls", str(spool), "--json").stdout)
    assert (log["log"], log["start"], log["end"], log["waiting"]) == ("telemetry/acme", 0, 6, 6)
    found = json.loads(run("spool", "stat", str(lc), "--json").stdout)
    assert [("all/lake", 4, 2, False), ("old/lake", 0, 6, True)] == [
        (lane["lane"], lane["position"], lane["waiting"], lane["orphan"]) for lane in found["lanes"]
    ]
    text = run("spool", "stat", str(lc)).stdout
    assert "not in use" in text
    assert "orphan" in text
    assert "telemetry/acme" in run("spool", "ls", str(lc)).stdout


def test_cat_prints_records_as_they_came(run: Run, spool: Path) -> None:
    """`cat` gives the raw lines from a number on; with --meta each with its number, stream and origin."""
    assert run("spool", "cat", str(spool), "telemetry/acme", "--from", "2", "--count", "3").stdout == (
        '{"n":2}\n{"n":3}\n{"n":4}\n'
    )
    (line,) = run("spool", "cat", str(spool), "telemetry/acme", "--from", "5", "--meta").stdout.splitlines()
    assert json.loads(line) == {
        "number": 5, "stream": "event", "org": "acme", "origin": "live",
        "received_at": "1970-01-01T00:00:01.500000+00:00", "record": '{"n":5}',
    }  # fmt: skip
    wrong = run("spool", "cat", str(spool), "telemetri")
    assert wrong.returncode == 3
    assert "There are: telemetry/acme" in wrong.stderr


def test_verify_finds_a_flipped_byte(run: Run, spool: Path) -> None:
    """A whole spool has exit code 0; with one byte changed it is 1, and the records that are lost are counted."""
    whole = run("spool", "verify", str(spool))
    assert (whole.returncode, whole.stdout) == (0, "1 log: whole.\n")
    (segment,) = (spool / "logs").rglob("*.seg")
    data = bytearray(segment.read_bytes())
    at = data.index(b'{"n":1}')
    data[at] ^= 1
    segment.write_bytes(data)
    damaged = run("spool", "verify", str(spool))
    assert damaged.returncode == 1
    assert "3 records are lost" in damaged.stdout


def test_drop_lane_asks_and_then_forgets(run: Run, spool: Path) -> None:
    """Without --yes a lane with records is asked about (and kept without an answer); with it, it is gone."""
    assert run("spool", "drop-lane", str(spool), "old/lake").returncode != 0
    assert "old/lake" in run("spool", "stat", str(spool)).stdout
    assert run("spool", "drop-lane", str(spool), "old/lake", "--yes").returncode == 0
    assert "old/lake" not in run("spool", "stat", str(spool)).stdout
    again = run("spool", "drop-lane", str(spool), "old/lake", "--yes")
    assert again.returncode == 3
    assert "There are: all/lake" in again.stderr


@pytest.mark.timeout(60)
async def test_a_spool_in_use_can_be_looked_at_but_not_changed(run: Run, tmp_path: Path) -> None:
    """Beside a running pipeline `stat`, `cat` and `verify` work and name its process; `drop-lane` refuses."""
    path = tmp_path / "used"
    spool = await fill(path)
    try:
        for arguments in (("stat", str(path)), ("cat", str(path), "telemetry/acme"), ("verify", str(path))):
            assert (await asyncio.to_thread(run, "spool", *arguments)).returncode == 0
        assert "used by process" in (await asyncio.to_thread(run, "spool", "stat", str(path))).stdout
        refused = await asyncio.to_thread(run, "spool", "drop-lane", str(path), "old/lake", "--yes")
        assert refused.returncode == 4
        assert "Another process" in refused.stderr
    finally:
        await spool.close()


def test_a_spool_of_workers_names_their_folders(run: Run, spool: Path) -> None:
    """Given the folder that workers share, the error says which folders to give instead."""
    (spool.parent / "shared").mkdir()
    spool.rename(spool.parent / "shared" / "w1")
    wrong = run("spool", "ls", str(spool.parent / "shared"))
    assert wrong.returncode == 3
    assert "shared/w1" in wrong.stderr
