"""Keeps what sensors answer to tasks, and says to which request each answer belongs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field as Limits
from pydantic import StringConstraints

from pipeline.core.config import FilterConfig
from pipeline.core.event import Event, Undecodable
from pipeline.core.filter import Filter

Context = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]{1,200}$")]


class ResponsesConfig(FilterConfig):
    """Keep the answers to tasks: `RECEIPT` and `*_REP` events whose `routing/investigation_id` is the context, or `CONTEXT/…`.

    The sink `reliable_task` names its tasks `CONTEXT/ID`, where the id is that of the record it acted on: a detection's `detect_id`,
    else the event's id, else a hash. Each answer gets these under the key `request`, so that it can be joined to that record:
    `{"context": "CONTEXT", "id": "ID"}`.
    """

    type: Literal["responses"] = "responses"
    """Which component this is."""
    context: Context | Annotated[list[Context], Limits(min_length=1)]
    """The context of the tasks, as the sink's `context` or `task send --context` has it; or several."""
    join: Annotated[str, StringConstraints(min_length=1)] | None = "request"
    """The key of the record under which the request is named; null leaves the record as it came."""
    also: tuple[str, ...] = ()
    """Further event types that count as answers, such as `YARA_DETECTION`, `HIDDEN_MODULE_DETECTED`, `CLOUD_NOTIFICATION`."""

    @property
    def contexts(self) -> list[str]:
        return [self.context] if isinstance(self.context, str) else self.context


class Responses(Filter[ResponsesConfig]):
    """Reasons of rejection: ``invalid_json``, ``key_taken``."""

    def apply(self, events: Sequence[Event]) -> Sequence[Event]:
        # The bytes that a context has in JSON, unless something in the record is written as an escape.
        needles = [*(context.encode() for context in self.config.contexts), b"\\"]
        kept = []
        for event in events:
            if not any(needle in event.raw for needle in needles) and not event.replaced:
                continue
            try:
                request = self._request(event.doc)
            except Undecodable as error:
                event.reject("invalid_json", str(error))
                continue
            if request is None:
                event.release()
            else:
                kept.append(self._join(event, request))
        return kept

    def _request(self, doc: dict[str, Any]) -> dict[str, str] | None:
        """What the event answers, or None where it answers none of ours."""
        routing = doc.get("routing")
        if routing.__class__ is not dict:
            return None
        kind, investigation = routing.get("event_type"), routing.get("investigation_id")
        if kind.__class__ is not str or investigation.__class__ is not str:
            return None
        if kind != "RECEIPT" and not kind.endswith("_REP") and kind not in self.config.also:
            return None
        for context in self.config.contexts:
            if investigation == context:
                return {"context": context}
            if investigation.startswith(f"{context}/"):
                return {"context": context, "id": investigation[len(context) + 1 :]}
        return None

    def _join(self, event: Event, request: dict[str, str]) -> Event:
        key = self.config.join
        if key is None:
            return event
        if key in event.doc:
            event.reject("key_taken", f"the record has a key {key} of its own")
            return event
        return event.replace({**event.doc, key: request})
