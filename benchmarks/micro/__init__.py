"""What single parts cost: ``python -m benchmarks.micro [--quick] [--rounds 5] [--parts split,decode]``.

CPU µs per event in one process, on real events in batches of 256, rounds interleaved. The parts: split, decode, filters, rules,
encode, kafka (building batches), spool, metrics. Beside them are scripts about one part each, which are run by hand.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from benchmarks.corpus import corpus
from benchmarks.micro import deciding, giving, keeping, reading

PARTS = {
    "split": reading.split,
    "decode": reading.decode,
    "filters": deciding.filters,
    "rules": deciding.rules,
    "encode": giving.encode,
    "kafka": giving.kafka,
    "spool": keeping.spools,
    "metrics": keeping.metrics,
}


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.micro", description=__doc__)
    parser.add_argument("--events", type=int, default=20_480)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="few events, one round: does it run?")
    found = parser.parse_args(arguments)
    if found.quick:
        found.events, found.rounds = 2048, 1
    return found


def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure; returns what `report.micro` makes a table of."""
    with corpus(given.events).open("rb") as file:
        records = [line[:-1] for line in file]
    cases = [(part, name, work) for part in given.parts.split(",") for name, work in PARTS[part](records).items()]
    costs: dict[tuple[str, str], list[float]] = {}
    for number in range(given.rounds + 1):
        for part, name, work in cases:
            began = time.process_time()
            work()
            if number or given.rounds == 1:  # the first round warms up
                costs.setdefault((part, name), []).append((time.process_time() - began) / len(records) * 1e6)
        print(f"micro round {number}", file=sys.stderr)
    return [{"part": part, "case": name, "costs": found} for (part, name), found in costs.items()]
