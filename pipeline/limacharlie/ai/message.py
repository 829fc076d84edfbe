"""Messages of a session, and telling one from its repetition."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from pipeline.limacharlie.answers import Doc, text

MEMORY = 65_536
"""Messages that are remembered to recognise their repetition."""
SESSION_END = "session_end"


@dataclass(frozen=True, slots=True)
class Message:
    """A message that the service sent. ``id`` is the same for each repetition of it, over connections and in the history."""

    type: str
    id: str
    timestamp: str
    """RFC 3339; "" where it has none."""
    payload: Doc = field(repr=False)
    raw: bytes = field(repr=False)
    """As it came; of one from a history, written anew."""

    @property
    def text(self) -> str:
        """What it says in words, "" for none: of assistant, user, system, result and the errors."""
        content = self.payload.get("content")
        if isinstance(content, list):
            return "".join(text(block, "text") for block in content if isinstance(block, dict))
        for key in ("text", "summary", "message", "error", "content"):
            if found := text(self.payload, key):
                return found
        return ""


def decode(raw: str | bytes) -> Message | None:
    """Read a frame; None where it is no message."""
    try:
        doc = orjson.loads(raw)
    except ValueError:
        return None
    return parse(doc, raw.encode() if isinstance(raw, str) else raw)


def parse(doc: Any, raw: bytes | None = None) -> Message | None:
    """Read a decoded message; None where it is none."""
    if not isinstance(doc, dict) or not text(doc, "type"):
        return None
    payload = doc.get("payload")
    payload = payload if isinstance(payload, dict) else {}
    kind, at = text(doc, "type"), text(doc, "timestamp")
    # Each connection to a session that has ended is told so anew, with a time of its own.
    told = [kind, text(doc, "session_id")] if kind == SESSION_END else [kind, at, payload]
    try:
        digest = hashlib.blake2b(orjson.dumps(told, option=orjson.OPT_SORT_KEYS), digest_size=16)
        return Message(kind, digest.hexdigest(), at, payload, orjson.dumps(doc) if raw is None else raw)
    except orjson.JSONEncodeError:  # nested deeper than anything that means something
        return None


def unfold(message: Message) -> list[Message]:
    """The messages in a ``history``; any other one is itself."""
    if message.type != "history":
        return [message]
    entries = message.payload.get("messages")
    found = (parse(entry) for entry in entries) if isinstance(entries, list) else ()
    return [entry for entry in found if entry is not None]


class Seen:
    """The ids of the last `MEMORY` messages."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()
        for identity in ids:
            self.add(identity)

    def __contains__(self, identity: str) -> bool:
        return identity in self._ids

    def add(self, identity: str) -> bool:
        """Remember an id; say whether it is new."""
        if identity in self._ids:
            return False
        self._ids[identity] = None
        if len(self._ids) > MEMORY:
            self._ids.popitem(last=False)
        return True
