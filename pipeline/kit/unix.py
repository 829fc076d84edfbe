"""UNIX sockets in folders whose paths may be longer than an address can be."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

LONGEST = 100
"""Bytes of an address that every system takes."""


def listen(path: Path) -> socket.socket:
    """Bind and listen at ``path``, for this user only; a file that is there is replaced. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux gives the name the mode that the socket has: there is no moment in which others may connect.
        os.fchmod(sock.fileno(), 0o600)
        _at(path, sock.bind)
        path.chmod(0o600)
        sock.listen(8)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def connect(path: Path, timeout: float) -> socket.socket:
    """Connect to the listener at ``path``. Raises OSError: FileNotFoundError or ConnectionRefusedError where nobody listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        _at(path, sock.connect)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _at(path: Path, call: Callable[[str], None]) -> None:
    """Call with an address that means ``path``: where that is too long, by the open folder."""
    if len(os.fsencode(path)) <= LONGEST:
        call(str(path))
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
