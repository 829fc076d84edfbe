"""Adds up what several workers say of themselves, as if they were one process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from pipeline.engine.summary import LaneCount, SourceCount, Summary

Families = list[list[Any]]
"""Metrics as a message carries them: ``[name, help, type, [[sample, labels, value], …]]``."""

_LARGEST = frozenset({"pipeline_utilization", "pipeline_build_info"})
_SMALLEST = frozenset({"pipeline_component_up"})
_WAITING, _CARRIED = "pipeline_lane_waiting_records", "pipeline_lane_carried_records"


def families(registry: CollectorRegistry) -> Families:
    """All metrics of a process."""
    return _plain(registry.collect())


def text(workers: Iterable[Families]) -> bytes:
    """The metrics of all workers together, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Fixed(_together(workers)))
    return generate_latest(registry)


def kept(families: Families) -> Families:
    """What is still to be counted of a worker that has ended, so that no counter of all workers together goes back.

    What waited in it is carried over by the one that takes its place, and is counted there.
    """
    waiting = {
        tuple(sorted(labels.items())): value
        for name, _, _, samples in families
        if name == _WAITING
        for _, labels, value in samples
    }
    result: Families = []
    for name, documentation, kind, samples in families:
        if kind in ("counter", "histogram") or name == "pipeline_lane_derived_records":
            result.append([name, documentation, kind, samples])
        elif name == _CARRIED:
            rest = [
                [one, labels, value - waiting.get(tuple(sorted(labels.items())), 0.0)] for one, labels, value in samples
            ]
            result.append([name, documentation, kind, rest])
    return result


def added(one: Families, other: Families) -> Families:
    """What `kept` gave of two lives as that of one: a worker that ends again and again needs no more memory for it."""
    return _plain(_together([one, other]))


def states(workers: Mapping[int, Mapping[str, Any]], health: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of all workers together; ``health`` is of all."""
    total = summary(
        [
            Summary(
                0,
                [SourceCount(**one) for one in state["sources"]],
                state["refused"],
                [LaneCount(**one) for one in state["lanes"]],
            )
            for state in workers.values()
        ],
        0,
    )
    return {
        "health": health,
        "sources": [asdict(source) for source in total.sources],
        "refused": total.refused,
        "lanes": [asdict(lane) for lane in total.lanes],
        "conservation_error": sum(state["conservation_error"] for state in workers.values()),
    }


def summary(parts: Sequence[Summary], exit_code: int) -> Summary:
    """The counts of all parts together."""
    sources: dict[tuple[str, str], SourceCount] = {}
    lanes: dict[tuple[str, str, str, str], LaneCount] = {}
    refused: dict[str, dict[str, int]] = {}
    for part in parts:
        for source in part.sources:
            place = (source.source, source.org)
            sources[place] = _sum(sources[place], source) if place in sources else source
        for lane in part.lanes:
            key = (lane.route, lane.sink, lane.source, lane.org)
            lanes[key] = _sum(lanes[key], lane) if key in lanes else lane
        for name, reasons in part.refused.items():
            counts = refused.setdefault(name, {})
            for reason, count in reasons.items():
                counts[reason] = counts.get(reason, 0) + count
    return Summary(exit_code, list(sources.values()), refused, list(lanes.values()))


def _plain(metrics: Iterable[Metric]) -> Families:
    return [
        [
            metric.name,
            metric.documentation,
            metric.type,
            [[sample.name, sample.labels, sample.value] for sample in metric.samples],
        ]
        for metric in metrics
    ]


def _sum(one: Any, other: Any) -> Any:
    """Two counts of the same place: numbers add up, names are the same."""
    return type(one)(
        *(
            getattr(one, field.name) + (getattr(other, field.name) if isinstance(getattr(one, field.name), int) else "")
            for field in fields(one)
        )
    )


def _together(workers: Iterable[Families]) -> Iterator[Metric]:
    found: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for worker in workers:
        for name, documentation, kind, samples in worker:
            found.setdefault(name, Metric(name, documentation, kind))
            series = values.setdefault(name, {})
            for sample, labels, value in samples:
                key = (sample, tuple(labels.items()))
                series[key] = _fold(name, sample, series[key], value) if key in series else value
    for name, metric in found.items():
        for (sample, labels), value in values[name].items():
            metric.add_sample(sample, dict(labels), value)
        yield metric


def _fold(name: str, sample: str, one: float, other: float) -> float:
    if name in _LARGEST:
        return max(one, other)
    if name in _SMALLEST or sample.endswith("_created"):
        return min(one, other)
    return one + other


class _Fixed(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)
