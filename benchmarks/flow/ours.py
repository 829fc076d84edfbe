"""`lc-pipeline run`, in the ways that are compared, and the scripts that stand beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.corpus import KEEP, OID
from benchmarks.flow.job import JOBS, Command, Job, Place, System

HERE = Path(__file__).parent
FILTERS: dict[str, list[dict[str, Any]]] = {
    "json": [{"type": "match", "op": "is", "path": "routing/event_type", "value": KEEP}],
    "bytes": [{"type": "events", "include": [KEEP]}],
    "": [],
    # The same decision, put so that each record must be decoded whole: a field and what it is inside of cannot be picked out together,
    # and a word in whatever case names no bytes to look for.
    "whole": [
        {
            "type": "match",
            "op": "and",
            "rules": [
                {"op": "is", "path": "routing/event_type", "value": KEEP, "case sensitive": False},
                {"op": "exists", "path": "routing"},
            ],
        }
    ],
}
BATCH = {"max_events": 100_000, "max_bytes": "4MiB", "max_wait": "50ms"}
"""The file sink's own but for the wait, so that the end of a run need not be waited for; it makes more writes, not fewer."""


def config(
    job: Job, place: Place, changes: Mapping[str, Any], sink: Mapping[str, Any], filters: str = ""
) -> dict[str, Any]:
    """The configuration for a job: defaults, but for what is given."""
    if job.source == "tls":
        tls = {"cert": str(place.cert), "key": str(place.key)}
        source = {"type": "firehose", "stream": "event", "listen": f"127.0.0.1:{place.port}", "tls": tls}
    else:
        source = {"type": "spout", "stream": "event"}
    if job.sink == "file":
        out = {"type": "file", "path": str(place.output), "batch": BATCH, **sink}
    else:
        # The peers do not compress unless told.
        out = {
            "type": "kafka",
            "bootstrap_servers": place.bootstrap,
            "topic": place.topic,
            "compression": "none",
            **sink,
        }
        if job.decide:
            out["key"] = "routing/sid"
    account = {
        "oid": OID,
        "api_key": "bench",
        "url": f"https://127.0.0.1:{place.port}",
        "tls": {"ca": str(place.ca)},
    }
    return {
        **({"limacharlie": account} if job.source == "spout" else {}),
        "sources": {"in": source},
        "sinks": {"out": out},
        "routes": {"all": {"from": "in", "filters": FILTERS[filters or job.decide], "to": "out"}},
        "admin": {"listen": "127.0.0.1:0"},
        "dead_letter": {"path": str(place.folder / "dead-letter")},
        **changes,
    }


def run(
    changes: Callable[[Place], Mapping[str, Any]] = lambda _: {},
    sink: Mapping[str, Any] | None = None,
    *,
    filters: str = "",
    tree: str = "",
) -> Callable[[Job, Place], Command]:
    """``tree`` is a source tree to take instead of this one."""

    def command(job: Job, place: Place) -> Command:
        path = place.folder / "pipeline.json"
        path.write_text(json.dumps(config(job, place, changes(place), sink or {}, filters)))
        arguments = [sys.executable, "-m", "pipeline.cli", "--log-level", "warning", "run", str(path)]
        return arguments, {"PYTHONPATH": tree or str(HERE.parent.parent)}

    return command


def script(name: str, *more: str) -> Callable[[Job, Place], Command]:
    def command(job: Job, place: Place) -> Command:
        to = str(place.output) if job.sink == "file" else f"kafka:{place.bootstrap}/{place.topic}"
        path = str(HERE / name)
        arguments = [sys.executable, path, job.source, str(place.port), to, str(place.cert), str(place.key), *more]
        return [*arguments, job.decide or "raw"], {"REQUESTS_CA_BUNDLE": str(place.ca)}

    return command


def disk(place: Place) -> Mapping[str, Any]:
    return {"spool": {"type": "disk", "path": str(place.folder / "spool")}}


FILES = frozenset(job.name for job in JOBS.values() if job.sink == "file")
TLS = frozenset(job.name for job in JOBS.values() if job.source == "tls")
KAFKA = frozenset(JOBS) - FILES


def systems(tree: str = "") -> list[System]:
    version = metadata.version("lc-pipeline")
    return [
        System("bare loop", TLS, script("floor.py")),
        System("bare loop (projection)", frozenset({"json-file", "json-kafka"}), script("floor.py", "projection")),
        System("lc-pipeline", frozenset(JOBS), run(tree=tree), version),
        System(
            "lc-pipeline (full decode)",
            frozenset({"json-file", "json-kafka"}),
            run(filters="whole", tree=tree),
            version,
        ),
        System(
            *("lc-pipeline (sync: normal)", FILES & TLS, run(sink={"sync": "normal"}, tree=tree), version),
            framings=["blocks"],
        ),
        System("lc-pipeline (disk spool)", frozenset(JOBS), run(disk, tree=tree), version),
        System("lc-pipeline (2 workers)", TLS, run(lambda _: {"workers": 2}, tree=tree), version),
        System("lc-pipeline (zstd)", KAFKA, run(sink={"compression": "zstd"}, tree=tree), version, framings=["blocks"]),
        System(
            "official SDK",
            frozenset({"json-file", "spout-file"}),
            script("sdk.py"),
            metadata.version("limacharlie"),
            part=4,
            loses=True,
        ),
    ]
