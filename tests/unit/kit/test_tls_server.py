"""The receiving end of a connection, driven by a real TLS client in memory and over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import struct
import subprocess
import sys

import pytest

from pipeline.kit.certificates import self_signed_context
from pipeline.kit.tls_server import Buffers, Receiver


@pytest.fixture(scope="module")
def context():
    return self_signed_context(["localhost"])


class Wire(asyncio.Transport):
    """A transport whose other end is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.paused = self.closed = False

    def write(self, data):
        self.sent += data

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False

    def close(self):
        self.closed = True

    abort = close


class Log(Receiver):
    def __init__(self, context, timeout=5.0):
        super().__init__(Buffers(), context, timeout)
        self.data = b""
        self.ends = []

    def received(self, data):
        assert not self.ends
        self.data += data

    def ended(self, end, error):
        self.ends.append(end)


class Pair:
    """A `Receiver` and a client, joined by hand, so that every byte comes when the test says."""

    def __init__(self, context, **versions):
        self.server, self.wire = Log(context), Wire()
        self.server.connection_made(self.wire)
        self.to_client, self.to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = ssl._create_unverified_context()
        for key, value in versions.items():
            setattr(ours, key, value)
        self.client = ours.wrap_bio(self.to_client, self.to_server)
        while True:
            try:
                self.client.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.deliver(self.to_server.read())
        self.deliver(self.to_server.read())

    def deliver(self, data, piece=1 << 18):
        for at in range(0, len(data), piece):
            part = data[at : at + piece]
            self.server.get_buffer(-1)[: len(part)] = part
            self.server.buffer_updated(len(part))
        self.to_client.write(bytes(self.wire.sent))
        self.wire.sent.clear()

    def encrypt(self, data):
        self.client.write(data)
        return self.to_server.read()

    def goodbye(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            self.client.unwrap()
        return self.to_server.read()


@pytest.mark.parametrize("piece", [1, 7, 16_384, 1 << 18])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_any_pieces_of_ciphertext_are_decrypted(context, piece, version):
    """Ciphertext in pieces of any size gives the plain bytes, and the end is told after them."""
    pair = Pair(context, maximum_version=version)
    plain = bytes(range(256)) * (40 if piece == 1 else 4000)
    pair.deliver(pair.encrypt(plain) + pair.goodbye(), piece)
    assert pair.server.data == plain
    assert pair.server.ends == ["closed"]
    pair.server.close()
    pair.server.connection_lost(None)


async def test_a_cut_stream_is_told_from_a_closed_one(context):
    """A stream that ends without TLS's goodbye is cut; what came before it is there."""
    pair = Pair(context)
    pair.deliver(pair.encrypt(b"data"))
    assert pair.server.eof_received() is True
    assert (pair.server.data, pair.server.ends) == (b"data", ["cut"])
    pair.server.connection_lost(None)
    assert pair.server.ends == ["cut"]


async def test_damaged_ciphertext_ends_the_stream(context):
    """What is not authentic ends the stream, after what was."""
    pair = Pair(context)
    good, bad = pair.encrypt(b"good"), bytearray(pair.encrypt(b"bad!"))
    bad[-1] ^= 1
    pair.deliver(good + bytes(bad))
    assert (pair.server.data, pair.server.ends) == (b"good", ["broken"])
    pair.server.connection_lost(None)


async def test_we_can_say_goodbye_and_still_read(context):
    """After our own goodbye the peer's last bytes are still received."""
    pair = Pair(context)
    pair.wire.can_write_eof = lambda: False
    pair.server.finish()
    pair.deliver(b"")
    pair.deliver(pair.encrypt(b"last words") + pair.goodbye())
    assert (pair.server.data, pair.server.ends) == (b"last words", ["closed"])
    pair.server.connection_lost(None)


async def test_a_peer_that_broke_off_while_nobody_read_can_be_told_that_we_want_no_more():
    """It is no error, and its end is told when we read on."""
    server, loop = Log(None), asyncio.get_running_loop()
    listener = await loop.create_server(lambda: server, "127.0.0.1", 0)
    async with listener:
        peer = socket.create_connection(listener.sockets[0].getsockname())
        while not hasattr(server, "_transport"):
            await asyncio.sleep(0)
        server.pause()
        await asyncio.sleep(0)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()  # a reset
        waiting = select.poll()
        waiting.register(server._transport.get_extra_info("socket").fileno(), 0)
        assert waiting.poll(5000)[0][1] & select.POLLHUP
        server.finish()
        server.resume()
        while not server.lost:
            await asyncio.sleep(0)
    assert server.ends == ["silent"]


async def test_a_client_that_is_turned_away_in_its_handshake_gets_no_answer(context):
    """Who is still shaking hands when we say that we want no more only sees the end: nothing is written after it."""
    server, loop = Log(context), asyncio.get_running_loop()
    trouble = []
    loop.set_exception_handler(lambda _, context: trouble.append(context))
    async with await loop.create_server(lambda: server, "127.0.0.1", 0) as listener:
        _, port = listener.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = ssl._create_unverified_context().wrap_bio(to_client, to_server)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = to_server.read()
        writer.write(hello[:100])
        while not server._heard:
            await asyncio.sleep(0)
        server.finish()
        assert await reader.read() == b""
        writer.write(hello[100:])
        writer.close()
        while not server.ends:
            await asyncio.sleep(0)
        server.close()
        assert (server.ends, trouble) == (["handshake"], [])


async def test_a_pause_is_asked_for_again_when_data_still_comes(context):
    """On an event loop that forgets a pause, the next data brings it back."""
    pair = Pair(context)
    pair.server.pause()
    assert pair.wire.paused
    await asyncio.sleep(0)
    pair.wire.paused = False
    pair.deliver(pair.encrypt(b"still"))
    await asyncio.sleep(0)
    assert pair.wire.paused
    pair.server.resume()
    assert not pair.wire.paused
    pair.server.connection_lost(None)


async def test_a_key_update_is_answered(context):
    """A client that renews its keys and asks for ours to be renewed gets them, and its data comes through."""
    server = Log(context)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: server, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    client = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert client.stdin is not None and client.stdout is not None

    async def arrived(data):
        while server.data != data:
            await asyncio.sleep(0.01)

    client.stdin.write(b"one\n")
    await arrived(b"one\n")
    client.stdin.write(b"K\n")  # openssl's command for a key update that asks the peer for one
    await client.stdout.readuntil(b"KEYUPDATE")
    client.stdin.write(b"two\n")
    await arrived(b"one\ntwo\n")
    client.stdin.write(b"Q\n")
    await client.communicate()
    server.close()
    listener.close()
    await listener.wait_closed()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_idle_connections_of_a_process_are_small():
    """A hundred connections that each carried a megabyte leave at most 64 KiB each in the process."""
    script = """
import asyncio, ssl, sys
from pipeline.kit.certificates import self_signed_context
from pipeline.kit.tls_server import Buffers, Receiver

def rss():
    return int(open('/proc/self/statm').read().split()[1]) * 4096

COUNT = 100
async def main():
    context, buffers = self_signed_context(['localhost']), Buffers()
    loop = asyncio.get_running_loop()
    opened = []
    def make():
        opened.append(Receiver(buffers, context, 30))
        return opened[-1]
    server = await loop.create_server(make, '127.0.0.1', 0)
    port = server.sockets[0].getsockname()[1]
    client = await asyncio.create_subprocess_exec(sys.executable, '-c', CLIENT, str(port), str(COUNT), stdin=-1, stdout=-1)
    await client.stdout.readline()
    one = rss()
    client.stdin.write(b'go\\n')
    await client.stdout.readline()
    await asyncio.sleep(0.2)
    print((rss() - one) // (COUNT - 5))
    client.stdin.write(b'go\\n')
    await client.wait()
    server.close()

CLIENT = '''
import socket, ssl, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
def connect():
    sock = context.wrap_socket(socket.create_connection(("127.0.0.1", port)))
    sock.sendall(b"x" * (1 << 20))
    return sock
socks = [connect() for _ in range(5)]
print(flush=True)
sys.stdin.readline()
socks += [connect() for _ in range(count - 5)]
print(flush=True)
sys.stdin.readline()
'''
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=19, check=True)
    assert int(done.stdout) <= 64 << 10
    print(f"{int(done.stdout)} bytes for each idle connection")
