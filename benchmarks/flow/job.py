"""What is to be done, and where the system that does it finds what it needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FRAMINGS = {"blocks": "16 KiB TLS records", "single": "one TLS record per event"}


@dataclass(frozen=True)
class Job:
    name: str
    title: str
    source: Literal["tls", "spout"]
    decide: Literal["json", "bytes", ""]
    """Keep the events of one type by a decoded field, by their bytes, or all."""
    sink: Literal["file", "kafka"]


JOBS = {
    job.name: job
    for job in (
        Job("json-file", "TLS → decode + field filter → file", "tls", "json", "file"),
        Job("bytes-file", "TLS → byte filter → file", "tls", "bytes", "file"),
        Job("raw-file", "TLS → raw → file", "tls", "", "file"),
        Job("json-kafka", "TLS → decode + field filter → Kafka, keyed by sensor", "tls", "json", "kafka"),
        Job("raw-kafka", "TLS → raw → Kafka", "tls", "", "kafka"),
        Job("spout-file", "Spout → decode + field filter → file", "spout", "json", "file"),
    )
}


@dataclass(frozen=True)
class Place:
    """Where one run takes place."""

    folder: Path
    port: int
    """Where it listens, or where the stream service does."""
    cert: Path
    key: Path
    ca: Path
    bootstrap: str = ""
    topic: str = ""

    @property
    def output(self) -> Path:
        return self.folder / "out.jsonl"

    @property
    def outputs(self) -> list[Path]:
        """The files that are there; several workers write one each."""
        return sorted(self.folder.glob("out*.jsonl"))

    def written(self) -> int:
        """Bytes in them."""
        return sum(path.stat().st_size for path in self.outputs)

    @property
    def texts(self) -> dict[str, str]:
        """All of it for a template."""
        names = ("folder", "port", "cert", "key", "ca", "bootstrap", "topic", "output")
        return {name: str(getattr(self, name)) for name in names}


Command = tuple[list[str], Mapping[str, str]]
"""Arguments, and what the environment has besides."""


@dataclass(frozen=True)
class System:
    """Something that does jobs."""

    name: str
    jobs: frozenset[str]
    command: Callable[[Job, Place], Command]
    version: str = ""
    part: int = 1
    """It gets one event in this many: it is slow, and its rate does not change with time."""
    recodes: bool = False
    """It writes records anew, so that only their number can be checked."""
    loses: bool = False
    """It may lose records; how many is shown."""
    framings: Collection[str] = tuple(FRAMINGS)
    """In which it is measured."""
