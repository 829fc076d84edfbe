"""The admin server of a running plan."""

import asyncio
import contextlib
import socket

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from pipeline import ConfigError, Org, Rejected, Sink, SinkConfig, Source, SourceConfig
from pipeline.admin.server import serve
from pipeline.config.model import Config
from pipeline.config.registry import Registry
from pipeline.core.types import Listen
from pipeline.engine.build import build
from pipeline.engine.runner import Runner
from pipeline.kit.clock import SystemClock

METRICS = {
    "pipeline_lane_records_total": {"route", "sink", "source", "org", "outcome"},
    "pipeline_lane_waiting_records": {"route", "sink", "source", "org"},
    "pipeline_lane_carried_records": {"route", "sink", "source", "org"},
    "pipeline_lane_derived_records": {"route", "sink", "source", "org"},
    "pipeline_source_received_records_total": {"source", "org"},
    "pipeline_source_received_bytes_total": {"source", "org"},
    "pipeline_source_rejected_records_total": {"source", "reason"},
    "pipeline_sink_sent_records_total": {"sink"},
    "pipeline_sink_sent_bytes_total": {"sink"},
    "pipeline_errors_total": {"component", "code"},
    "pipeline_discarded_records_total": {"route", "reason", "intentional"},
    "pipeline_spool_bytes": {"log"},
    "pipeline_event_latency_seconds_count": {"route", "sink"},
    "pipeline_utilization": {"component"},
    "pipeline_gap_seconds_total": {"source", "org"},
    "pipeline_upstream_dropped_records_total": {"source", "org"},
    "pipeline_conservation_error_records": set(),
}
"""The names and labels that dashboards are built on."""

EVENT = b'{"routing":{"event_type":"X","event_time":%d},"event":{}}'


class Lasting(Source[SourceConfig]):
    """Sends one event and one bad record, then waits for the stop."""

    async def run(self, outlet):
        await outlet.send([EVENT % int((self.clock.now() - 3) * 1000), b"bad"])
        self.report.error("unavailable", 2)
        self.report.gap(10.0, 12.5, "connect")
        self.report.upstream_dropped(7)
        await self.stopping.wait()


class Gated(Sink[SinkConfig]):
    """Stores when `gate` is set."""

    gate: asyncio.Event

    async def write(self, items):
        await self.gate.wait()
        if any(b"never" in item.payload for item in items):
            raise Rejected("never")


class Toys(Registry):
    def component(self, kind, name):
        return {"lasting": Lasting, "gated": Gated}[name]


@pytest.fixture
def make(tmp_path):
    """Makes a runner with an admin server on the given address."""

    def build_one(listen):
        toys = Toys()
        config = Config.model_validate(
            {
                "sources": {"tap": {"type": "lasting"}},
                "sinks": {"tap": {"type": "gated", "batch": {"max_wait": 0}}},
                "routes": {"all": {"from": "tap", "to": "tap"}},
                "dead_letter": {"path": str(tmp_path / "letters")},
            },
            context={"registry": toys},
        )
        plan = build(config, {"": Org()}, SystemClock(), toys)
        plan.sinks["tap"].sink.gate = asyncio.Event()
        return Runner(plan, [serve(listen)])

    return build_one


class Up:
    """A running pipeline with a client for its admin server."""

    def __init__(self, runner, task, client):
        self.runner, self.task, self.client = runner, task, client
        self.gate = runner.plan.sinks["tap"].sink.gate

    async def get(self, path):
        async with self.client.get(path) as answer:
            return answer.status, await answer.text(), answer.headers

    async def metrics(self):
        """Sample name and labels -> value."""
        _, text, _ = await self.get("/metrics")
        return [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    async def delivered(self):
        async with asyncio.timeout(5):
            while self.runner.plan.sinks["tap"].sent_records < 1:
                await asyncio.sleep(0.005)


@pytest.fixture
async def up(make):
    """A pipeline that runs with its admin server on a free port."""
    with capture_logs() as lines:
        runner = make(Listen("127.0.0.1", 0))
        task = asyncio.ensure_future(runner.run())
        async with asyncio.timeout(5):
            while not runner.health.ready:
                await asyncio.sleep(0.002)
        url = next(line["url"] for line in lines if "url" in line)
        async with aiohttp.ClientSession(url) as client:
            one = Up(runner, task, client)
            yield one
            one.gate.set()
            runner.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)


async def test_all_metrics_exist(up):
    """Every metric of the design is there, under its name and with its labels, from the first scrape on."""
    up.gate.set()
    await up.delivered()
    found = {name: set(labels) for name, labels, _ in await up.metrics()}
    missing = {name: labels for name, labels in METRICS.items() if found.get(name) != labels}
    assert not missing


async def test_no_sample_comes_twice(up):
    """No two samples have the same name and labels, which a scraper would refuse; here source and sink share a name."""
    samples = [(name, tuple(sorted(labels.items()))) for name, labels, _ in await up.metrics()]
    assert len(samples) == len(set(samples))


async def test_what_the_metrics_say(up):
    """Counts of lanes, sources and sinks are those of what happened."""
    before = {name: value for name, labels, value in await up.metrics() if name == "pipeline_lane_waiting_records"}
    assert before == {"pipeline_lane_waiting_records": 1}
    up.gate.set()
    await up.delivered()
    samples = await up.metrics()
    values = {name: value for name, _, value in samples if name != "pipeline_lane_records_total"}
    outcomes = {labels["outcome"]: value for name, labels, value in samples if name == "pipeline_lane_records_total"}
    assert outcomes == {"delivered": 1, "filtered": 0, "rejected": 0, "discarded": 0}
    assert values["pipeline_source_received_records_total"] == 1
    assert values["pipeline_source_rejected_records_total"] == 1
    assert values["pipeline_gap_seconds_total"] == 2.5
    assert values["pipeline_upstream_dropped_records_total"] == 7
    assert values["pipeline_event_latency_seconds_count"] == 1
    assert 3 <= values["pipeline_event_latency_seconds_sum"] < 8
    assert values["pipeline_conservation_error_records"] == 0
    errors = {
        (labels["component"], labels["code"]): value
        for name, labels, value in samples
        if name == "pipeline_errors_total"
    }
    assert errors == {("tap", "unavailable"): 2}


async def test_alive(up):
    """`/healthz` answers while the event loop turns."""
    assert (await up.get("/healthz"))[:2] == (200, "ok\n")


async def test_ready_until_it_drains(up):
    """`/readyz` is 200 when records are taken, with each component in its body, and 503 while the process drains."""
    status, body, _ = await up.get("/readyz")
    assert status == 200
    assert '"status":"ready"' in body
    assert '"component":"tap"' in body
    up.runner.stop()
    async with asyncio.timeout(5):
        while up.runner.health.phase != "draining":
            await asyncio.sleep(0.002)
    status, body, _ = await up.get("/readyz")
    assert (status, '"status":"draining"' in body) == (503, True)
    assert (await up.get("/healthz"))[0] == 200


async def test_the_live_page(up):
    """The live page is one HTML document that may load nothing from elsewhere, and its data is JSON that adds up."""
    status, text, headers = await up.get("/")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    async with up.client.get("/state") as answer:
        state = await answer.json()
    assert (state["lanes"][0]["waiting"], state["conservation_error"]) == (1, 0)
    assert state["sources"] == [{"source": "tap", "org": "", "received": 1, "bytes": len(EVENT) - 2 + 13}]


async def test_nothing_can_be_changed(up):
    """The server answers questions only."""
    async with up.client.post("/state") as answer:
        assert answer.status == 405


async def test_an_address_that_is_taken(make):
    """An address that was asked for and is taken ends the start; the default one is only tried."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot listen"):
        await make(Listen(*taken.getsockname())).run()
