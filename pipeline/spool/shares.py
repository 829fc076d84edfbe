"""How several logs share one size: half of it is split evenly among them, half is common.

A log may always use its share, and beyond it as much of the common half as others leave: a full log cannot lock out the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Shares(Generic[Name]):
    """Keeps count of what each log holds, in bytes. A log without a share holds common bytes only."""

    def __init__(self, size: int, sharing: Iterable[Name], others: Iterable[Name] = ()) -> None:
        self.held: dict[Name, int] = dict.fromkeys(others, 0)
        self._sharing = frozenset(sharing)
        self.held.update(dict.fromkeys(self._sharing, 0))
        self.used = 0
        self.resize(size)

    def add(self, name: Name) -> None:
        """Count another log, one without a share."""
        self.held.setdefault(name, 0)

    def resize(self, size: int) -> None:
        """Set how much there is for all."""
        self.size = size
        self.share = size // 2 // max(1, len(self._sharing))
        self._common_used = sum(map(self._beyond, self.held, self.held.values()))

    def charge(self, name: Name, amount: int) -> None:
        """Count bytes that a log takes, or with a negative number gives back."""
        held = self.held[name]
        self.held[name] = held + amount
        self._common_used += self._beyond(name, held + amount) - self._beyond(name, held)
        self.used += amount

    def within_share(self, name: Name, amount: int) -> bool:
        """Whether a log may take this much whatever the others do. The whole is never exceeded."""
        return name in self._sharing and self.held[name] + amount <= self.share and self.used + amount <= self.size

    def fits(self, name: Name, amount: int) -> bool:
        """Whether there is room for this much."""
        held = self.held[name]
        common = self._common_used + self._beyond(name, held + amount) - self._beyond(name, held)
        return common <= self.size // 2 and self.used + amount <= self.size

    def over(self, name: Name) -> int:
        """By how much a log is over its share; less than 0 where it is not."""
        return self.held[name] - (self.share if name in self._sharing else 0)

    def _beyond(self, name: Name, held: int) -> int:
        return max(0, held - self.share) if name in self._sharing else held
