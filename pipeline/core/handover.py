"""What a listening source gets where several processes share its listener."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from pipeline.core.types import Listen

Presence = Mapping[str | None, int]
"""Organization (None while it is not known) -> open connections."""


class Handover(Protocol):
    """The other end of a listener that another process has bound: it accepts, and hands connections over in turn."""

    address: Listen
    """Where it listens."""
    leads: bool
    """Whether this process does what only one shall do: register the listener, watch for gaps."""

    async def accept(self) -> socket.socket | None:
        """The next connection; None when no more will come."""
        ...

    def tell(self, presence: Presence) -> None:
        """Say which connections this process has now."""
        ...

    def follow(self, changed: Callable[[Presence], None]) -> None:
        """Call ``changed`` with the connections of all processes whenever they change; only where this one leads."""
        ...
