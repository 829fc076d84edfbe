"""Whether the process lives and is ready, and how each component is."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.engine.status import Board

Phase = Literal["starting", "ready", "draining", "stopped"]


class Health:
    """Ready means: listeners are bound and the spool accepts. A degraded component shows, but does not make it unready."""

    def __init__(self, board: Board) -> None:
        self.phase: Phase = "starting"
        self._board = board

    @property
    def ready(self) -> bool:
        return self.phase == "ready"

    def body(self) -> dict[str, Any]:
        """What ``/readyz`` answers."""
        return {
            "status": self.phase,
            "components": [
                {
                    "component": status.component,
                    "kind": status.kind,
                    "org": status.org,
                    "state": status.current,
                    "text": status.text,
                    "code": status.code,
                    "since": status.since,
                }
                for status in self._board
            ],
        }
