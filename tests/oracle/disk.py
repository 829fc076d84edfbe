"""A disk of one pipeline alone, which can be full."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path


class Disk:
    """A small tmpfs where it may be mounted."""

    def __init__(self, path: Path, size: int) -> None:
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Take what room there is, as fast as somebody else may take it."""
        with self._ballast.open("wb") as file, contextlib.suppress(OSError):
            for _ in range(10_000):
                found = os.statvfs(self.path)
                os.pwrite(
                    file.fileno(), bytes(min(1 << 20, found.f_bavail * found.f_frsize)), os.fstat(file.fileno()).st_size
                )
                if not found.f_bavail:
                    return

    def clear(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def unmount(self) -> None:
        """What is on it stays to be looked at, in a folder of its name and ``-kept``."""
        if self.mounted:
            self.clear()
            kept = self.path.with_name(f"{self.path.name}-kept")
            shutil.copytree(self.path, kept, ignore=shutil.ignore_patterns("*.sock"))
            subprocess.run(["umount", "-l", str(self.path)], check=False)
            self.mounted = False
