"""How a lane writes: into its sink again and again, into its dead letter what the sink or a filter refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.clock import Clock
from pipeline.core.errors import Partial, Rejected, RetryLater, UnavailableError
from pipeline.core.items import Items, Part
from pipeline.engine.delivery import Left, SinkRunner
from pipeline.engine.in_hand import InHand, Slice
from pipeline.engine.letters import LaneLetters, letter
from pipeline.kit.backoff import Backoff
from pipeline.kit.log import Logger

_Verdicts = Mapping[int, RetryLater | Rejected]
"""Index in a write -> why it is not stored."""


@dataclass(slots=True)
class _Rest:
    """What is not settled yet of a slice."""

    piece: Slice
    part: Part
    places: Sequence[int] | None = None
    """Where in the slice its payloads are; None for all of them."""

    def place(self, index: int) -> int:
        return index if self.places is None else self.places[index]

    def of(self, indices: Sequence[int]) -> _Rest:
        """These payloads of it alone."""
        part = self.part
        payloads, values = list(part.payloads), part.values
        less = Part(
            [payloads[index] for index in indices],
            part.stream,
            part.log,
            part.received_at,
            part.origin,
            [values[index] for index in indices] if values is not None else None,
        )
        return _Rest(self.piece, less, [self.place(index) for index in indices])


@dataclass(slots=True)
class _Refused:
    """Payloads that the sink rejected, and the letters that are to be stored."""

    rest: _Rest
    lines: list[bytes]


class Writing:
    """The writes of one lane, several at a time where the sink allows it."""

    def __init__(
        self,
        lane: str,
        route: str,
        runner: SinkRunner,
        letters: LaneLetters,
        clock: Clock,
        log: Logger,
    ) -> None:
        self.busy_with = ""
        """What it is doing, for who waits for it."""
        self._lane = lane
        self._route = route
        self._runner = runner
        self._letters = letters
        self._clock = clock
        self._log = log

    async def write(self, slices: Sequence[Slice]) -> Mapping[str, Any] | None:
        """Write until each payload is stored or in the dead letter; return the sink's mark.

        Raises `Left` when the lane is told to leave before that; what is settled of the slices counts.
        """
        rest = [_Rest(piece, piece.part()) for piece in slices]
        refused: list[_Refused] = []
        retry, runner = self._runner.config.retry, self._runner
        backoff = Backoff(retry.base, retry.cap)
        attempts, first_attempt, began = 0, self._clock.now(), self._clock.monotonic()
        mark: Mapping[str, Any] | None = None
        try:
            while rest:
                attempts += 1
                count = sum(len(one.part.payloads) for one in rest)
                self.busy_with = f"attempt {attempts} to write {count} items"
                failures: _Verdicts
                try:
                    mark = await runner.write(Items([one.part for one in rest]))
                    failures = {}
                except Partial as partial:
                    failures = self._checked(partial, count)
                except (RetryLater, Rejected) as verdict:
                    failures = dict.fromkeys(range(count), verdict)
                again = next((verdict for verdict in failures.values() if isinstance(verdict, RetryLater)), None)
                if again is None:
                    runner.worked()
                else:
                    runner.failed(again, "The sink did not take a write; it is tried again.")
                    if retry.expires is not None and self._clock.monotonic() - began > retry.expires:
                        failures = _expired(failures)
                        again = None
                rest, refused = self._sort(rest, failures, attempts, first_attempt)
                while refused:
                    await self._bury(refused[0].lines, refused[0].rest.piece.hand)
                    del refused[0]
                if again is not None:
                    self.busy_with = f"waiting to try again: {again}"
                    await runner.pause(runner.wait(again, backoff))
        except Left:
            _finish(slices, [*rest, *(one.rest for one in refused)])
            raise
        finally:
            self.busy_with = ""
        _finish(slices, [])
        return mark

    async def refuse(self, hand: InHand) -> None:
        """Put what filters refused into the dead letter. Raises `Left` when the lane is told to leave before there is room."""
        step, now = hand.step, self._clock.now()
        batch = step.batch
        lines = [
            letter(
                refusal.payload,
                component=refusal.component,
                reason=refusal.reason,
                detail=refusal.detail,
                log=batch.log,
                stream=batch.stream,
                received_at=batch.received_at,
                rejected_at=now,
                origin=batch.origin,
                route=self._route,
                lane=self._lane,
            )
            for refusal in step.refusals
        ]
        await self._bury(lines, hand)

    def _checked(self, partial: Partial, count: int) -> _Verdicts:
        """The verdicts, if they are about items that there are; else the sink is wrong and nothing counts as stored."""
        if all(0 <= index < count for index in partial.failures):
            return partial.failures
        wrong = RetryLater(f"the sink named items that it was not given ({count} were)", where=self._runner.id)
        return dict.fromkeys(range(count), wrong)

    def _sort(
        self, written: Sequence[_Rest], failures: _Verdicts, attempts: int, first_attempt: float
    ) -> tuple[list[_Rest], list[_Refused]]:
        """Count what is stored; return what is to be written again, and what was rejected."""
        later: list[_Rest] = []
        refused: list[_Refused] = []
        base = 0
        for one in written:
            part = one.part
            count = len(part.payloads)
            verdicts = (
                {index - base: failures[index] for index in range(base, base + count) if index in failures}
                if failures
                else {}
            )
            base += count
            payloads = list(part.payloads) if verdicts else part.payloads
            stored = count - len(verdicts)
            for tally in one.piece.hand.tallies:
                tally.delivered += stored
                tally.in_hand -= stored
            self._runner.sent_records += stored
            self._runner.sent_bytes += part.size - sum(len(payloads[index]) for index in verdicts)
            rejected = {index: verdict for index, verdict in verdicts.items() if isinstance(verdict, Rejected)}
            if rejected:
                lines = [
                    self._letter(one, index, payloads[index], verdict, attempts, first_attempt)
                    for index, verdict in rejected.items()
                ]
                refused.append(_Refused(one.of(list(rejected)), lines))
            if len(rejected) < len(verdicts):
                later.append(one.of([index for index in verdicts if index not in rejected]))
        return later, refused

    def _letter(
        self, one: _Rest, index: int, payload: bytes, verdict: Rejected, attempts: int, first_attempt: float
    ) -> bytes:
        part = one.part
        return letter(
            payload,
            component=self._runner.id,
            reason=verdict.reason,
            detail=verdict.detail,
            log=part.log,
            stream=part.stream,
            received_at=part.received_at,
            rejected_at=self._clock.now(),
            origin=part.origin,
            sink=self._runner.id,
            route=self._route,
            lane=self._lane,
            attempts=attempts,
            first_attempt=first_attempt,
            changed=one.piece.is_changed(one.place(index)),
        )

    async def _bury(self, lines: Sequence[bytes], hand: InHand) -> None:
        """Store dead letters, waiting as long as there is no room for them. Raises `Left`."""
        backoff = Backoff(1.0, 10.0)
        while True:
            try:
                await self._letters.put(lines)
            except UnavailableError as error:
                self.busy_with = "waiting for room in the dead letter"
                self._runner.status.error("dead_letter_full")
                self._log.error("The lane waits: its dead letter takes no more.", lane=self._lane, error=str(error))
                await self._runner.pause(backoff.next())
            else:
                self.busy_with = ""
                for tally in hand.tallies:
                    tally.rejected += len(lines)
                    tally.in_hand -= len(lines)
                return


def _expired(failures: _Verdicts) -> _Verdicts:
    return {
        index: Rejected("expired", str(verdict)) if isinstance(verdict, RetryLater) else verdict
        for index, verdict in failures.items()
    }


def _finish(slices: Sequence[Slice], rest: Sequence[_Rest]) -> None:
    """Book what is settled of the slices: all of each, or what comes before the first payload that is not."""
    for piece in slices:
        end = piece.start + min((one.place(0) for one in rest if one.piece is piece), default=piece.end - piece.start)
        if end > piece.start:
            piece.hand.finish(piece.start, end)
