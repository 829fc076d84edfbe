"""How much the connections of a `firehose` may hold together."""

from __future__ import annotations

import asyncio
from typing import Protocol

LEAD = 30.0
"""Seconds in which a connection that alone may read has to bring its record to an end."""


class Member(Protocol):
    """A connection, as the budget sees it."""

    @property
    def proven(self) -> bool:
        """Whether it is no stranger's."""
        ...

    @property
    def held(self) -> int:
        """Bytes that it holds."""
        ...

    @property
    def unfinished(self) -> int:
        """Bytes of these that wait for more from its peer."""
        ...

    @property
    def sending(self) -> bool:
        """Whether it waits for the spool."""
        ...

    def flow(self) -> None:
        """Look again whether to read."""
        ...

    def drop(self, reason: str) -> None:
        """Break off, and forget at once what is unfinished."""
        ...


class Budget:
    """Bounds what all connections hold that the spool does not have yet.

    Over the limit, connections that may be strangers' are dropped, the one with most unfinished first, for as long as that makes
    the room. Otherwise one proven connection alone reads, the one that has most unfinished: so its record ends, is sent and gives
    room. One that does not get to its end within `LEAD` seconds is dropped.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self.leader: Member | None = None
        self._members: dict[Member, int] = {}
        """What of the total is each member's."""
        self._was_short = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def short(self) -> bool:
        return self.total > self.limit

    def join(self, member: Member) -> None:
        self._members[member] = 0

    def leave(self, member: Member) -> None:
        self.total -= self._members.pop(member, 0)
        self._settle()

    def change(self, member: Member) -> None:
        """Note what a connection holds now."""
        if member in self._members:
            self._count(member)
            self._settle()

    def _count(self, member: Member) -> None:
        held = member.held
        self.total += held - self._members[member]
        self._members[member] = held

    def _settle(self) -> None:
        while self.short and (guest := self._burden()) is not None:
            self._drop(guest)
        was_short, self._was_short = self._was_short, self.short
        if not self.short:
            if was_short:
                self._lead(None)
        elif self.leader is None or self.leader not in self._members or not self.leader.unfinished:
            proven = (one for one in self._members if one.proven)
            self._lead(max(proven, key=lambda one: one.unfinished, default=None))

    def _burden(self) -> Member | None:
        """The unproven connection with most unfinished, where such connections are what the room is short of."""
        guests = [one for one in self._members if not one.proven and one.unfinished]
        if not guests or self.total - sum(one.unfinished for one in guests) > self.limit:
            return None
        return max(guests, key=lambda one: one.unfinished)

    def _drop(self, member: Member) -> None:
        member.drop("unfinished")
        self._count(member)

    def _lead(self, member: Member | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.leader = member if member is not None and member.unfinished else None
        if self.leader is not None:
            self._timer = asyncio.get_running_loop().call_later(LEAD, self._expire, self.leader)
        for each in self._members:
            each.flow()

    def _expire(self, member: Member) -> None:
        if member.sending:
            # It waits for the spool, not for its peer.
            self._lead(member)
        else:
            self._drop(member)
            self._settle()
