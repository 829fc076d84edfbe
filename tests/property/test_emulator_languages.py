"""What strangers type at the emulator: selectors, queries and command lines are understood or refused, never more."""

import shlex

from hypothesis import given
from hypothesis import strategies as st

from pipeline.emulator.commandline import TaskError, split
from pipeline.emulator.commands import understand
from pipeline.emulator.comparisons import SelectorError
from pipeline.emulator.fleet import Fleet
from pipeline.emulator.lcql import QueryError, parse_query
from pipeline.emulator.roster import Roster
from pipeline.emulator.selector import compile_selector

FLEET = Fleet("8cbe27f4-bfa1-4afb-ba19-138cd51389cd", 7, 12)
ROSTER = Roster(FLEET)

words = st.sampled_from([
    "plat", "tags", "sid", "alive", "windows", "prod", "and", "or", "not", "in", "is", "empty", "nil",
    "contains", "matches", "any", "all", "as", "(", ")", "{", "}", "==", "!=", ",", ".",
    "[", "]", '"x"', "'y'", "`z`", "5", "-1", "*", "|", "/", "exists", "starts", "with",
    "ends", "greater", "than", ">", "<", "event/A", "routing/tags", "LIMIT", "-p", "--pid", "run", "os_version", "#",
    "\\", "'",
])  # fmt: skip
texts = st.one_of(
    st.text(max_size=60), st.lists(words, max_size=14).map(" ".join), st.lists(words, max_size=14).map("".join)
)


@given(texts)
def test_selector(text):
    """Any text takes some of the sensors or is refused as a selector."""
    try:
        taken = ROSTER.matching(compile_selector(text))
    except SelectorError:
        return
    assert set(taken) <= set(ROSTER)


@given(texts)
def test_query(text):
    """Any text is a query that can decide about a record, or is refused."""
    try:
        query = parse_query(f"* | * | {text}")
    except QueryError:
        return
    assert query.holds({"event": {"A": 1}, "routing": {"tags": ["x"]}}) in (True, False)


@given(texts, st.sampled_from(["windows", "linux", "chrome", "okta"]))
def test_task(text, platform):
    """Any text is a task that a sensor can run, or is refused."""
    try:
        task = understand(text, platform, aliases=True)
    except TaskError:
        return
    assert task.notification.endswith("_REQ")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="'\\"), max_size=10), max_size=5))
def test_quoted_words(given_words):
    """Words in single quotes come back as they are, as from a shell."""
    line = " ".join(f"'{word}'" for word in given_words)
    assert split(line) == given_words == shlex.split(line)
