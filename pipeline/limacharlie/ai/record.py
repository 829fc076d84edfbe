"""A session's message as a record: LimaCharlie's own form, so that filters, keys and sinks find what they know."""

from __future__ import annotations

import hashlib
import re
import uuid

import orjson

from pipeline.limacharlie.ai.message import Message
from pipeline.limacharlie.ai.opened import Opened
from pipeline.limacharlie.ai.sessions import SessionInfo
from pipeline.limacharlie.records import parse_time

_OTHER = re.compile(r"[^A-Z0-9_]")
MAX_TYPE = 64


def make_record(message: Message, session: SessionInfo, oid: str) -> bytes:
    """``{"routing": {…}, "session": {…}, "event": the message as it came}``.

    ``routing/event_id`` is the same for each repetition of the message. ``session/detect_id`` and ``session/sink`` are there where
    the sink `ai_session` opened it.
    """
    digest = hashlib.blake2b(f"{session.id}/{message.id}".encode(), digest_size=16).digest()
    routing = {
        "oid": oid,
        "event_type": "AI_" + _OTHER.sub("_", message.type.upper())[:MAX_TYPE],
        "event_id": str(uuid.UUID(bytes=digest)),
    }
    at = parse_time(message.timestamp)
    about = {"id": session.id, "name": session.name}
    opened = Opened.read(session.name)
    if opened is not None:
        about |= {"sink": opened.sink, **({"detect_id": opened.detect_id} if opened.detect_id else {})}
    head = orjson.dumps({"routing": routing if at is None else {**routing, "event_time": at}, "session": about})
    # A line end inside of a JSON text stands between its tokens only.
    raw = message.raw.replace(b"\r", b" ").replace(b"\n", b" ")
    return head[:-1] + b',"event":' + raw + b"}"
