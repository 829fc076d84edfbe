"""Makes the records of a stream: endless, realistic, and the same bytes for the same seed."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.emulator.fleet import Fleet
from pipeline.emulator.payloads_detect import Detections, Shape
from pipeline.emulator.payloads_event import Events
from pipeline.emulator.payloads_hostile import hostile
from pipeline.emulator.payloads_platform import Audit, Billing, Deployment
from pipeline.emulator.records import Record

__all__ = ["STREAMS", "Generator", "Record", "hostile"]

STREAMS = ("event", "detect", "audit", "deployment", "billing")


class Generator:
    """The records of one stream of one fleet, on a virtual clock that advances 1000 / ``rate`` milliseconds a record.

    The same fleet, stream, seed, start, rate and shape give the same bytes everywhere, however they are taken. Another
    ``start_ms`` gives other records with other ids, as a later run of the real cloud does. The n-th detection names and holds
    one of the first n records of the event generator with the same fleet, seed, start and rate.

    Raises `ValueError` for an unknown ``stream`` and a ``rate`` (records per second) that is not above 0.
    """

    def __init__(
        self, fleet: Fleet, stream: str, seed: int, start_ms: int, rate: float, *, detect_shape: Shape = "real"
    ) -> None:
        if rate <= 0:
            raise ValueError(f"the rate must be above 0, not {rate}")
        self._make = _maker(fleet, stream, seed, start_ms, detect_shape)
        self._start_ms = start_ms
        self._rate = rate
        self._taken = 0

    def take(self, n: int) -> list[Record]:
        """Return the next ``n`` records."""
        make, start, rate, first = self._make, self._start_ms, self._rate, self._taken
        self._taken += n
        return [make(start + int(number * 1000 / rate)) for number in range(first, first + n)]


def _maker(fleet: Fleet, stream: str, seed: int, start_ms: int, shape: Shape) -> Callable[[int], Record]:
    match stream:
        case "event":
            return Events(fleet, seed, start_ms).make
        case "detect":
            return Detections(fleet, seed, start_ms, shape).make
        case "audit":
            return Audit(fleet, seed, start_ms).make
        case "deployment":
            return Deployment(fleet, seed, start_ms).make
        case "billing":
            return Billing(fleet, seed, start_ms).make
    raise ValueError(f"no stream is called {stream!r}; there are {', '.join(STREAMS)}")
