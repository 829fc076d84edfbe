"""What we want to be true of the figures of `benchmarks.flow`, and whether it is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.flow.job import FRAMINGS

OURS, WHOLE = "lc-pipeline", "lc-pipeline (full decode)"
BLOCKS, SINGLE = FRAMINGS.values()


@dataclass(frozen=True)
class Target:
    job: str
    system: str
    beside: str
    most: float | Mapping[str, float]
    """The ratio of the two that we allow, where it differs for each framing."""
    what: str = "cost"


TARGETS = (
    *(
        Target("json-file", WHOLE, beside, 1 / times)
        for beside, times in (
            *(("Fluent Bit", 2), ("Vector", 2.5), ("rsyslog", 4), ("syslog-ng", 4), ("Redpanda Connect", 8)),
            ("bare loop", 0.65),
        )
    ),
    *(
        Target("json-file", OURS, beside, 1 / times)
        for beside, times in (
            *(("Fluent Bit", 3.2), ("Vector", 4.5), ("rsyslog", 7), ("syslog-ng", 7)),
            ("bare loop (projection)", 0.65),
        )
    ),
    Target("json-file", "official SDK", OURS, {BLOCKS: 1 / 4, SINGLE: 1 / 7}, "rate"),
    Target("json-file", "lc-pipeline (disk spool)", OURS, 1.2),
    Target("json-file", "lc-pipeline (2 workers)", OURS, 1.1),
    Target("bytes-file", OURS, "rsyslog", 1 / 4),
    Target("bytes-file", OURS, "syslog-ng", 1 / 1.8),
    Target("bytes-file", OURS, "bare loop", 1 / 0.65),
    Target("raw-file", OURS, "bare loop", 1 / 0.65),
    Target("json-kafka", WHOLE, "Vector", 1 / 2),
    Target("json-kafka", WHOLE, "Fluent Bit", 1 / 2),
    Target("json-kafka", OURS, "Vector", 1 / 3),
    Target("json-kafka", OURS, "Fluent Bit", 1 / 3),
    Target("raw-kafka", OURS, "rsyslog", 1 / 1.4),
    Target("json-kafka", WHOLE, "bare loop", 1 / 0.65),
    Target("json-kafka", OURS, "bare loop (projection)", 1 / 0.65),
    Target("raw-kafka", OURS, "bare loop", 1 / 0.65),
    Target("spout-file", OURS, "official SDK", {BLOCKS: 1 / 4, SINGLE: 1 / 6}),
)
MEMORY = 60
"""MiB that one process may take."""
STORED = 50
"""ms within which 99 of 100 records are stored at half load."""


def table(whole: dict[str, Any]) -> str:
    """Of all parts of a run that are there."""
    lines = [
        "| Job | Framing | Beside | CPU, or rate where it says so | Wanted | |",
        "|---|---|---|---|---|---|",
    ]
    peak = 0.0
    for group in whole["flow"]["groups"]:
        systems = {system["name"]: system["runs"] for system in group["systems"] if system["runs"]}
        peak = max([peak, *(run["peak_mib"] for run in systems.get(OURS, ()))])
        for target in TARGETS:
            if target.job != group["job"] or not {target.system, target.beside} <= systems.keys():
                continue
            found = _median(systems[target.system], target.what) / _median(systems[target.beside], target.what)
            names = f"{target.system} to {target.beside}" + (", rate" if target.what == "rate" else "")
            most = target.most if isinstance(target.most, float) else target.most[group["framing"]]
            met = "met" if found <= most else f"missed by {found / most - 1:.0%}"
            lines.append(f"| {group['job']} | {group['framing']} | {names} | {found:.2f} | ≤ {most:.2f} | {met} |")
    lines.append(_most("flow, as fast as it can", f"{OURS}, peak memory in MiB", peak, MEMORY))
    if "soak" in whole:
        lines.append(_most("half load", "memory in MiB", whole["soak"]["rss_mib"], MEMORY))
        lines.append(_most("half load", "stored after, 99th percentile in ms", whole["soak"]["p99_ms"], STORED))
    lines += [
        f"| memory | | {row['what']} | {row['found']} | {row['wanted']} | {'met' if row['met'] else 'missed'} |"
        for row in whole.get("memory", ())
        if row["wanted"]
    ]
    return "\n".join(lines)


def _most(job: str, what: str, found: float, wanted: float) -> str:
    met = "met" if found <= wanted else f"missed by {found / wanted - 1:.0%}"
    return f"| {job} | | {what} | {found:.0f} | ≤ {wanted:.0f} | {met} |"


def _median(runs: list[dict[str, Any]], what: str) -> float:
    return statistics.median(run[what] for run in runs)
