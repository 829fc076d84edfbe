"""The gap ledger: every interval in which records of a source may be missing, kept across restarts with a disk spool."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal

import orjson

from pipeline.core.batch import LogId
from pipeline.core.clock import Clock
from pipeline.core.spool import Facts, Key

TABLE, HEARD = "gaps", "heard"
"""The spool's tables: number -> gap as JSON; (source, organization) -> until when nothing is missing, in Unix milliseconds."""
SHED = "shed"
"""The reason of a gap that a lane made by giving records up."""
MAX_GAPS = 2000
"""Gaps kept: beyond it the oldest that are filled or given up go, then neighbours become one."""
TOUCHING = 1.0
"""Seconds between two intervals with the same reason that count as one."""

GapState = Literal["open", "closed", "filling", "filled", "given_up"]


@dataclass(slots=True)
class Gap:
    """An interval, in Unix seconds, in which records of a source may be missing."""

    number: int
    source: str
    org: str
    start: float
    end: float | None
    """None while it lasts."""
    reason: str
    state: GapState = "open"
    records: int = 0
    """Records that are known to be missing: the cloud dropped them, or a lane gave them up."""
    wanted: bool = False
    """Whether somebody asked to fill it."""
    rate: float | None = None
    """Records a second that this may bring at most."""
    attempts: int = 0
    """How often filling it was tried."""
    progress: str = ""
    """How far the try came, as the source's history understands it."""
    fetched: int = 0
    """Records that LimaCharlie's history has of the interval and its margins, and that the source would have brought."""
    known: int = 0
    """Those of them that had been received."""
    added: int = 0
    """Those that were put into the spool."""
    text: str = ""
    """Why it could not be filled."""
    counted: list[int] = field(default_factory=lambda: [0, 0, 0])
    """The three counts where ``progress`` is, from which a try that goes on counts."""

    @property
    def log(self) -> LogId:
        return LogId(self.source, self.org)

    def seconds(self, now: float) -> float:
        return max(0.0, (now if self.end is None else self.end) - self.start)

    def dump(self) -> str:
        """As the spool keeps it."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def parse(cls, text: str) -> Gap:
        """Read `dump`; keys of other versions are left out. Raises ValueError and TypeError."""
        doc = orjson.loads(text)
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in doc.items() if name in known})


class GapLedger:
    """Implements `pipeline.engine.committer.Keeper`."""

    def __init__(self, clock: Clock) -> None:
        self.counts: dict[tuple[LogId, str], int] = {}
        """(log, reason) -> gaps that began in this process."""
        self._clock = clock
        self._gaps: dict[int, Gap] = {}
        self._open: dict[LogId, Gap] = {}
        self._seconds: dict[LogId, float] = {}
        """Seconds of the gaps that this process saw end."""
        self._heard: dict[LogId, float] = {}
        self._told: dict[LogId, float] = {}
        """What of ``_heard`` the database does not have."""
        self._changed: set[int] = set()
        self._next = 1

    # --- what happens to sources

    def restore(self, facts: Mapping[str, Mapping[Key, Any]], away: Collection[LogId]) -> None:
        """Take what was committed. Logs of ``away``, which miss what comes while we are not there, miss it since then."""
        for text in facts.get(TABLE, {}).values():
            try:
                gap = Gap.parse(text)
            except (ValueError, TypeError):  # another version's
                continue
            if gap.state == "filling":
                gap.state = "closed"
            if gap.end is None and gap.log not in away:  # nobody is there any more who could say that it is over
                gap.end, gap.state = max(gap.start, self._clock.now()), "closed"
                self._changed.add(gap.number)
            self._gaps[gap.number] = gap
            if gap.end is None:
                self._open[gap.log] = gap
        self._next = max(self._gaps, default=0) + 1
        for (source, org), until in facts.get(HEARD, {}).items():
            self._heard[LogId(str(source), str(org))] = until / 1000
        for log in away:
            if log in self._heard:
                self.opened(log, min(self._heard[log], self._clock.now()), "restart")

    def missed_since(self, log: LogId, when: float) -> None:
        """What was committed of a log is lost; the last that is known of its source is from ``when``."""
        self.heard(log, when)
        self.opened(log, min(when, self._clock.now()), "restart")

    def heard(self, log: LogId, when: float) -> None:
        """Nothing of this log is missing up to ``when`` but for the gaps that are known.

        A time that is still to come is what a clock said that has been set back since: it would hide what is missing until then.
        """
        known = self._heard.get(log, 0.0)
        if when > known or known > self._clock.now():
            self._heard[log] = self._told[log] = when

    def opened(self, log: LogId, start: float, reason: str) -> None:
        """Records may be missing from ``start`` on. Where that is so already, it stays as it was."""
        if log not in self._open:
            self._open[log] = self._add(log, start, None, reason)

    def closed(self, log: LogId) -> Gap | None:
        """Records flow again; returns the gap that ends, if there was one."""
        now = self._clock.now()
        gap = self._open.pop(log, None)
        if gap is not None:
            gap.start = min(gap.start, now)  # where the clock was set back meanwhile
            gap.end, gap.state = now, "closed"
            self._seconds[log] = self._seconds.get(log, 0.0) + gap.seconds(now)
            self.changed(gap)
        return gap

    def interval(self, log: LogId, start: float, end: float, reason: str, records: int = 0) -> Gap:
        """Records may be missing from an interval that is over."""
        end = max(start, end)
        gap = next((one for one in reversed(self._gaps.values()) if one.log == log and one.reason == reason), None)
        if (
            gap is not None
            and gap.end is not None
            and gap.state == "closed"
            and not gap.progress
            and gap.start <= start <= gap.end + TOUCHING
        ):
            self._seconds[log] = self._seconds.get(log, 0.0) + max(0.0, end - max(gap.end, start))
            gap.end = max(gap.end, end)
        else:
            self._seconds[log] = self._seconds.get(log, 0.0) + end - start
            gap = self._add(log, start, end, reason)
            gap.state = "closed"
        gap.records += records
        self.changed(gap)
        return gap

    def stopped(self, log: LogId, when: float) -> None:
        """The source was there until ``when``, and read all that it was sent up to then, unless a gap says otherwise."""
        if log in self._heard and log not in self._open:
            self.heard(log, when)

    # --- what there is

    def __iter__(self) -> Iterator[Gap]:
        return iter(list(self._gaps.values()))

    def get(self, number: int) -> Gap | None:
        return self._gaps.get(number)

    def changed(self, gap: Gap) -> None:
        """Have a gap committed as it is now."""
        if gap.number in self._gaps:
            self._changed.add(gap.number)

    @property
    def lasting(self) -> list[Gap]:
        """The gaps that have not ended."""
        return list(self._open.values())

    def seconds(self) -> Mapping[LogId, float]:
        """Log -> seconds of its gaps that ended in this process or still last, up to now."""
        now = self._clock.now()
        found = dict(self._seconds)
        for log, gap in self._open.items():
            found[log] = found.get(log, 0.0) + gap.seconds(now)
        return found

    def end(self) -> list[Gap]:
        """The process ends: forget the tries of sources that never got through, and return what still lasts."""
        for log, gap in list(self._open.items()):
            if log not in self._heard:
                del self._open[log], self._gaps[gap.number]
                self._changed.add(gap.number)
        return self.lasting

    # --- as the committer sees it

    def take(self) -> Facts:
        changed, self._changed = self._changed, set()
        told, self._told = self._told, {}
        facts: dict[str, dict[Key, str | int | bytes | None]] = {}
        if changed:
            facts[TABLE] = {
                (number,): gap.dump() if (gap := self._gaps.get(number)) is not None else None for number in changed
            }
        if told:
            facts[HEARD] = {(log.source, log.org): int(when * 1000) for log, when in told.items()}
        return facts

    def give_back(self, facts: Facts) -> None:
        self._changed |= {int(number) for (number,) in facts.get(TABLE, {})}
        logs = [LogId(str(source), str(org)) for source, org in facts.get(HEARD, {})]
        self._told = {log: self._heard[log] for log in logs} | self._told

    # --- the rest is our own

    def _add(self, log: LogId, start: float, end: float | None, reason: str) -> Gap:
        gap = Gap(self._next, log.source, log.org, start, end, reason)
        self._next += 1
        self._gaps[gap.number] = gap
        self.counts[log, reason] = self.counts.get((log, reason), 0) + 1
        self.changed(gap)
        while len(self._gaps) > MAX_GAPS and self._make_room():
            pass
        return gap

    def _make_room(self) -> bool:
        done = next((one for one in self._gaps.values() if one.state in ("filled", "given_up")), None)
        if done is not None:
            self._remove(done)
            return True
        by_log: dict[LogId, list[Gap]] = {}
        for gap in self._gaps.values():
            if gap.state == "closed":
                by_log.setdefault(gap.log, []).append(gap)
        longest: list[Gap] = []
        for gaps in by_log.values():
            longest = gaps if len(gaps) > len(longest) else longest
        most = sorted(longest, key=lambda gap: gap.start)
        if len(most) < 2:
            return False
        first, second = min(pairwise(most), key=lambda pair: (pair[1].end or 0.0) - pair[0].start)
        first.end = max(first.end or 0.0, second.end or 0.0)
        first.records += second.records
        first.wanted = first.wanted or second.wanted
        first.progress = ""
        self.changed(first)
        self._remove(second)
        return True

    def _remove(self, gap: Gap) -> None:
        del self._gaps[gap.number]
        self._changed.add(gap.number)
