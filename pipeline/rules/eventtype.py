"""The type of a record, whatever its stream."""

from __future__ import annotations

from typing import Any

READ = frozenset({("routing", "event_type"), ("etype",)})
"""Where `event_type` reads."""
LOOKED_AT = frozenset({("record",)})
"""Where it looks only whether something is there."""
IMPLIED = "billing_record"
"""The type of records that do not name it."""


def event_type(doc: dict[str, Any]) -> str | None:
    """Return the type of a record of any stream, or None where it has none."""
    routing = doc.get("routing")
    if routing.__class__ is dict:
        found = routing.get("event_type")
    elif "etype" in doc:
        found = doc["etype"]
    else:
        return IMPLIED if doc.get("record").__class__ is dict else None
    return found if found.__class__ is str else None
