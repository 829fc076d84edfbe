"""A package from outside adds a source, a filter and a sink by entry points."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "toy_package"


def install(folder: Path, name: str = "lc-toy") -> Path:
    """Lay the package out as an installer does: its modules, and its entry points in a dist-info folder."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    shutil.copytree(PACKAGE / "lc_toy", folder / "lc_toy", dirs_exist_ok=True)
    info = folder / f"{name.replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    (info / "entry_points.txt").write_text(
        "\n".join(
            f"[{group}]\n" + "\n".join(f"{key} = {value}" for key, value in points.items()) for group, points in groups
        )
    )
    return folder


def lc_pipeline(site: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=19,
        check=False,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps({
        "sources": {"pulse": {"type": "heartbeat", "interval": "10ms", "beats": 5}},
        "sinks": {"book": {"type": "notebook", "path": str(tmp_path / "book.jsonl")}},
        "routes": {"all": {
            "from": "pulse",
            "filters": [
                {"type": "match", "op": "is lower than", "path": "event/beat", "value": 5},
                {"type": "shout", "path": "routing/event_type"},
            ],
            "to": "book",
        }},
        "admin": {"listen": "127.0.0.1:0"},
    }))  # fmt: skip
    return path


def test_it_runs(tmp_path, config):
    """A configuration may name the outside components beside built-in ones, and its records arrive."""
    done = lc_pipeline(install(tmp_path / "site"), "run", str(config), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "book.jsonl").read_text().splitlines()]
    assert lines == [{"routing": {"event_type": "HEARTBEAT"}, "event": {"beat": beat}} for beat in (1, 2, 3, 4)]


def test_without_it_the_type_is_unknown(tmp_path, config):
    """Without the package the same configuration is a mistake that lists what there is."""
    done = lc_pipeline(tmp_path, "validate", str(config), cwd=tmp_path)
    assert done.returncode == 4
    assert "heartbeat" in done.stderr
    assert "spout" in done.stderr


def test_two_packages_with_one_name(tmp_path, config):
    """Two packages that claim one name are an error that names both."""
    site = install(tmp_path / "site")
    install(site, "other-toy")
    done = lc_pipeline(site, "validate", str(config), cwd=tmp_path)
    assert done.returncode == 4
    assert "`lc-toy` and `other-toy`" in done.stderr


@pytest.mark.timeout(120)
def test_it_passes_mypy_strict(tmp_path):
    """What a plug-in imports is typed well enough for mypy --strict."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            str(tmp_path),
            "--config-file",
            "",
            str(PACKAGE / "lc_toy"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


async def test_it_keeps_the_contract(tmp_path, monkeypatch):
    """The outside components pass the checks of `pipeline.testing`."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    import lc_toy

    from pipeline.testing import check_filter, check_sink, check_source

    book = tmp_path / "book"
    await check_source(
        lambda surroundings: lc_toy.Heartbeat(lc_toy.HeartbeatConfig(type="heartbeat", interval=0.01), surroundings),
        at_least=3,
    )
    await check_filter(
        lambda surroundings: lc_toy.Shout(lc_toy.ShoutConfig(type="shout", path="routing/hostname"), surroundings)
    )
    await check_sink(
        lambda surroundings: lc_toy.Notebook(lc_toy.NotebookConfig(type="notebook", path=book), surroundings),
        lambda: book.read_bytes().splitlines() if book.exists() else [],
    )
