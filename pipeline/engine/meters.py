"""The process's metrics: plain counters that the parts keep anyway, gathered when somebody asks.

Nothing here runs per event or per batch, except one latency observation per write.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline import __version__
from pipeline.core.batch import Batch, LogId
from pipeline.core.clock import Clock
from pipeline.core.spool import Spool
from pipeline.engine.dedupe import Dedupe
from pipeline.engine.delivery import SinkRunner
from pipeline.engine.intake import Intake
from pipeline.engine.lane import Lane
from pipeline.engine.letters import DeadLetters
from pipeline.engine.route import Route
from pipeline.engine.status import Board

LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400)
_EVENT_TIME = b'"event_time":'
OUTCOMES = ("delivered", "filtered", "rejected", "discarded")
REPLAY_OUTCOMES = (*OUTCOMES, "accepted")


def event_time(raw: bytes) -> float | None:
    """The event time (Unix seconds) of a raw event or detection, found without decoding; None where there is none."""
    at = raw.find(_EVENT_TIME)
    if at < 0:
        return None
    digits = raw[at + len(_EVENT_TIME) : at + len(_EVENT_TIME) + 16].lstrip()
    end = 0
    while end < len(digits) and 48 <= digits[end] <= 57:
        end += 1
    return int(digits[:end]) / 1000 if end >= 12 else None


class Meters(Collector):
    """Everything that ``/metrics`` shows."""

    def __init__(self, spool: Spool, board: Board, letters: DeadLetters, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        self.lanes: Sequence[Lane] = ()
        self.intakes: Sequence[tuple[str, Intake]] = ()
        """Source id and intake of each source instance."""
        self.sinks: Sequence[SinkRunner] = ()
        self.routes: Sequence[Route] = ()
        self.dedupes: Mapping[str, Dedupe] = {}
        self._spool = spool
        self._board = board
        self._letters = letters
        self._clock = clock
        self._latency = Histogram(
            "pipeline_event_latency_seconds",
            "Time from an event on its endpoint until it was delivered; one observation per write.",
            ["route", "sink"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._busy: dict[str, tuple[float, float]] = {}
        self._utilization: dict[str, float] = {}
        self.registry.register(self)

    def observer(self, route: str, sink: str) -> _Observer:
        """What a lane calls after each write."""
        return _Observer(self._latency.labels(route, sink), self._clock)

    def conservation_error(self) -> int:
        """Records that are unaccounted for over all lanes and logs; anything but 0 is a bug."""
        stats = self._spool.stats()
        total = 0
        for lane in self.lanes:
            for log, tally in lane.tallies.items():
                came = stats[log].received + tally.carried + tally.derived
                went = tally.delivered + tally.filtered + tally.rejected + sum(tally.discarded.values())
                total += abs(came - went - lane.waiting(log))
        return total

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        yield from self._lane_metrics()
        yield from self._source_metrics()
        yield from self._sink_metrics()
        yield from self._health_metrics()

    def _lane_metrics(self) -> Iterator[Metric]:
        labels = ["route", "sink", "source", "org"]
        records = CounterMetricFamily(
            "pipeline_lane_records", "Records that a lane is done with, by outcome.", labels=[*labels, "outcome"]
        )
        waiting = GaugeMetricFamily(
            "pipeline_lane_waiting_records", "Records that a lane is not done with.", labels=labels
        )
        carried = GaugeMetricFamily(
            "pipeline_lane_carried_records", "Records that waited for the lane when the process started.", labels=labels
        )
        derived = GaugeMetricFamily(
            "pipeline_lane_derived_records", "Records that filters made from others.", labels=labels
        )
        discarded = CounterMetricFamily(
            "pipeline_discarded_records",
            "Records that were given up, with the reason; intentional says whether a configuration asked for it.",
            labels=["route", "reason", "intentional"],
        )
        replayed = CounterMetricFamily(
            "pipeline_replay_records",
            "Records of pipeline_lane_records that were replayed, and how many were accepted for it.",
            labels=[*labels, "outcome"],
        )
        stats = self._spool.stats()
        places: dict[tuple[str, str, str, str], list[int]] = {}
        again: dict[tuple[str, ...], int] = {}
        lost: dict[tuple[str, str], int] = {(route.name, "spool_full"): 0 for route in self.routes}
        for lane in self.lanes:
            for log, tally in lane.tallies.items():
                place = (lane.route.name, lane.runner.id, log.source, log.org)
                outcomes = (tally.delivered, tally.filtered, tally.rejected, sum(tally.discarded.values()))
                if log.replay:
                    more = zip(REPLAY_OUTCOMES, (*outcomes, stats[log].received), strict=True)
                    for outcome, count in more:
                        again[*place, outcome] = again.get((*place, outcome), 0) + count
                counts = places.setdefault(place, [0] * 7)
                for index, count in enumerate((*outcomes, lane.waiting(log), tally.carried, tally.derived)):
                    counts[index] += count
                for reason, count in tally.discarded.items():
                    key = (lane.route.name, reason)
                    lost[key] = lost.get(key, 0) + count
        for place, (*outcomes_of, waits, carry, made) in places.items():
            for outcome, count in zip(OUTCOMES, outcomes_of, strict=True):
                records.add_metric([*place, outcome], count)
            waiting.add_metric(place, waits)
            carried.add_metric(place, carry)
            derived.add_metric(place, made)
        for labels_of, count in again.items():
            replayed.add_metric(labels_of, count)
        for (route, reason), count in lost.items():
            discarded.add_metric([route, reason, "false"], count)
        copies = CounterMetricFamily(
            "pipeline_dedupe_dropped_records", "Records that a route dropped as copies of others.", labels=["route"]
        )
        known = GaugeMetricFamily("pipeline_dedupe_entries", "Ids that a route remembers.", labels=["route"])
        for name, dedupe in self.dedupes.items():
            copies.add_metric([name], dedupe.dropped)
            known.add_metric([name], len(dedupe))
        yield from (copies, known)
        yield records
        yield replayed
        yield waiting
        yield carried
        yield derived
        yield discarded
        yield GaugeMetricFamily(
            "pipeline_conservation_error_records",
            "Records unaccounted for; anything but 0 is a bug.",
            self.conservation_error(),
        )

    def _source_metrics(self) -> Iterator[Metric]:
        labels = ["source", "org"]
        records = CounterMetricFamily(
            "pipeline_source_received_records", "Records accepted into the spool.", labels=labels
        )
        size = CounterMetricFamily("pipeline_source_received_bytes", "Bytes of records accepted.", labels=labels)
        refused = CounterMetricFamily(
            "pipeline_source_rejected_records",
            "Records that a source refused for their form.",
            labels=["source", "reason"],
        )
        for log, (count, total) in self.received().items():
            records.add_metric([log.source, log.org], count)
            size.add_metric([log.source, log.org], total)
        lost = CounterMetricFamily(
            "pipeline_source_lost_letters", "Refused records of which no dead letter could be kept.", labels=["source"]
        )
        for source, letters in self._letters.sources.items():
            lost.add_metric([source], letters.lost)
            for reason, count in letters.counts.items():
                refused.add_metric([source, reason], count)
        gaps = CounterMetricFamily(
            "pipeline_gap_seconds",
            "Seconds in which records may be missing because a source was not connected; grows while it is not.",
            labels=labels,
        )
        number = CounterMetricFamily("pipeline_gaps", "Gaps, by their reason.", labels=[*labels, "reason"])
        dropped = CounterMetricFamily(
            "pipeline_upstream_dropped_records",
            "Records that the cloud says it dropped before they reached us.",
            labels=labels,
        )
        seconds = dict(self._board.gaps.seconds())
        for status in self._board.of("source"):
            seconds.setdefault(LogId(status.component, status.org), 0.0)
            for org in {status.org, *status.dropped}:
                dropped.add_metric([status.component, org], status.dropped.get(org, 0))
        for log, length in seconds.items():
            gaps.add_metric([log.source, log.org], length)
        for (log, reason), begun in self._board.gaps.counts.items():
            number.add_metric([log.source, log.org, reason], begun)
        states = GaugeMetricFamily("pipeline_gaps_known", "Gaps in the ledger, by their state.", labels=["state"])
        for state in ("open", "closed", "filling", "filled", "given_up"):
            states.add_metric([state], sum(gap.state == state for gap in self._board.gaps))
        yield states
        yield from (records, size, refused, lost, gaps, number, dropped)

    def received(self) -> Mapping[LogId, tuple[int, int]]:
        """Log -> records and bytes accepted since the start."""
        found: dict[LogId, tuple[int, int]] = {}
        for _, intake in self.intakes:
            for log, (count, total) in intake.received.items():
                before = found.get(log, (0, 0))
                found[log] = (before[0] + count, before[1] + total)
        return found

    def _sink_metrics(self) -> Iterator[Metric]:
        records = CounterMetricFamily("pipeline_sink_sent_records", "Records that a sink stored.", labels=["sink"])
        size = CounterMetricFamily("pipeline_sink_sent_bytes", "Bytes of payload that a sink stored.", labels=["sink"])
        for sink in self.sinks:
            records.add_metric([sink.id], sink.sent_records)
            size.add_metric([sink.id], sink.sent_bytes)
        yield records
        yield size
        busy = GaugeMetricFamily(
            "pipeline_utilization",
            "Share of the time that a component was busy; near 1 means that it is the limit.",
            labels=["component"],
        )
        now = time.monotonic()
        for component, seconds in [
            *((f"route.{r.name}", r.busy) for r in self.routes),
            *((s.id, s.busy) for s in self.sinks),
        ]:
            since, before = self._busy.get(component, (now, seconds))
            if now - since >= 1.0 or component not in self._busy:
                self._utilization[component] = min(1.0, (seconds - before) / (now - since)) if now > since else 0.0
                self._busy[component] = (now, seconds)
            busy.add_metric([component], self._utilization[component])
        yield busy

    def _health_metrics(self) -> Iterator[Metric]:
        errors = CounterMetricFamily("pipeline_errors", "Errors by component and code.", labels=["component", "code"])
        counts = CounterMetricFamily(
            "pipeline_component", "What a component counts of its own.", labels=["component", "what"]
        )
        up = GaugeMetricFamily(
            "pipeline_component_up",
            "1 while a component works or has come to its end, 0 while it is starting, degraded or failed.",
            labels=["component", "kind", "org"],
        )
        tally: dict[tuple[str, str], int] = {}
        other: dict[tuple[str, str], int] = {}
        for status in self._board:
            up.add_metric(
                [status.component, status.kind, status.org], 1.0 if status.current in ("ok", "stopped") else 0.0
            )
            for code, count in status.errors.items():
                tally[status.component, code] = tally.get((status.component, code), 0) + count
            for what, count in status.counts.items():
                other[status.component, what] = other.get((status.component, what), 0) + count
        for (component, code), count in tally.items():
            errors.add_metric([component, code], count)
        for (component, what), count in other.items():
            counts.add_metric([component, what], count)
        spool = GaugeMetricFamily("pipeline_spool_bytes", "Bytes that a log holds in the spool.", labels=["log"])
        for log, stats in self._spool.stats().items():
            spool.add_metric([str(log)], stats.bytes)
        letters = GaugeMetricFamily(
            "pipeline_dead_letter_bytes", "Bytes of all lanes' dead letters.", self._letters.size
        )
        build = GaugeMetricFamily("pipeline_build_info", "The version that runs.", labels=["version"])
        build.add_metric([__version__], 1)
        yield from (errors, counts, up, spool, letters, build)


class _Observer:
    """Observes the latency of a write by its last event."""

    def __init__(self, latency: Histogram, clock: Clock) -> None:
        self._latency = latency
        self._clock = clock

    def __call__(self, batch: Batch, payload: bytes) -> None:
        if batch.origin == "live" and batch.stream in ("event", "detect", "deployment"):
            when = event_time(payload)
            if when is not None:
                self._latency.observe(max(0.0, self._clock.now() - when))
