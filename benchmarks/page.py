"""Writes what `make bench` found into docs/performance.md: ``python -m benchmarks.page [benchmarks/results/bench.json]``.

The page's tables stand between ``<!-- bench: NAME -->`` and ``<!-- /bench -->`` and are made here only, all from one run, so that no
figure on it is older than another. ``make bench ARGS=--page`` does it at the end of a run.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import report, targets

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "performance.md"
SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "run": report.run,
    "flow": lambda whole: report.flow(whole["flow"]),
    "targets": targets.table,
    "micro": lambda whole: report.micro(whole["micro"]),
    "memory": lambda whole: report.memory(whole["memory"]),
    "start": lambda whole: report.start(whole["start"]),
    "soak": lambda whole: report.soak(whole["soak"]),
    "profile": lambda whole: report.profile(whole["profile"]),
}


def written(text: str, whole: dict[str, Any]) -> str:
    """The page with its tables made anew. Raises `ValueError` for a section that nobody knows or that is not there."""
    names = re.findall(r"<!-- bench: (\w+) -->", text)
    if sorted(names) != sorted(SECTIONS):
        raise ValueError(f"the page has the sections {names}, and {[*SECTIONS]} are wanted")

    def section(found: re.Match[str]) -> str:
        return f"{found[1]}\n\n{SECTIONS[found[2]](whole)}\n\n{found[3]}"

    return re.sub(r"(<!-- bench: (\w+) -->).*?(<!-- /bench -->)", section, text, flags=re.DOTALL)


def write(path: Path) -> None:
    PAGE.write_text(written(PAGE.read_text(), json.loads(path.read_text())))
    picture = path.parent / "soak.png"
    if picture.exists():
        shutil.copyfile(picture, DOCS / "soak.png")
    print(f"Written into {PAGE.relative_to(DOCS.parent)}.")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else report.RESULTS / "bench.json")
