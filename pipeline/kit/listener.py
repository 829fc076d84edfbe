"""Listening sockets, IPv4 and IPv6."""

from __future__ import annotations

import socket
from typing import Any

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Open the sockets of a listener: one for both families where the host is open, else one for each address. Raises OSError."""
    if host in ("", "::") and socket.has_dualstack_ipv6():
        return [_socket(socket.AF_INET6, ("::", port), dual=True)]
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)  # noqa: S104 - what an empty host asks for
    sockets: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            # A name with several addresses gets one port, also where it is picked.
            chosen = sockets[0].getsockname()[1] if sockets else port
            sockets.append(_socket(family, (address[0], chosen, *address[2:])))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _socket(family: int, address: tuple[Any, ...], *, dual: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        # Accepted sockets inherit these: a peer that vanished is noticed after two minutes.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
