"""The bare loop: TLS on memory BIOs, split, decode, filter, write. No limits, no errors handled, nothing counted.

    python floor.py tls PORT OUTPUT CERT KEY [projection] json|bytes|raw

What any asyncio program in CPython pays at least for the job; `python -m benchmarks.flow` says how near to it ours comes.
"""

from __future__ import annotations

import asyncio
import io
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import orjson

READ = 256 << 10
Choose = Callable[[list[bytes]], list[bytes]]


class Line(asyncio.BufferedProtocol):
    raw = memoryview(bytearray(READ))
    plain = memoryview(bytearray(2 * READ))

    def __init__(self, context: ssl.SSLContext, output: io.FileIO, choose: Choose) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.output = output
        self.choose = choose
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.raw

    def buffer_updated(self, size: int) -> None:
        filled = 0
        self.incoming.write(self.raw[:size])
        try:
            while more := self.tls.read(READ, self.plain[filled:]):
                filled += more
        except ssl.SSLError:
            # More is to come, or the peer is at its end.
            pass
        if self.outgoing.pending:
            self.transport.write(self.outgoing.read())
        lines = io.BytesIO(self.tail + bytes(self.plain[:filled])).readlines()
        self.tail = lines.pop() if lines and lines[-1][-1] != 10 else b""
        self.output.write(b"".join(self.choose(lines)))

    def eof_received(self) -> None:
        self.transport.close()


def decoding(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if orjson.loads(line)["routing"]["event_type"] == "NEW_PROCESS"]


def looking(lines: list[bytes]) -> list[bytes]:
    return [line for line in lines if b'"event_type":"NEW_PROCESS"' in line]


def projecting() -> Choose:
    import msgspec

    routing = msgspec.defstruct("Routing", [("event_type", msgspec.Raw)], gc=False)
    record = msgspec.defstruct("Record", [("routing", routing)], gc=False)
    decode = msgspec.json.Decoder(record).decode
    wanted = b'"NEW_PROCESS"'
    return lambda lines: [line for line in lines if bytes(decode(line).routing.event_type) == wanted]


async def main() -> None:
    _, port, path, cert, key, *how = sys.argv[1:]
    ways = {"json": decoding, "bytes": looking, "raw": lambda lines: lines}
    choose = projecting() if "projection" in how else ways[how[-1]]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with Path(path).open("wb", buffering=0) as output:
        server = await asyncio.get_running_loop().create_server(
            lambda: Line(context, output, choose), "127.0.0.1", int(port)
        )
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
