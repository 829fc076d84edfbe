"""Sends a file of lines over TLS from a process of its own: `_sender.c` where it can be compiled, else this file as a program."""

from __future__ import annotations

import contextlib
import json
import mmap
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

TLS_RECORD = 16 << 10


def command(folder: Path) -> tuple[list[str], str]:
    """The sender's command, to be followed by PORT FILE BYTES CONNECTIONS single|blocks, and its language."""
    source, binary = Path(__file__).with_suffix(".c"), folder / "sender"
    compiler = shutil.which("cc")
    if compiler is not None:
        build = [compiler, "-O2", "-pthread", str(source), "-o", str(binary), "-lssl", "-lcrypto"]
        done = subprocess.run(build, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return [str(binary)], "C"
        print(f"The C sender does not compile (libssl-dev missing?):\n{done.stderr}", file=sys.stderr)
    return [sys.executable, __file__], "Python"


def _send(port: int, data: mmap.mmap, start: int, end: int, *, single: bool) -> None:
    context = ssl._create_unverified_context()
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port))) as sock:
        while start < end:
            stop = data.find(b"\n", start, end) + 1 if single else min(start + TLS_RECORD, end)
            sock.sendall(data[start:stop])
            start = stop
        # Say goodbye without waiting for the peer's, which only ends when it sees our end.
        sock.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sock.unwrap()
        sock.setblocking(True)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(TLS_RECORD):
            continue


def main() -> None:
    port, path, size, connections, framing = sys.argv[1:]
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), int(size), access=mmap.ACCESS_READ) as data:
        cuts = [data.find(b"\n", int(size) * part // int(connections)) + 1 for part in range(1, int(connections))]
        began, before = time.monotonic(), time.process_time()
        threads = [
            threading.Thread(target=_send, args=(int(port), data, start, end), kwargs={"single": framing == "single"})
            for start, end in zip([0, *cuts], [*cuts, int(size)], strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(json.dumps({"wall": time.monotonic() - began, "cpu": time.process_time() - before}))


if __name__ == "__main__":
    main()
