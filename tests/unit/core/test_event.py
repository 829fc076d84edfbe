"""One record inside a step."""

import pytest

from pipeline.core.batch import Batch, LogId, Receipt
from pipeline.core.errors import Partial, Rejected, RetryLater
from pipeline.core.event import Event, Undecodable


def test_untouched_leaves_as_it_came():
    """A record that was only looked at keeps its bytes, spaces and doubled keys included."""
    raw = b'{ "a" : 1, "a": 2 }'
    event = Event(raw, "event")
    assert event.doc == {"a": 2}
    assert event.payload() is raw


def test_replace():
    """A replaced event is encoded again; raw stays."""
    event = Event(b'{"a":1}', "event")
    assert event.replace({"b": 2}) is event
    assert (event.payload(), event.raw) == (b'{"b":2}', b'{"a":1}')


def test_derive():
    """A derived event has its parent's place and facts, and content of its own."""
    parent = Event(b"{}", "detect", "acme", 5.0, "replay", 17, 3)
    child = parent.derive({"n": 1})
    assert child.derived
    assert child.payload() == b'{"n":1}'
    facts = ("stream", "org", "received_at", "origin", "sequence", "index")
    assert [getattr(child, name) for name in facts] == [getattr(parent, name) for name in facts]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"text"', b"1", b"null", b'{"a":NaN}', b'{"a":"\xff"}', b"{}{}"])
def test_undecodable(raw):
    """What is no JSON object has no doc."""
    with pytest.raises(Undecodable):
        _ = Event(raw, "event").doc


def test_deep_nesting_is_undecodable():
    """Nesting that no decoder takes is a fault of the record, not of ours."""
    with pytest.raises(Undecodable):
        _ = Event(b'{"a":' * 5000 + b"1" + b"}" * 5000, "event").doc


def test_a_rejection_has_a_reason():
    """An event that was refused without a reason is refused all the same."""
    event = Event(b"{}", "event")
    event.reject("")
    assert event.rejection


def test_a_batch_knows_its_size_and_end():
    """A batch counts its bytes, and has its place when the spool gave it one."""
    batch = Batch([b"ab", b"c"], LogId("tap", "acme"), "event", 0.0)
    assert (batch.size, batch.org, batch.first) == (3, "acme", -1)
    batch.first = 7
    assert batch.end == 9


async def test_a_receipt_of_nothing_is_settled():
    """Who sent nothing waits for nothing."""
    await Receipt().settled()


def test_a_partial_of_other_errors_means_retry():
    """An exception that a sink passes on inside `Partial` as it is does not lose its item."""
    failures = Partial({0: ValueError("odd"), 1: Rejected("size")}).failures  # type: ignore[dict-item]
    assert isinstance(failures[0], RetryLater)
    assert isinstance(failures[1], Rejected)
