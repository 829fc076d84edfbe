"""Who reads, and who has to go, when connections hold too much."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from pipeline.sources import firehose_budget
from pipeline.sources.firehose_budget import Budget


@dataclass(eq=False)
class Peer:
    """A connection with a given load."""

    budget: Budget
    proven: bool = False
    unfinished: int = 0
    finished: int = 0
    sending: bool = False
    dropped: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.budget.join(self)

    @property
    def held(self) -> int:
        return self.unfinished + self.finished

    def flow(self) -> None:
        pass

    def drop(self, reason: str) -> None:
        assert reason == "unfinished"
        self.unfinished = 0
        self.dropped.set()

    def load(self, *, unfinished: int = 0, finished: int = 0) -> None:
        self.unfinished, self.finished = unfinished, finished
        self.budget.change(self)


async def test_the_largest_guest_goes_and_no_more_than_needed():
    """Over the limit, unproven connections are dropped by what they have unfinished, until there is room."""
    budget = Budget(100)
    known = Peer(budget, proven=True)
    guests = [Peer(budget) for _ in range(3)]
    known.load(unfinished=50)
    for guest, size in zip(guests, (10, 30, 20), strict=True):
        guest.load(unfinished=size)
    assert [guest.dropped.is_set() for guest in guests] == [False, True, False]
    assert (budget.total, budget.leader) == (80, None)


async def test_guests_stay_where_their_leaving_makes_no_room():
    """While what waits for the spool fills the limit alone, a small unfinished record is no reason to go."""
    budget = Budget(100)
    known, guest = Peer(budget, proven=True), Peer(budget)
    guest.load(unfinished=10)
    known.load(finished=150)
    assert budget.short
    assert not guest.dropped.is_set()
    known.load(finished=95)
    assert guest.dropped.is_set()
    assert not budget.short


async def test_only_proven_connections_lead():
    """Of those that are known, the one with most unfinished reads alone."""
    budget = Budget(100)
    small, large, guest = Peer(budget, proven=True), Peer(budget, proven=True), Peer(budget)
    guest.load(unfinished=90)
    small.load(unfinished=45)
    assert guest.dropped.is_set()
    large.load(unfinished=60)
    assert budget.leader is large
    large.load(unfinished=70)
    assert budget.leader is large
    large.load()
    assert budget.leader is None


async def test_a_leader_that_does_not_get_on_goes(monkeypatch):
    """A leader has its time; then it is dropped and the next one leads. One that waits for the spool stays."""
    monkeypatch.setattr(firehose_budget, "LEAD", 0.05)
    budget = Budget(100)
    busy, stuck, other = (Peer(budget, proven=True) for _ in range(3))
    busy.sending = True
    busy.load(unfinished=95, finished=1)
    stuck.load(unfinished=80)
    other.load(unfinished=75)
    assert budget.leader is busy
    await asyncio.sleep(0.15)
    assert not busy.dropped.is_set()
    assert budget.leader is busy
    busy.load()
    async with asyncio.timeout(5):
        await stuck.dropped.wait()
    assert not other.dropped.is_set()
    assert not budget.short
    budget.leave(other)
    assert budget.total == 0


@pytest.mark.parametrize("gone", [True, False])
async def test_who_leaves_takes_its_bytes_along(gone):
    """What a connection held is free when it leaves, and nothing is counted for it afterwards."""
    budget = Budget(100)
    peer = Peer(budget, proven=True)
    peer.load(finished=40)
    budget.leave(peer)
    if gone:
        peer.load(finished=70)
        budget.leave(peer)
    assert budget.total == 0
