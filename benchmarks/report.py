"""Tables of what was measured, in Markdown and JSON, in `benchmarks/results/`."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results"


def write(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Print the tables, keep them and the figures; returns what is in the JSON file."""
    program = "benchmarks" if name == "bench" else f"benchmarks.{name}"
    if "--quick" in sys.argv:
        name += "-quick"
    whole = {
        "command": " ".join(["python -m", program, *sys.argv[1:]]),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "load after": f"{os.getloadavg()[0]:.1f}",
        **found,
    }
    text = markdown(whole)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=1))
    (RESULTS / f"{name}.md").write_text(text)
    print(text)
    print(f"Written to {RESULTS.name}/{name}.md and .json in {RESULTS.parent}.")
    return whole


def markdown(whole: dict[str, Any]) -> str:
    parts = [run(whole)]
    if "flow" in whole:
        parts += [flow(whole["flow"]), "**Targets**", targets.table(whole)]
    for name, made in (("micro", micro), ("memory", memory), ("start", start), ("soak", soak), ("profile", profile)):
        if name in whole:
            parts.append(made(whole[name]))
    return "\n\n".join(parts) + "\n"


def run(whole: dict[str, Any]) -> str:
    """What was run, when, and on what."""
    lines = [
        f"`{whole['command']}`, {whole['when']}",
        ", ".join(f"{name}: {value}" for name, value in whole["machine"].items())
        + f", load after: {whole['load after']}",
    ]
    if whole.get("minutes"):
        lines[0] += f", {whole['minutes']:.0f} minutes"
    return "\n\n".join(lines)


def flow(found: dict[str, Any]) -> str:
    lines = [
        f"{found['events']:,} events of {found['mean_bytes']:,.0f} bytes in the mean; the filters keep {found['kept']:,},",
        f"which are {found['kept'] / found['events']:.0%} of them and {found['kept_bytes']:.0%} of the bytes;",
        f"{found['beyond_ascii']:.0%} have characters beyond ASCII.",
        f"{found['connections']} connections, medians of {found['rounds']} rounds.",
        *([f"Not measured: {_listed(found['missing'])}."] if found.get("missing") else []),
        "",
        "| What the sender reaches when a native receiver discards | Events/s | Sender CPU s per million |",
        "|---|---|---|",
    ]
    for framing, run in found["ceilings"].items():
        rate, cost = run["sent"] / run["wall"], run["far_cpu"] / run["sent"] * 1e6
        lines.append(f"| {framing} | {rate:,.0f} | {cost:.2f} |")
    for group in found["groups"]:
        lines += [
            "",
            f"**{group['title']}**, {group['framing']}",
            "",
            "| System | CPU s per million (least–most) | to lc-pipeline | Events/s | Peak MiB | Lost | Sender idle |",
            "|---|---|---|---|---|---|---|",
        ]
        costs = {system["name"]: _median(system, "cost") for system in group["systems"] if system["runs"]}
        base = costs.get("lc-pipeline")
        for system in group["systems"]:
            name = f"{system['name']} {system['version']}".strip()
            if not system["runs"]:
                lines.append(f"| {name} | failed | | | | | |")
                continue
            all_costs = [run["cost"] for run in system["runs"]]
            cost = costs[system["name"]]
            lost = statistics.median(1 - run["received"] / run["sent"] for run in system["runs"])
            idle = statistics.median(max(0, 1 - run["far_cpu"] / run["far_wall"]) for run in system["runs"])
            lines.append(
                f"| {name} | {cost:.2f} ({min(all_costs):.2f}–{max(all_costs):.2f}) | {f'{cost / base:.2f}' if base else ''}"
                f" | {_median(system, 'rate'):,.0f} | {_median(system, 'peak_mib'):.0f} | {f'{lost:.1%}' if lost else '0'}"
                f" | {idle:.0%} |"
            )
    return "\n".join(lines)


def _listed(missing: dict[str, str]) -> str:
    """What was not there, and the end of what was said about it."""
    return ", ".join(f"{name} ({' '.join(why.split())[-200:]})" for name, why in missing.items())


def _median(system: dict[str, Any], what: str) -> float:
    return statistics.median(run[what] for run in system["runs"])


def micro(found: list[dict[str, Any]]) -> str:
    lines = ["| Part | Case | CPU µs per event (least–most) |", "|---|---|---|"]
    for case in found:
        costs = case["costs"]
        lines.append(
            f"| {case['part']} | {case['case']} | {statistics.median(costs):.3f} ({min(costs):.3f}–{max(costs):.3f}) |"
        )
    return "\n".join(lines)


def soak(found: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"**{found['minutes']:g} minutes at {found['rate']:,.0f} events/s**, half of what one core does with this job",
            "",
            "| Figure | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in found["figures"].items()),
        ]
    )


def memory(found: list[dict[str, Any]]) -> str:
    lines = ["| Resident memory | Found | Wanted | |", "|---|---|---|---|"]
    for row in found:
        met = "" if not row["wanted"] else "met" if row["met"] else "missed"
        lines.append(f"| {row['what']} | {row['found']} | {row['wanted']} | {met} |")
    return "\n".join(lines)


def start(found: list[dict[str, Any]]) -> str:
    lines = ["| Started | ms (least–most) | Wanted | |", "|---|---|---|---|"]
    for case in found:
        middle, least, most = (1000 * pick(case["seconds"]) for pick in (statistics.median, min, max))
        limit = case["wanted"]
        wanted = f"≤ {1000 * limit:.0f} ms | {'met' if middle <= 1000 * limit else 'missed'}" if limit else " | "
        lines.append(f"| {case['what']} | {middle:.0f} ({least:.0f}–{most:.0f}) | {wanted} |")
    return "\n".join(lines)


def profile(found: list[dict[str, Any]]) -> str:
    """As text: who reads it looks for names."""
    parts = []
    for one in found:
        head = (
            f"{one['job']}, {one['system']}: {one['cost']:.2f} µs of CPU for an event; {one['profiled']:.2f} under the profiler,"
            f" which sees {one['loop']:.2f} in the loop's thread"
        )
        lines = [head, "   itself  with all   calls  function"]
        lines += [f"  {own:7.3f}  {whole:8.3f}  {calls:6}  {name}" for own, whole, calls, name in one["rows"]]
        parts.append("\n".join(lines))
    return "```\n" + "\n\n".join(parts) + "\n```"
