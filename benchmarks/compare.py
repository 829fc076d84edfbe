"""Is this tree slower than another commit? ``python -m benchmarks.compare BASE [--pairs 8] [--most 24] [--jobs json-file,raw-file]``.

BASE's program is checked out beside this one and both do the same jobs in pairs, in turns as to who begins; this tree's benchmarks and
installed packages serve both. What counts is the ratio of CPU seconds within a pair, so that a machine that others use too disturbs
both alike. From the ratios comes an interval that holds their geometric mean with 95 % confidence (bootstrap):

* slower: all of it is above 1 + LIMIT (exit code 1); quicker: all of it is below 1 - LIMIT
* no slower: all of it is below 1 + LIMIT
* not decided: neither; then more pairs are run, up to MOST (exit code 3: accept nothing on it)

A pair far off from the others is kept: noise belongs to the answer. With valgrind the instructions of the hot path are counted too:
they hardly vary, so that they show what the clock cannot.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.corpus import corpus, first
from benchmarks.flow import ours
from benchmarks.flow.job import JOBS, System
from benchmarks.flow.measure import Bench, measure

ROOT = Path(__file__).parent.parent
RESAMPLES = 4000
LEAST = 6
"""Pairs with which anything is decided: drawing again and again from fewer says nothing of how far off they are."""
INSTRUCTIONS = (2048, 8192)
"""Events of two runs, whose difference has no start of an interpreter in it."""
HOT = """
import sys
import pipeline
sys.path.insert(0, sys.argv[1])
from benchmarks.micro import deciding, reading
with open(sys.argv[2], "rb") as file:
    records = [line[:-1] for _, line in zip(range(int(sys.argv[3])), file)]
reading.split(records)["the listener's framer, with all checks"]()
deciding.filters(records)["match on one field"]()
"""


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """The geometric mean, and what holds it with 95 % confidence."""
    logs = [math.log(ratio) for ratio in ratios]
    dice = random.Random(1)
    means = sorted(statistics.fmean(dice.choices(logs, k=len(logs))) for _ in range(RESAMPLES))
    low, high = means[int(RESAMPLES * 0.025)], means[int(RESAMPLES * 0.975)]
    return math.exp(statistics.fmean(logs)), math.exp(low), math.exp(high)


def verdict(low: float, high: float, limit: float, pairs: int) -> str:
    if pairs < LEAST:
        return "not decided"
    if low > 1 + limit:
        return "slower"
    if high < 1 - limit:
        return "quicker"
    return "no slower" if high < 1 + limit else "not decided"


def instructions(tree: Path, path: Path) -> float | None:
    """Of the hot path for one event; None without valgrind, or where the tree has no such parts."""
    if shutil.which("valgrind") is None:
        return None
    counts = []
    for events in INSTRUCTIONS:
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        done = subprocess.run(
            # The program that is compared, and nothing of where we are (-P); then this tree's benchmarks.
            [*command, sys.executable, "-P", "-c", HOT, str(ROOT), str(path), str(events)],
            env={**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"},
            check=False,
            capture_output=True,
            text=True,
        )
        found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
        if done.returncode or found is None:
            print(f"No instruction count: {done.stderr.strip()[-300:]}", file=sys.stderr)
            return None
        counts.append(int(found[1].replace(",", "")))
    return (counts[1] - counts[0]) / (INSTRUCTIONS[1] - INSTRUCTIONS[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a commit, a tag, a branch")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--most", type=int, default=24, help="pairs, where fewer do not decide")
    parser.add_argument("--limit", type=float, default=0.03, help="a difference that matters")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--jobs", default="json-file,raw-file")
    given = parser.parse_args()
    path = corpus(given.events)
    whole = first(path, given.events)
    verdicts = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
        base = folder / "base"
        _git("worktree", "add", "--detach", str(base), given.base)
        stack.callback(_git, "worktree", "remove", "--force", str(base))
        bench = Bench.ready(folder)
        trees = {"base": _plain(str(base)), "here": _plain("")}
        print(
            f"{given.base} ({_git('rev-parse', '--short', given.base)}) beside this tree; ratios of CPU, here to base"
        )
        for name in given.jobs.split(","):
            ratios: list[float] = []
            wanted = given.pairs
            while True:
                while len(ratios) < wanted:
                    order = list(trees) if len(ratios) % 2 else list(reversed(trees))
                    costs = {who: measure(bench, JOBS[name], "blocks", trees[who], whole).cost for who in order}
                    ratios.append(costs["here"] / costs["base"])
                mean, low, high = interval(ratios)
                found = verdict(low, high, given.limit, len(ratios))
                if found != "not decided" or wanted >= given.most:
                    break
                wanted = min(given.most, wanted + given.pairs)
            verdicts.append(found)
            spread = f"{min(ratios):.3f}–{max(ratios):.3f}"
            print(f"{name}: {mean:.3f} ({low:.3f}–{high:.3f}), {len(ratios)} pairs ({spread}): {found}", flush=True)
        counts = instructions(base, path), instructions(ROOT, path)
        if counts[0] and counts[1]:
            ratio = counts[1] / counts[0]
            print(f"instructions for an event, split and match: {counts[0]:,.0f} → {counts[1]:,.0f} ({ratio:.3f})")
    print(json.dumps({"verdicts": verdicts}))
    return 1 if "slower" in verdicts else 3 if "not decided" in verdicts else 0


def _plain(tree: str) -> System:
    return next(system for system in ours.systems(tree) if system.name == "lc-pipeline")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
