"""How a session that the sink `ai_session` opened tells so: by the end of its name, which every list of sessions shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from pipeline.limacharlie.ai.sessions import OrgSessions
from pipeline.limacharlie.records import parse_time

MAX_NAME = 80
"""Characters of the part that people read."""
_WORD = r"[A-Za-z0-9._-]{1,128}"
_END = re.compile(rf"\[lc-pipeline ({_WORD}) ({_WORD}) ([0-9a-f]{{32}})\]$")
NONE = "-"
CLOCKS = 300.0
"""Seconds by which our clock and LimaCharlie's may differ."""
LISTED = 1000
"""Sessions that are looked through for one."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Why a session was opened."""

    sink: str
    """The sink's name in the configuration."""
    key: str
    """32 hexadecimal digits that name the record, the same whenever it comes."""
    detect_id: str | None = None
    """The detection that it is about."""

    def name(self, title: str) -> str:
        """A session's name with this at its end. Raises ValueError for a sink or a detection whose name would not be read again."""
        text = f"{title[:MAX_NAME].strip()} [lc-pipeline {self.sink} {self.detect_id or NONE} {self.key}]".strip()
        if self.read(text) != self:
            raise ValueError("a sink's and a detection's name are letters, digits and ._-")
        return text

    @property
    def idempotent_key(self) -> str:
        return f"lc-pipeline/{self.sink}/{self.key}"

    @classmethod
    def read(cls, name: str) -> Self | None:
        """Read a session's name; None where no sink of ours wrote it."""
        found = _END.search(name)
        return None if found is None else cls(found[1], found[3], None if found[2] == NONE else found[2])

    async def find(self, sessions: OrgSessions, since: float) -> str | None:
        """The id of the session that was opened for this, at ``since`` (Unix seconds) or later; None where none is listed."""
        async for info in sessions.list(limit=LISTED):
            told = self.read(info.name)
            if told is not None and (told.sink, told.key) == (self.sink, self.key):
                return info.id
            if info.doc.get("idempotent_key") == self.idempotent_key:
                return info.id
            if (parse_time(info.created_at) or since * 1000) < (since - CLOCKS) * 1000:
                break
        return None
