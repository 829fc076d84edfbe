"""Points in time as people say them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipeline.core.errors import UsageError
from pipeline.limacharlie.times import Period, milliseconds, parse_when

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("now", 0),
        ("24h", 86_400),
        ("-24h", 86_400),
        ("1h30m", 5_400),
        ("1 hour 30 minutes ago", 5_400),
        ("last 24 hours", 86_400),
        ("Last Hour", 3_600),
        ("the past week", 604_800),
        ("previous 2 days", 172_800),
        ("an hour ago", 3_600),
        ("a day ago", 86_400),
        ("1.5h", 5_400),
        ("5 min", 300),
        (timedelta(minutes=5), 300),
    ],
)
def test_what_is_relative_counts_from_the_moment_of_the_call(text, ago):
    """The words of people, the durations of our configuration, the offsets of LCQL."""
    assert parse_when(text, NOW) == NOW - ago


@pytest.mark.parametrize(
    "value",
    [
        1_700_000_000,
        1_700_000_000_000,
        "1700000000",
        "1700000000000",
        "2023-11-14T22:13:20Z",
        "2023-11-14 22:13:20",
        "2023-11-14T23:13:20+01:00",
        datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        datetime(2023, 11, 14, 22, 13, 20),  # noqa: DTZ001 - naive on purpose: it counts as UTC
        datetime(2023, 11, 14, 23, 13, 20, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_one_moment_in_many_ways(value):
    """Seconds, milliseconds, ISO with and without a zone, datetimes: UTC unless said."""
    assert parse_when(value, NOW) == 1_700_000_000.0


@pytest.mark.parametrize(
    "value",
    [
        "",
        "24",
        24,
        0,
        -1,
        True,
        float("nan"),
        float("inf"),
        "yesterday evening",
        "last",
        "last 5",
        "5x",
        "h5",
        "1e99",
        10**30,
    ],
)
def test_what_is_no_time_is_refused_with_a_hint(value):
    """Above all an amount in the place of a time, which would be 1970."""
    with pytest.raises(UsageError, match="last 24 hours"):
        parse_when(value, NOW)


def test_a_start_lies_before_its_end():
    """Else LimaCharlie would answer with nothing, as if there were nothing."""
    with pytest.raises(UsageError, match=r"2027-01-15T07:00:00Z.*not before.*2027-01-15T06:00:00Z"):
        Period.of("1h", "2h", NOW)
    with pytest.raises(UsageError, match="not before"):
        Period.of("now", "now", NOW)


def test_a_period_in_seconds_is_never_narrower():
    """The end rounds up, so that the last fraction of a second is asked for too."""
    period = Period.of(NOW - 10.7, NOW - 0.2, NOW)
    assert period.seconds() == (1_799_999_989, 1_800_000_000)
    assert period.query() == {"start": "1799999989", "end": "1800000000"}


def test_milliseconds_are_whole():
    """As hives want them."""
    assert milliseconds(1_700_000_000.0004) == 1_700_000_000_000
