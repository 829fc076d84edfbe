"""How much the connections of a `firehose` may hold together."""

from __future__ import annotations

import asyncio
from typing import Protocol

LEAD = 30.0
"""Seconds in which a connection that alone may read has to bring its record to an end."""


class Member(Protocol):
    """A connection, as the budget sees it."""

    held: int
    """Bytes that are counted for it; the budget keeps this number."""

    @property
    def unfinished(self) -> int:
        """Bytes that wait for more from its peer."""
        ...

    @property
    def sending(self) -> bool:
        """Whether it waits for the spool."""
        ...

    def flow(self) -> None:
        """Look again whether to read."""
        ...

    def drop(self, reason: str) -> None:
        """Break off."""
        ...


class Budget:
    """Bounds what all connections hold that the spool does not have yet.

    Over the limit only one connection reads, the one that has most unfinished: so its record ends, is sent and gives room.
    One that does not get to its end within `LEAD` seconds is dropped, lest strangers with unfinished records stop all others.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self.leader: Member | None = None
        self._members: set[Member] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def short(self) -> bool:
        return self.total > self.limit

    def join(self, member: Member) -> None:
        self._members.add(member)

    def leave(self, member: Member) -> None:
        self._members.discard(member)
        self.change(member, 0)

    def change(self, member: Member, held: int) -> None:
        """Note that a connection holds this many bytes now."""
        was_short = self.short
        self.total += held - member.held
        member.held = held
        if not self.short:
            if was_short:
                self._lead(None)
        elif self.leader is None or self.leader not in self._members or not self.leader.unfinished:
            self._lead(max(self._members, key=lambda one: one.unfinished, default=None))
        elif not was_short:
            self._flow()

    def _lead(self, member: Member | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.leader = member if member is not None and member.unfinished else None
        if self.leader is not None:
            self._timer = asyncio.get_running_loop().call_later(LEAD, self._expire, self.leader)
        self._flow()

    def _flow(self) -> None:
        for each in self._members:
            each.flow()

    def _expire(self, member: Member) -> None:
        if member.sending:
            # It waits for the spool, not for its peer.
            self._lead(member)
        else:
            member.drop("unfinished")
