"""What a record asks of the sink `ai_session`: a session about what, under which name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

import orjson

from pipeline.core.errors import Rejected
from pipeline.core.event import Undecodable, decode
from pipeline.core.items import Item
from pipeline.core.types import RecordPath
from pipeline.limacharlie import records
from pipeline.limacharlie.ai.opened import Opened
from pipeline.limacharlie.ai.prompt import Subject

DEBOUNCE = "/debounce/"
"""What the keys of intents begin with that name what a record is about; those of a record begin with its organization."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Case:
    """A record that a session is to be opened about."""

    opened: Opened
    subject: Subject
    detect_id: str | None
    received_at: float
    debounce: str = ""
    """The same for all records about the same thing; "" where nobody asks."""

    @classmethod
    def of(cls, item: Item, sink: str, detection: RecordPath, by: Sequence[RecordPath]) -> Self:
        """What an item asks of a sink. Raises `Rejected`.

        ``detection``: where a record names the detection that it is about; ``by``: what records about the same thing share.
        """
        try:
            doc = decode(item.payload)
        except Undecodable as error:
            raise Rejected("undecodable", str(error)) from None
        if "session" in doc and str(records.event_type(doc)).startswith("AI_"):
            raise Rejected("own_transcript", "a session about what a session said would lead to the next one")
        is_detection = records.is_detection(doc)
        detect_id = records.detect_id(doc) if is_detection else detection.text(doc)
        detect_id = detect_id if detect_id and _ID.fullmatch(detect_id) else None
        name = f"{item.stream}\0{records.dedupe_id(doc, item.stream)}"
        if records.unique_id(doc) is None:
            name = f"{item.stream}\0{blake2b(item.payload).hexdigest()}"
        key = blake2b(name.encode("utf-8", "replace"), digest_size=16, person=b"ai_session").hexdigest()
        subject = Subject(doc, item.payload, item.stream, item.org, item.payload if is_detection else None)
        return cls(Opened(sink, key, detect_id), subject, detect_id, item.received_at, _debounce(item, doc, by))

    def shown(self) -> dict[str, str | None]:
        """For a log line."""
        return {"key": self.opened.key, "detection": self.detect_id}


def _debounce(item: Item, doc: dict[str, Any], by: Sequence[RecordPath]) -> str:
    if not by:
        return ""
    values = orjson.dumps([item.org, *(path.text(doc) for path in by)])
    return DEBOUNCE + blake2b(values, digest_size=16).hexdigest()
