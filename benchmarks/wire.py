"""Builds `wire.c`: the sender, its counterpart that discards, and the stream service."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path


def build(folder: Path) -> Path:
    """Compile it into the folder. Ends the program where that cannot be done."""
    source, binary = Path(__file__).with_suffix(".c"), folder / "wire"
    compiler = shutil.which("cc")
    if compiler is None:
        raise SystemExit("The benchmarks need a C compiler (Debian: apt install gcc libssl-dev).")
    command = [compiler, "-O2", "-pthread", str(source), "-o", str(binary), "-lssl", "-lcrypto"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"wire.c does not compile (libssl-dev missing?):\n{done.stderr}")
    return binary


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
