"""What we want to be true of the figures of `benchmarks.flow`, and whether it is."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

OURS, WHOLE = "lc-pipeline", "lc-pipeline (full decode)"


@dataclass(frozen=True)
class Target:
    job: str
    system: str
    beside: str
    most: float
    """The ratio of the two that we allow."""
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
    Target("json-file", "official SDK", OURS, 1 / 4, "rate"),
    Target("json-file", "lc-pipeline (disk spool)", OURS, 1.2),
    Target("json-file", "lc-pipeline (2 workers)", OURS, 1.1),
    Target("bytes-file", OURS, "rsyslog", 1 / 4),
    Target("bytes-file", OURS, "syslog-ng", 1 / 1.8),
    Target("raw-file", OURS, "bare loop", 1 / 0.65),
    Target("json-kafka", WHOLE, "Vector", 1 / 2),
    Target("json-kafka", WHOLE, "Fluent Bit", 1 / 2),
    Target("json-kafka", OURS, "Vector", 1 / 3),
    Target("json-kafka", OURS, "Fluent Bit", 1 / 3),
    Target("raw-kafka", OURS, "rsyslog", 1 / 1.4),
    Target("spout-file", OURS, "official SDK", 1 / 4),
)
MEMORY = 60
"""MiB that one process may take."""


def table(flow: dict[str, Any]) -> str:
    lines = [
        "| Job | Framing | Beside | CPU, or rate where it says so | Wanted | |",
        "|---|---|---|---|---|---|",
    ]
    peak = 0.0
    for group in flow["groups"]:
        systems = {system["name"]: system["runs"] for system in group["systems"] if system["runs"]}
        peak = max([peak, *(run["peak_mib"] for run in systems.get(OURS, ()))])
        for target in TARGETS:
            if target.job != group["job"] or not {target.system, target.beside} <= systems.keys():
                continue
            found = _median(systems[target.system], target.what) / _median(systems[target.beside], target.what)
            names = f"{target.system} to {target.beside}" + (", rate" if target.what == "rate" else "")
            met = "met" if found <= target.most else f"missed by {found / target.most - 1:.0%}"
            lines.append(
                f"| {group['job']} | {group['framing']} | {names} | {found:.2f} | ≤ {target.most:.2f} | {met} |"
            )
    met = "met" if peak <= MEMORY else f"missed by {peak / MEMORY - 1:.0%}"
    lines.append(f"| all | | {OURS}, peak memory in MiB | {peak:.0f} | ≤ {MEMORY} | {met} |")
    return "\n".join(lines)


def _median(runs: list[dict[str, Any]], what: str) -> float:
    return statistics.median(run[what] for run in runs)
