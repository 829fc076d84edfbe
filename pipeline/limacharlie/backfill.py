"""Fetches from LimaCharlie's history what a source would have brought in an interval."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.core.config import Field, Section
from pipeline.core.errors import NotFoundError, UnavailableError
from pipeline.core.source import Past
from pipeline.core.types import Duration
from pipeline.limacharlie import records
from pipeline.limacharlie.answers import Doc

if TYPE_CHECKING:  # it imports an HTTP client
    from pipeline.limacharlie.client import LimaCharlie

STREAMS = ("event", "detect", "audit")
"""Streams of which LimaCharlie keeps a history."""
LISTS = ("event_white_list", "event_black_list", "cat_white_list", "cat_black_list", "tag_black_list")
"""Options of an Output that choose among records by what the records themselves say."""
ASLEEP = 7 * 86400.0
"""A sensor that was last heard of this many seconds before an interval is not asked for its events: nothing says how exact that is."""

MAX_SENSORS = 2_000_000
"""Sensors of an organization at most; a longer list has no end."""


class BackfillConfig(Section):
    """Fetches what was missed from LimaCharlie's history."""

    delay: Duration = Field(300.0, ge=0)
    """How long after a gap has ended it is fetched: the history has records some time after they were streamed."""
    margin: Duration = Field(60.0, ge=0)
    """How much more than the gap is fetched before and after it; what is known already is dropped."""


Backfill = bool | BackfillConfig


def backfill_config(value: Backfill) -> BackfillConfig:
    """The settings of a source's `backfill`; the defaults where it is only true, or off."""
    return value if isinstance(value, BackfillConfig) else BackfillConfig()


def check_backfill(value: Backfill, *, stream: str, text: bool, options: Mapping[str, Any]) -> Backfill:
    """Raises ValueError where the history cannot give what such a source brings."""
    if value is False:
        return value
    if stream not in STREAMS:
        raise ValueError(f"LimaCharlie keeps no history of the stream {stream!r}; it does of {', '.join(STREAMS)}")
    if text:
        raise ValueError("what the history has is JSON, and this source takes lines of any form")
    if strange := sorted(
        name for name, given in options.items() if given not in (None, "", False) and name not in LISTS
    ):
        raise ValueError(
            f"the history knows nothing of the option {', '.join(strange)}, so it would bring other records"
        )
    return value


class Selection:
    """The filters of a source, applied to what the history has."""

    def __init__(
        self,
        stream: str,
        *,
        tag: str | None = None,
        cat: str | None = None,
        sid: str | None = None,
        inv_id: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        lists = {name: _names((options or {}).get(name)) for name in LISTS}
        self.stream = stream
        self.sid = sid
        self.cats = lists["cat_white_list"] | _names(cat)
        self.types = lists["event_white_list"]
        self._tests: list[Callable[[Doc], bool]] = []
        add = self._tests.append
        if tag:
            add(lambda doc: tag in _tags(doc))
        if unwanted_tags := lists["tag_black_list"]:
            add(lambda doc: unwanted_tags.isdisjoint(_tags(doc)))
        if self.cats:
            add(lambda doc: doc.get("cat") in self.cats)
        if unwanted_cats := lists["cat_black_list"]:
            add(lambda doc: doc.get("cat") not in unwanted_cats)
        if self.types:
            add(lambda doc: records.event_type(doc) in self.types)
        if unwanted_types := lists["event_black_list"]:
            add(lambda doc: records.event_type(doc) not in unwanted_types)
        if sid:
            add(lambda doc: records.routing(doc).get("sid", doc.get("sid")) == sid)
        if inv_id:
            add(lambda doc: str(records.routing(doc).get("investigation_id", "")).partition("/")[0] == inv_id)

    def choose(self, raws: list[bytes]) -> list[bytes]:
        """The records that the source would have brought."""
        if not self._tests:
            return raws
        return [raw for raw in raws if self._passes(orjson.loads(raw))]

    def _passes(self, doc: Any) -> bool:
        return isinstance(doc, dict) and all(test(doc) for test in self._tests)


async def fetch(
    account: LimaCharlie, selection: Selection, start: float, end: float, progress: str
) -> AsyncIterator[Past]:
    """Yield what the history has of an interval (Unix seconds), sensor by sensor where it is kept so.

    ``progress`` goes on where an earlier walk came to. Raises a `PipelineError`.
    """
    history = account.history
    if selection.stream == "detect":
        category = next(iter(selection.cats)) if len(selection.cats) == 1 else None
        async for page in history.raw_detections(start, end, category=category):
            yield Past(selection.choose(page), "")
        return
    if selection.stream == "audit":
        async for page in history.raw_audit(start, end):
            yield Past(selection.choose(page), "")
        return
    kind = next(iter(selection.types)) if len(selection.types) == 1 else None
    for sid in await _sensors(account, selection, start):
        if sid <= progress:
            continue
        try:
            async for page in history.raw_events(sid, start, end, event_type=kind):
                yield Past(selection.choose(page), "")
        except NotFoundError:  # deleted meanwhile, and its history with it
            pass
        yield Past([], sid)


async def _sensors(account: LimaCharlie, selection: Selection, start: float) -> list[str]:
    """The sensors that may have had events since ``start``, in a fixed order."""
    if selection.sid:
        return [selection.sid.lower()]
    found: set[str] = set()
    count = 0
    async for sensor in account.sensors.list():
        count += 1
        if count > MAX_SENSORS:
            raise UnavailableError(f"LimaCharlie's list of sensors does not end: {count} came.")
        if sensor.online or sensor.alive_at is None or sensor.alive_at >= start - ASLEEP:
            found.add(sensor.sid.lower())
    return sorted(found)


def _names(value: Any) -> frozenset[str]:
    """The names of a list, or of a text with one in each line."""
    found = value.splitlines() if isinstance(value, str) else value if isinstance(value, list) else []
    return frozenset(str(name).strip() for name in found if str(name).strip())


def _tags(doc: Doc) -> frozenset[str]:
    tags = records.routing(doc).get("tags")
    return frozenset(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else frozenset()
