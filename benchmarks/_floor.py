"""The bare loop: TLS on memory BIOs, split, decode, filter, write. No limits, no errors handled, nothing counted.

    python _floor.py PORT OUTPUT CERT KEY filter|raw

What any asyncio program in CPython pays at least for the job; `flow.py` says how near to it ours comes.
"""

from __future__ import annotations

import asyncio
import io
import ssl
import sys
from pathlib import Path

import orjson

READ = 256 << 10


class Line(asyncio.BufferedProtocol):
    raw = memoryview(bytearray(READ))
    plain = memoryview(bytearray(2 * READ))

    def __init__(self, context: ssl.SSLContext, output: io.FileIO, *, decode: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.output = output
        self.decode = decode
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
        if self.decode:
            lines = [line for line in lines if orjson.loads(line)["routing"]["event_type"] == "NEW_PROCESS"]
        self.output.write(b"".join(lines))

    def eof_received(self) -> None:
        self.transport.close()


async def main() -> None:
    port, path, cert, key, job = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with Path(path).open("wb", buffering=0) as output:
        server = await asyncio.get_running_loop().create_server(
            lambda: Line(context, output, decode=job == "filter"), "127.0.0.1", int(port)
        )
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
