"""Which part of a configuration runs in which process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.model import Config, spool_size
from pipeline.core.config import SourceConfig
from pipeline.core.handover import Handover
from pipeline.core.source import Source
from pipeline.spool.disk import DiskSpoolConfig
from pipeline.spool.folder import LOGS

PREFIX = "w"
"""What the folder of a worker begins with, before its number."""


@dataclass(frozen=True, slots=True)
class Place:
    """A process's part. Number 0 stands for the folder of a configuration without workers."""

    worker: int = 0
    workers: int = 1
    """How many share the sources."""
    drains: bool = False
    """Whether it only empties its spool: no source runs in it."""
    handovers: Mapping[str, Handover] = field(default_factory=dict)
    """Source -> where its connections come from."""

    def runs(self, number: int) -> bool:
        """Whether the instance with this number, of those that live in one process, lives in this one."""
        return not self.drains and number % self.workers == max(0, self.worker - 1)

    def shared(self, kind: type[Source[Any]], settings: SourceConfig) -> SourceConfig | None:
        """The config of this process's instance of a source that lives in all; None where it lives in one."""
        if not kind.shared or self.workers == 1:
            return None
        share: SourceConfig = kind.share(settings, self.workers)
        return share

    def of(self, config: Config) -> Config:
        """The configuration with this process's folders and shares."""
        parts = max(1, self.workers)
        spool, letters = config.spool, config.dead_letter
        changes: dict[str, Any] = {"max_size": spool_size(spool, parts)}
        if isinstance(spool, DiskSpoolConfig):
            changes["path"] = folder(spool.path, self.worker)
        return config.model_copy(
            update={
                "spool": spool.model_copy(update=changes),
                "dead_letter": letters.model_copy(
                    update={"max_size": letters.max_size // parts, "path": folder(letters.path, self.worker)}
                ),
            }
        )


def folder(path: Path, worker: int) -> Path:
    """Where a worker keeps what a process alone keeps in ``path``."""
    return path / f"{PREFIX}{worker}" if worker else path


def members(config: Config) -> range:
    """The numbers of the processes that run the sources."""
    return range(1, config.processes + 1) if config.processes > 1 else range(1)


def left_over(config: Config) -> Sequence[int]:
    """Numbers of the spool folders with records of which no member of this configuration takes care."""
    if not isinstance(config.spool, DiskSpoolConfig):
        return []
    path = config.spool.path
    found = [0, *sorted(int(one.name[1:]) for one in path.glob(f"{PREFIX}[1-9]*") if one.name[1:].isdecimal())]
    return [number for number in found if number not in members(config) and (folder(path, number) / LOGS).is_dir()]
