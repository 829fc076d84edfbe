"""What several workers say, added up."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from pipeline.engine import merge
from pipeline.engine.summary import LaneCount, SourceCount, Summary


def values(body):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def worker(received, carried=0, waiting=0, up=1.0, busy=0.0):
    registry = CollectorRegistry()
    Counter("pipeline_source_received_records", "x", ["source"], registry=registry).labels("t").inc(received)
    Gauge("pipeline_lane_carried_records", "x", ["route"], registry=registry).labels("r").set(carried)
    Gauge("pipeline_lane_waiting_records", "x", ["route"], registry=registry).labels("r").set(waiting)
    Gauge("pipeline_component_up", "x", ["component"], registry=registry).labels("t").set(up)
    Gauge("pipeline_utilization", "x", ["component"], registry=registry).labels("t").set(busy)
    Histogram("pipeline_event_latency_seconds", "x", buckets=(1, 5), registry=registry).observe(2)
    return merge.families(registry)


def test_counts_add_up_and_states_do_not():
    """Counters, histograms and amounts are added; a component is up where it is up everywhere, and as busy as its busiest."""
    found = values(merge.text([worker(5, waiting=2, busy=0.25), worker(7, waiting=1, up=0.0, busy=0.5)]))
    assert found["pipeline_source_received_records_total", "t"] == 12
    assert found["pipeline_lane_waiting_records", "r"] == 3
    assert found["pipeline_component_up", "t"] == 0
    assert found["pipeline_utilization", "t"] == 0.5
    assert found["pipeline_event_latency_seconds_bucket", "5.0"] == 2
    assert found["pipeline_event_latency_seconds_count",] == 2


def test_a_worker_that_was_started_again_neither_takes_back_counts_nor_breaks_the_account():
    """received + carried - waiting is the same before and after: what waited in the old life is carried over by the new one."""
    past = merge.kept(worker(10, carried=4, waiting=3))
    found = values(merge.text([past, worker(2, carried=3, waiting=1)]))
    received = found["pipeline_source_received_records_total", "t"]
    assert received == 12
    assert found["pipeline_lane_carried_records", "r"] == 4
    assert found["pipeline_lane_waiting_records", "r"] == 1
    assert found["pipeline_component_up", "t"] == 1


def test_many_lives_are_kept_as_one():
    """However often a worker ends, what is kept of it stays as small, and is what each life counted together."""
    past = []
    for _ in range(50):
        past = merge.added(past, merge.kept(worker(10, carried=3, waiting=3)))
    assert sorted(map(repr, past)) == sorted(map(repr, merge.added([], past)))
    assert len(past) == len(merge.kept(worker(10)))
    found = values(merge.text([past, worker(1, carried=3, waiting=3)]))
    assert found["pipeline_source_received_records_total", "t"] == 501
    assert found["pipeline_event_latency_seconds_count",] == 51
    assert found["pipeline_lane_carried_records", "r"] == 3


def test_summaries_of_the_same_source_and_lane_become_one():
    """The table at the end has one row for a source and one for a lane, whatever number of workers had them."""
    lane = LaneCount("r", "s", "t", "", 3, 0, 0, 2, 1, 0, 0, 0)
    part = Summary(0, [SourceCount("t", "", 3, 30)], {"t": {"oversize": 1}}, [lane])
    total = merge.summary([part, part], 1)
    assert total.sources == [SourceCount("t", "", 6, 60)]
    assert total.refused == {"t": {"oversize": 2}}
    assert total.lanes == [LaneCount("r", "s", "t", "", 6, 0, 0, 4, 2, 0, 0, 0)]
    assert total.exit_code == 1
