"""`lc-pipeline gaps` on the folder of a spool."""

import asyncio
import json
from pathlib import Path

import pytest

from pipeline.core.batch import LogId
from pipeline.engine.gaps import GapLedger
from pipeline.spool.disk import DiskSpool, DiskSpoolConfig
from pipeline.testing import FakeClock

from .conftest import Run


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A spool that knows two gaps."""

    async def make() -> None:
        ledger = GapLedger(FakeClock())
        ledger.interval(LogId("tap", "acme"), 1_700_000_000.0, 1_700_000_090.0, "dropped", 1234)
        ledger.opened(LogId("other"), 1_700_000_100.0, "silent")
        disk = DiskSpool(DiskSpoolConfig(type="disk", path=tmp_path / "spool"))
        await disk.open([])
        await disk.commit({}, {}, ledger.take())
        await disk.close()

    asyncio.run(make())
    return tmp_path / "spool"


def test_gaps_are_listed(run: Run, spool: Path) -> None:
    """The table has a line for each gap, the oldest first, with its length and what is known to be missing."""
    for arguments in (["gaps", str(spool)], ["gaps", "list", str(spool)]):
        result = run(*arguments)
        assert result.returncode == 0
        head, first, second = result.stdout.splitlines()
        assert head.split() == ["ID", "LOG", "FROM", "TO", "LENGTH", "REASON", "STATE", "RECORDS"]
        assert first.split() == [
            "1", "tap/acme", "2023-11-14T22:13:20Z", "2023-11-14T22:14:50Z", "1m30s", "dropped", "closed", "1,234", "missing",
        ]  # fmt: skip
        assert second.split()[:3] == ["2", "other", "2023-11-14T22:15:00Z"]
        assert second.split()[-2:] == ["silent", "open"]


def test_gaps_as_json(run: Run, spool: Path) -> None:
    """Programs get the same, with every field."""
    one, other = json.loads(run("gaps", str(spool), "--json").stdout)
    assert {one[key] for key in ("id", "source", "org", "records", "seconds")} == {1, "tap", "acme", 1234, 90.0}
    assert (other["end"], other["state"]) == (None, "open")


def test_a_folder_without_a_spool(run: Run, tmp_path: Path) -> None:
    """What is no spool is named, with exit code 3."""
    result = run("gaps", str(tmp_path))
    assert result.returncode == 3
    assert "There is no spool" in result.stderr


def test_a_dry_run_only_tells(run: Run, spool: Path) -> None:
    """It lists what would be filled, and asks for nothing."""
    for which in ("--all", "1"):
        result = run("gaps", "fill", str(spool), which, "--dry-run", "--rate", "5")
        assert result.returncode == 0
        assert [line.split()[0] for line in result.stdout.splitlines()] == ["ID", "1"]
    assert run("gaps", "fill", str(spool), "2", "--dry-run").returncode == 4
    assert [gap["wanted"] for gap in json.loads(run("gaps", str(spool), "--json").stdout)] == [False, False]


def test_a_rate_is_a_number(run: Run, spool: Path) -> None:
    """What no rate can be is refused."""
    for rate in ("nan", "inf", "0"):
        assert run("gaps", "fill", str(spool), "--all", "--rate", rate).returncode == 4


def test_filling_is_noted_where_nobody_runs(run: Run, spool: Path) -> None:
    """Without a process on the spool, a gap is marked for the next one; one that still lasts, or is none, is refused."""
    assert run("gaps", "fill", str(spool), "--all").stdout == "No pipeline runs on it: 1 gap is filled when one does.\n"
    assert [gap["wanted"] for gap in json.loads(run("gaps", str(spool), "--json").stdout)] == [True, False]
    for arguments, code, words in (
        (["2"], 4, "still lasts"), (["7"], 3, "no gap 7"), ([], 4, "which gaps"), (["1", "--all"], 4, "which gaps"),
    ):  # fmt: skip
        result = run("gaps", "fill", str(spool), *arguments)
        assert result.returncode == code
        assert words in result.stderr
