"""The table at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.engine.summary import Summary

_COUNTS = ("received", "carried", "derived", "delivered", "filtered", "rejected", "discarded", "waiting")
_ALWAYS = ("received", "delivered", "filtered", "rejected", "discarded", "waiting")


def render(summary: Summary) -> str:
    """Two small tables, sources and lanes, and a line that says whether they add up."""
    sources = [
        [
            _name(count.source, count.org),
            f"{count.received:,}",
            f"{count.bytes:,}",
            f"{sum(summary.refused.get(count.source, {}).values()):,}",
        ]
        for count in summary.sources
    ]
    shown = [name for name in _COUNTS if name in _ALWAYS or any(getattr(lane, name) for lane in summary.lanes)]
    lanes = [
        [f"{lane.route} → {lane.sink}", _name(lane.source, lane.org), *(f"{getattr(lane, name):,}" for name in shown)]
        for lane in summary.lanes
    ]
    wrong = [lane for lane in summary.lanes if not lane.adds_up]
    verdict = (
        f"Does NOT add up in {len(wrong)} of {len(summary.lanes)} lanes: this is a bug, please report it."
        if wrong
        else "Adds up: received = delivered + filtered + rejected + discarded + waiting, in every lane."
    )
    if not wrong and len(shown) > len(_ALWAYS):
        verdict = "Adds up: received + carried + derived = delivered + filtered + rejected + discarded + waiting, in every lane."
    return "\n\n".join([
        _grid(["source", "received", "bytes", "refused"], sources, left=1),
        _grid(["lane", "source", *shown], lanes, left=2),
        verdict,
    ])  # fmt: skip


def _name(source: str, org: str) -> str:
    return f"{source} ({org})" if org else source


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), "  ".join("─" * width for width in widths), *map(line, rows)])
