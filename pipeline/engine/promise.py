"""What a route guarantees across a crash, in one sentence."""

from __future__ import annotations

from pipeline.config.model import Config


def promise(config: Config, route: str, *, durable: bool) -> str:
    """For the log, at the start."""
    if durable:
        files = {config.sinks[name].type == "file" for name in config.routes[route].to}
        often = "exactly once" if files == {True} else "at least once"
        often += ", and into files exactly once" if len(files) > 1 else ""
        return f"Across a crash every accepted record is delivered {often}: the spool is on disk."
    return "Across a crash accepted records may be lost, because the spool is in memory; a clean stop delivers them."
