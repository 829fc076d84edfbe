from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.core.event import Event
from pipeline.filters.sample import Sample, SampleConfig


def test_without_key_every_nth_record(kept):
    """Records are chosen by their sequence number, exactly one in N."""
    assert kept(Sample, SampleConfig(rate=3), [{}] * 8) == [0, 3, 6]


def test_rate_one_keeps_all(kept):
    """One in one is every record."""
    assert kept(Sample, SampleConfig(rate=1, key="a"), [{"a": 1}, {"a": 2}, {}]) == [0, 1, 2]


def test_without_key_nothing_is_decoded(kept):
    """A damaged record is no obstacle where only the place decides."""
    assert kept(Sample, SampleConfig(rate=2), [b"{damaged}", b"{damaged}"]) == [0]


def test_batches_do_not_matter(context, events):
    """The choice is the same when the same records come in other batches."""
    batch = events([{"sid": f"s{number % 7}"} for number in range(50)])
    for config in (SampleConfig(rate=4), SampleConfig(rate=4, key="sid")):
        sample = Sample(config, context)
        whole = [event.sequence for event in sample.apply(batch)]
        parts = [event.sequence for at in range(0, 50, 9) for event in sample.apply(batch[at : at + 9])]
        assert whole == parts


def test_key_keeps_together_what_belongs_together(kept):
    """All records with one value share one fate, and about one value in N is kept."""
    records = [{"routing": {"sid": f"sensor-{number % 1000}"}} for number in range(3000)]
    numbers = kept(Sample, SampleConfig(rate=10, key="routing/sid"), records)
    values = {number % 1000 for number in numbers}
    assert len(numbers) == 3 * len(values)
    assert 60 <= len(values) <= 140


def test_choice_is_the_same_everywhere(kept):
    """The values that are kept are fixed by their text alone, as CRC-32 of it."""
    names = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"]
    assert kept(Sample, SampleConfig(rate=2, key="name"), [{"name": name} for name in names]) == [0, 2, 4, 5]


def test_record_without_the_key_is_chosen_by_its_place(kept):
    """A record that lacks the key, or has an object there, is neither always kept nor always dropped."""
    records = [{}, {}, {"a": {}}, {"a": None}]
    assert kept(Sample, SampleConfig(rate=2, key="a"), records) == [0, 2]


def test_derived_record_goes_with_its_parent(context):
    """A record that a filter derived is chosen as its parent is."""
    parent = Event(b"{}", "event", sequence=4)
    assert len(Sample(SampleConfig(rate=2), context).apply([parent, parent.derive({"a": 1})])) == 2


def test_undecodable_record_is_rejected(context, events):
    """With a key, a record that is not JSON is refused with its reason."""
    batch = events([b"{damaged}"])
    assert list(Sample(SampleConfig(rate=1, key="a"), context).apply(batch)) == []
    assert batch[0].rejection == "invalid_json"


@pytest.mark.parametrize("keys", [{}, {"rate": 0}, {"rate": 2, "key": "a/?"}, {"rate": 2, "key": ""}])
def test_config_mistakes(keys):
    """A rate of at least 1 is asked for, and a key without wildcards."""
    with pytest.raises(ValidationError):
        SampleConfig.model_validate({"type": "sample", **keys})
