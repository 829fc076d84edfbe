"""Runs the command line in its own process, as a user does."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

VALID = """
sources:
  detections: {type: spout, stream: detect}
sinks:
  archive: {type: file, path: data/x.jsonl}
routes:
  all: {from: detections, to: archive}
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Gives a function that runs `lc-pipeline` in an empty folder and returns the finished process."""

    def start(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "_LC_", "NO_COLOR"))}
        return subprocess.run(
            [sys.executable, "-c", "from pipeline.cli import main; main()", *args],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=clean | (env or {}),
            timeout=15,
            check=False,
        )

    return start


@pytest.fixture
def valid(tmp_path: Path) -> Path:
    """A valid configuration."""
    path = tmp_path / "lc.yaml"
    path.write_text(VALID)
    return path
