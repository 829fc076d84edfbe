"""What is remembered of actions, and for how long."""

from typing import Any

import pytest

from pipeline.sinks import intents
from pipeline.sinks.intents import ABANDONED, Intents
from pipeline.testing import FakeClock


class Table:
    """Marks as the engine keeps them; fails when told to."""

    def __init__(self) -> None:
        self.marks: dict[str, Any] = {}
        self.fails = False

    async def commit(self, mark: Any) -> None:
        if self.fails:
            raise OSError("no space")
        for key, value in mark.items():
            if value is None:
                self.marks.pop(key, None)
            else:
                self.marks[key] = value


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def made(table, clock) -> Intents:
    return Intents(table.commit, clock, keep=100.0)


def reopened(table, clock) -> Intents:
    again = Intents(table.commit, clock, keep=100.0)
    again.restore(table.marks)
    return again


async def test_an_intent_is_on_the_disk_before_anything_is_done(made, table, clock):
    """After a crash one that was begun is known and open, one that was finished is done with its result."""
    await made.begin("a")
    made.finish("a", "task-1")
    await made.begin("b")  # takes along what was finished
    again = reopened(table, clock)
    assert "task-1" == again.find("a").result
    assert again.find("b").done is False
    assert again.find("c") is None


async def test_one_that_is_withdrawn_is_gone(made, table, clock):
    """What was not done leaves nothing behind, once committed."""
    await made.begin("a")
    made.withdraw("a")
    assert made.find("a") is None
    await made.commit()
    assert reopened(table, clock).find("a") is None


async def test_a_change_that_could_not_be_committed_is_kept(made, table, clock):
    """When a commit fails the next one has its changes."""
    await made.begin("a")
    made.finish("a", "x")
    table.fails = True
    with pytest.raises(OSError, match="space"):
        await made.commit()
    table.fails = False
    await made.commit()
    assert reopened(table, clock).find("a").done


async def test_finished_ones_are_forgotten_in_time(made, table, clock):
    """They are kept for as long as they were asked to be; open ones far longer."""
    await made.begin("open")
    await made.begin("done")
    made.finish("done", "x")
    clock.advance(99)
    await table.commit(made.changes())
    assert {"open", "done"} == set(table.marks)
    clock.advance(2)
    await table.commit(made.changes())
    assert {"open"} == set(table.marks)
    clock.advance(ABANDONED)
    await table.commit(made.changes())
    assert {} == table.marks


async def test_their_number_is_bounded(made, table, clock, monkeypatch):
    """Of too many finished ones the oldest go, after a restart too."""
    monkeypatch.setattr(intents, "ENTRIES", 3)
    for name in "abcde":
        await made.begin(name)
        made.finish(name, "x")
        clock.advance(1)
        await table.commit(made.changes())
    assert {"c", "d", "e"} == set(table.marks)
    again = reopened(table, clock)
    await again.begin("f")
    again.finish("f", "x")
    await table.commit(again.changes())
    assert {"d", "e", "f"} == set(table.marks)
