"""Sensor selectors."""

import pytest

from pipeline.emulator.comparisons import SelectorError
from pipeline.emulator.fleet import Fleet
from pipeline.emulator.roster import Roster
from pipeline.emulator.selector import compile_selector

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"


@pytest.fixture(scope="module")
def roster() -> Roster:
    return Roster(Fleet(OID, 7, 12))


def taken(roster: Roster, selector: str) -> set[str]:
    return {station.sensor.hostname for station in roster.matching(compile_selector(selector))}


@pytest.mark.parametrize(
    "selector", ["", "*", " * ", "alive != 5", "tags is not empty", "isolated == false", "hostname is not nil"]
)
def test_all(roster, selector):
    """An empty selector, a star, and what is true of each sensor take all."""
    assert len(taken(roster, selector)) == 12


@pytest.mark.parametrize(
    "selector",
    [
        "plat == windows",
        "plat==windows",
        "plat == `windows`",
        'plat == "windows"',
        "plat=='windows'",
        '"/plat" == windows',
        "(plat == windows)",
        "windows in tags",
        "`windows` in tags",
        "tags contains windows",
        "not windows not in tags",
        "any tags as tag { tag == windows }",
        "any tags as _, tag { tag == windows }",
        "plat matches `^wind`",
        "plat contains indow",
        "plat == windows and arch == x64",
        "plat == windows and (isolated == false or evil in tags)",
        "plat == windows or plat == windows and nothing in tags",
        "not (plat == linux or plat == macos or plat == chrome or plat == okta or plat == office365)",
    ],
)
def test_windows(roster, selector):
    """Each of these is another way to say: the sensors on Windows."""
    expected = {station.sensor.hostname for station in roster if station.sensor.platform == "windows"}
    assert expected == taken(roster, selector)
    assert len(expected) == 4


@pytest.mark.parametrize("quoted", ["'{}'", '"{}"', "`{}`"])
def test_one_sensor(roster, quoted):
    """A sid in quotes names one sensor."""
    station = next(iter(roster))
    assert {station.sensor.hostname} == taken(roster, f"sid == {quoted.format(station.sid)}")


def test_and_binds_tighter(roster):
    """`and` binds tighter than `or`, so the right side alone can decide."""
    assert taken(roster, "plat == linux or plat == windows and nope in tags") == taken(roster, "plat == linux")


def test_all_of_a_list(roster):
    """`all` holds when every element does, and tells the index first when it has two names."""
    for station in roster:
        station.add_tag("zzz", "me", None)
    assert taken(roster, "all tags as t { t != nothing }") == taken(roster, "*")
    assert taken(roster, "all tags as number, t { number != 0 or t == windows }") == taken(roster, "plat == windows")


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ("sid == 17830ae0-2953-44f2-a7fb-6326d502dea1", "must be in quotes"),
        ("plat == 1password", "must be in quotes"),
        ("foo == 1", "unknown field foo"),
        ("plat ==", "expected a value"),
        ("plat == windows and", "expected"),
        ("(plat == windows", "missing )"),
        ("plat == windows windows", "unexpected text"),
        ("tags == prod", "a list cannot be compared"),
        ("alive == soon", "is not a number"),
        ("isolated == maybe", "not true or false"),
        ("hostname matches `(`", "not a regular expression"),
        ("nonsense", "expected an operator"),
        ("any plat as p { p == x }", "need a list"),
        ("alive contains 5", "a list or a text"),
        ("plat < windows", "expected an operator"),
        ("(" * 100, "levels deep"),
        ("not " * 5000, "characters"),
    ],
)
def test_refused(roster, selector, said):
    """What is no selector, or compares what cannot be compared, is refused with the reason."""
    with pytest.raises(SelectorError, match=said.replace("(", r"\(").replace(")", r"\)")):
        taken(roster, selector)
