"""What a sink that acts meant to do and did, kept in its marks, so that a crash makes it do nothing twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pipeline.core.clock import Clock
from pipeline.core.sink import Mark

ENTRIES = 10_000
"""Finished intents that are remembered at most."""
ABANDONED = 30 * 86400.0
"""Seconds after which an open intent is forgotten: its record never came back."""
_AT_ONCE = 200
"""Intents that one mark forgets at most; a mark is small."""


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing to be done."""

    at: float
    """When it was begun (Unix seconds)."""
    result: str | None = None
    """What came of it, in a word of the sink's own; None while that is not known."""

    @property
    def done(self) -> bool:
        return self.result is not None


class Intents:
    """Begin one before acting, then `finish` it, or `withdraw` it where nothing was done for sure.

    One that `find` still shows open was cut off by a crash or failed in a way that leaves its outcome unknown: look it up before
    acting again. A finished one keeps a second copy of its record from acting, for ``keep`` seconds.
    """

    def __init__(self, commit: Callable[[Mark], Awaitable[None]], clock: Clock, *, keep: float) -> None:
        self._commit = commit
        self._clock = clock
        self._keep = keep
        self._known: dict[str, Intent] = {}  # the oldest first
        self._changes: dict[str, Any] = {}

    def restore(self, marks: Mapping[str, Any]) -> None:
        """Take over what the sink was opened with."""
        found = {key: Intent(float(mark["at"]), mark.get("result")) for key, mark in marks.items()}
        self._known = dict(sorted(found.items(), key=lambda entry: entry[1].at))
        self._changes = {}

    def find(self, key: str) -> Intent | None:
        return self._known.get(key)

    async def begin(self, key: str) -> None:
        """Put the intent on the disk, with all that was finished or withdrawn since the last time. Raises what committing does."""
        self._set(key, Intent(self._clock.now()))
        await self.commit()

    def finish(self, key: str, result: str) -> None:
        """It is done; `changes` or the next commit has it."""
        self._set(key, Intent(self._clock.now(), result))

    def withdraw(self, key: str) -> None:
        """It was not done."""
        self._known.pop(key, None)
        self._changes[key] = None

    async def commit(self) -> None:
        """Put all changes on the disk now."""
        changes, self._changes = self._changes, {}
        try:
            if changes:
                await self._commit(changes)
        except BaseException:
            self._changes = changes | self._changes
            raise

    def changes(self) -> Mark:
        """The changes that are not committed, as the mark that a write returns; forgets what is old."""
        for key in list(islice(self._expired(), _AT_ONCE)):
            self.withdraw(key)
        changes, self._changes = self._changes, {}
        return changes

    def _set(self, key: str, intent: Intent) -> None:
        self._known.pop(key, None)
        self._known[key] = intent
        self._changes[key] = {"at": intent.at, "result": intent.result} if intent.done else {"at": intent.at}

    def _expired(self) -> Iterator[str]:
        now = self._clock.now()
        excess = len(self._known) - ENTRIES
        for key, intent in self._known.items():
            if (intent.done and (excess > 0 or intent.at < now - self._keep)) or intent.at < now - ABANDONED:
                excess -= 1
                yield key
            elif intent.done:
                return  # those behind it are younger
