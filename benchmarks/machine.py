"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import ssl
import subprocess
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent


def machine() -> dict[str, str]:
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if "model name" in line]
    memory = int(_lines("/proc/meminfo")[0].split()[1]) >> 20
    return {
        "cpu": f"{os.cpu_count()} x {names[0] if names else platform.machine()}",
        "memory": f"{memory} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "commit": commit(),
        **{name: metadata.version(name) for name in ("orjson", "aiokafka", "aiohttp", "limacharlie")},
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HERE, check=False, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
