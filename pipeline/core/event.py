"""One record inside a route's step: what a filter sees."""

from __future__ import annotations

from typing import Any

import orjson

from pipeline.core.batch import Origin


class Undecodable(ValueError):  # noqa: N818 - reads as a verdict on the record
    """The record is not valid JSON, or not an object; the engine puts it into the dead letter."""


def decode(raw: bytes) -> dict[str, Any]:
    """Return the object that a record is. Raises `Undecodable`."""
    try:
        doc = orjson.loads(raw)
    except ValueError as error:
        raise Undecodable(str(error)) from None
    if doc.__class__ is not dict:
        raise Undecodable("the record is not a JSON object")
    return doc


class Event:
    """A record that passes a route's filters. Lives only for the step; nothing may keep it.

    ``raw`` are the bytes as received and never change. ``doc`` is the decoded object, decoded on first use.
    """

    __slots__ = (
        "_doc",
        "derived",
        "detail",
        "index",
        "org",
        "origin",
        "raw",
        "received_at",
        "rejection",
        "replaced",
        "sequence",
        "stream",
    )

    def __init__(
        self,
        raw: bytes,
        stream: str,
        org: str = "",
        received_at: float = 0.0,
        origin: Origin = "live",
        sequence: int = 0,
        index: int = 0,
    ) -> None:
        self.raw = raw
        self.stream = stream
        self.org = org
        self.received_at = received_at
        self.origin: Origin = origin
        self.sequence = sequence
        """The record's number in its log: stable when the step runs again."""
        self.index = index
        """The record's place in its batch; a derived event carries its parent's."""
        self.derived = False
        self.replaced = False
        self.rejection: str = ""
        """Why it was refused; "" while it was not."""
        self.detail: str = ""
        self._doc: dict[str, Any] | None = None

    @property
    def doc(self) -> dict[str, Any]:
        """The decoded object. Do not change it in place: hand the changed one to `replace`.

        Raises `Undecodable`, which a filter lets pass: the engine rejects the record with the reason.
        """
        doc = self._doc
        if doc is None:
            doc = self._doc = decode(self.raw)
        return doc

    def replace(self, doc: dict[str, Any]) -> Event:
        """Make ``doc`` this event's content; the sinks get it encoded again instead of the raw bytes."""
        self._doc = doc
        self.replaced = True
        return self

    def derive(self, doc: dict[str, Any]) -> Event:
        """Return a new event that stems from this one; it is settled together with it and counted as derived."""
        event = Event(self.raw, self.stream, self.org, self.received_at, self.origin, self.sequence, self.index)
        event.derived = True
        event._doc = doc
        event.replaced = True
        return event

    def reject(self, reason: str, detail: str = "") -> None:
        """Send this event to the dead letter with ``reason`` (a short word from a closed set) and free text."""
        self.rejection = reason or "rejected"
        self.detail = detail

    def release(self) -> None:
        """Let the decoded form go where it can be had again: many decoded records alive at once make decoding slower.

        A filter may call it for an event that it drops.
        """
        if not self.replaced:
            self._doc = None

    def payload(self) -> bytes:
        """The bytes that sinks get: the raw record, or the encoded ``doc`` where a filter replaced it."""
        return orjson.dumps(self._doc) if self.replaced else self.raw
