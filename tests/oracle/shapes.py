"""The configurations that the oracle tries."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accounts import STREAMS
from world import Cloud


@dataclass(frozen=True)
class Shape:
    """What a pipeline is like. Each has a route `all` to a file, Kafka and a sink with moods."""

    name: str
    spool: str
    """Its size."""
    sync: str = "full"
    own_disk: bool = False
    """Its folder is a small disk, which can be full."""
    sheds: bool = False
    """A second route, `loose`, gives its oldest records up when the spool is full (`on_full: drop_oldest`)."""
    copies: bool = False
    """Records come twice, and a second route, `once`, has a `dedupe`."""
    fills: bool = False
    """Records come twice, `all` has a `dedupe`, and the sources fill their gaps from the history (`backfill`)."""

    @property
    def lanes(self) -> list[str]:
        extra = ["loose/scrap"] if self.sheds else ["once/unique", "once/fancy"] if self.copies else []
        return ["all/archive", "all/lake", "all/moody", *extra]


SHAPES = (
    Shape("plain", "1MiB"),
    Shape("drop_oldest", "1MiB", own_disk=True, sheds=True),
    Shape("dedupe", "8MiB", sync="normal", copies=True),
    Shape("backfill", "8MiB", own_disk=True, fills=True),
)
"""Pipeline number n has shape n, over and over."""
MARGIN = 30.0
"""Seconds around a gap that are fetched as well: more than a record is ever on its way here, on a machine with other work."""
RETRY = {"base": "20ms", "cap": "200ms"}
BATCH = {"max_wait": "50ms"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def moody(folder: Path, name: str) -> dict[str, Any]:
    place = {"folder": str(folder / name), "control": str(folder / f"{name}.control")}
    return {"type": "moody", **place, "retry": RETRY, "batch": BATCH, "timeout": "700ms"}


def write(file: Path, shape: Shape, folder: Path, cloud: Cloud, org: dict[str, str], kafka: dict[str, str]) -> int:
    """Write the configuration of a pipeline with its data in ``folder``; returns the port of its metrics."""
    ready, admin, listen = cloud.ready, free_port(), f"127.0.0.1:{free_port()}"
    wait = {"base": "50ms", "cap": "200ms", "refused_base": "100ms", "refused_cap": "300ms"}
    files = {"type": "file", "retry": RETRY, "batch": BATCH}
    sinks = {
        "archive": {**files, "path": f"{folder}/archive/{{stream}}.jsonl"},
        "lake": {"type": "kafka", **kafka, "retry": RETRY, "batch": BATCH},
        "moody": moody(folder, "moody"),
    }
    # longer than the clock jumps, and as much as a quarter of the spool has room for
    dedupe = {"window": "30d", "entries": 60_000}
    routes: dict[str, Any] = {
        "all": {"from": list(STREAMS), "to": list(sinks), "dedupe": dedupe if shape.fills else False}
    }
    if shape.sheds:
        sinks["scrap"] = moody(folder, "scrap")
        routes["loose"] = {"from": list(STREAMS), "to": "scrap", "on_full": "drop_oldest"}
    if shape.copies:
        sinks["unique"] = {**files, "path": f"{folder}/unique/{{stream}}.jsonl"}
        sinks["fancy"] = moody(folder, "fancy")
        routes["once"] = {"from": list(STREAMS), "to": ["unique", "fancy"], "dedupe": dedupe}
    source = {"max_record": "200KiB", "backfill": {"delay": "0s", "margin": f"{MARGIN}s"} if shape.fills else False}
    config = {
        "admin": {"listen": f"127.0.0.1:{admin}"},
        "limacharlie": {
            "url": ready["url"], "oid": org["oid"], "api_key": org["api_key"], "tls": {"ca": ready["ca"]},
        },
        "sources": {
            "telemetry": {
                "type": "firehose", "stream": "event", "listen": listen, **source,
                "output": {"name": "oracle", "address": listen},
            },
            "detections": {"type": "spout", "stream": "detect", "reconnect": wait, **source},
        },
        "sinks": sinks,
        "routes": routes,
        "spool": {"type": "disk", "path": f"{folder}/spool", "max_size": shape.spool, "sync": shape.sync},
        "dead_letter": {"path": f"{folder}/letters", "max_size": "64MiB"},
        "stop_timeout": "20s",
        "event_loop": "asyncio",
    }  # fmt: skip
    file.write_text(json.dumps(config, indent=1))
    return admin
