"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable(quota: Path = _QUOTA) -> int:
    """The CPUs that the process may run on, or less where its container has a quota of CPU time; at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        limit, _, period = quota.read_text(encoding="ascii").partition(" ")
        cores = min(cores, math.ceil(int(limit) / int(period)))
    except (OSError, ValueError):  # no container, another kind of one, or no limit ("max")
        pass
    return max(1, cores)
