"""What a lane has in hand: its counts, the steps that it took, and the pieces of them that go into one write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.batch import LogId
from pipeline.core.items import Part
from pipeline.engine.route import Step


class Tally:
    """Counts of a lane in one log. At every moment: received + carried + derived = the other five, and what waits."""

    __slots__ = ("carried", "delivered", "derived", "discarded", "filtered", "in_hand", "rejected")

    def __init__(self) -> None:
        self.carried = self.derived = self.delivered = self.filtered = self.rejected = self.in_hand = 0
        self.discarded: dict[str, int] = {}


class InHand:
    """A step that the lane took; settled from its beginning on as its slices finish."""

    __slots__ = ("done", "finished", "payloads", "refusing", "step", "taken", "tallies")

    def __init__(self, step: Step, tallies: Sequence[Tally]) -> None:
        self.step = step
        self.tallies = tallies
        """Where what becomes of it is counted."""
        self.payloads = step.payloads
        """The step's, cut out once where single ones are asked for."""
        self.taken = 0
        """Payloads that went into writes."""
        self.done = 0
        """Payloads from the first on that are settled without a hole."""
        self.finished: dict[int, int] = {}
        self.refusing = bool(step.refusals)
        """Whether what the filters refused is still on its way into the dead letter."""

    def slice(self, room_events: int, room_bytes: int, *, first: bool) -> Slice | None:
        """The next payloads that fit; None when they must begin the next write. What stems from one record stays together."""
        step, start = self.step, self.taken
        count = len(step.payloads)
        if start == 0 and count <= room_events and step.size <= room_bytes:
            self.taken = count
            return Slice(self, 0, count, step.size)
        if not first and start == 0:
            return None
        payloads = self.payloads = list(self.payloads) if start == 0 else self.payloads
        offsets = step.offsets
        size = fitting = 0
        end = count
        edge = start
        for index in range(start, count):
            if index == start or offsets is None or offsets[index] != offsets[index - 1]:
                edge, fitting = index, size
            size += len(payloads[index])
            if (index - start >= room_events or size > room_bytes) and (edge > start or not first):
                end, size = edge, fitting
                break
        if end == start:
            return None
        self.taken = end
        return Slice(self, start, end, size)

    def finish(self, start: int, end: int) -> None:
        self.finished[start] = end
        while self.done in self.finished:
            self.done = self.finished.pop(self.done)

    @property
    def complete(self) -> bool:
        return not self.refusing and self.done >= len(self.step.payloads)

    @property
    def position(self) -> int:
        """The sequence number of the first record that is not settled."""
        step = self.step
        return step.batch.first + (step.start if self.refusing else step.offset(self.done))


@dataclass(slots=True)
class Slice:
    """Consecutive payloads of a step that go into one write."""

    hand: InHand
    start: int
    end: int
    size: int
    """Bytes of the payloads."""

    @property
    def log(self) -> LogId:
        return self.hand.step.batch.log

    @property
    def last(self) -> bytes:
        """Its last payload."""
        payloads = self.hand.payloads
        return payloads[self.end - 1 - len(payloads)]  # the very last one by -1: that is cheap in a block

    def part(self) -> Part:
        step, start, end = self.hand.step, self.start, self.end
        payloads = self.hand.payloads
        whole = start == 0 and end == len(payloads)
        batch = step.batch
        return Part(
            payloads if whole else payloads[start:end],
            batch.stream,
            batch.log,
            batch.received_at,
            batch.origin,
            step.values if whole or step.values is None else step.values[start:end],
            self.size,
        )

    def is_changed(self, index: int) -> bool:
        """Whether a filter changed the record that is this payload of the slice, now or before it was replayed."""
        return self.log.changed or self.start + index in self.hand.step.changed
