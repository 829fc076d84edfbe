"""An emulator inside the test's own loop, and a client that speaks to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline.emulator.server import Emulator
from pipeline.emulator.state import Settings


class Stream:
    """A spout connection: its lines, one at a time."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def line(self) -> bytes:
        """The next line without its LF; `b""` at the end."""
        return (await self.response.content.readline()).rstrip(b"\n")

    async def lines(self, count: int) -> list[bytes]:
        return [await self.line() for _ in range(count)]

    async def rest(self) -> list[bytes]:
        return (await self.response.content.read()).splitlines()


class Local:
    """A running emulator with its client."""

    def __init__(self, emulator: Emulator, client: aiohttp.ClientSession) -> None:
        self.emulator = emulator
        self.client = client
        self.ready = emulator.ready()
        self.oid: str = self.ready["oid"]
        self.api_key: str = self.ready["api_key"]
        self._token = ""

    async def call(self, method: str, path: str, form: Any = None, token: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.client.request(method, self.ready["url"] + path, data=form, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def mint(self, **form: str) -> tuple[int, Any]:
        return await self.call("POST", "/", form or {"oid": self.oid, "secret": self.api_key})

    async def token(self, **form: str) -> str:
        status, body = await self.mint(**form)
        assert status == 200, body
        return body["jwt"]

    async def api(self, method: str, path: str, form: Any = None, *, status: int = 200, **send: Any) -> Any:
        """Call the API with all rights; gives the body of an answer that must have this status."""
        self._token = self._token or await self.token()
        headers = {"Authorization": f"Bearer {self._token}", **send.pop("headers", {})}
        url = self.ready["url"] + path
        async with self.client.request(method, url, data=form, headers=headers, **send) as response:
            body = await response.read()
            assert response.status == status, body
            return json.loads(body) if response.content_type == "application/json" else body

    async def sensor(self, platform: str = "", *, online: bool = True) -> Any:
        """The first sensor that takes tasks, of a platform if one is named."""
        sensors = (await self.api("GET", f"/v1/sensors/{self.oid}"))["sensors"]
        present = await self.api("POST", f"/v1/online/{self.oid}")
        numbers = {"windows": 0x10000000, "linux": 0x20000000, "macos": 0x30000000, "chrome": 0x60000000}
        return next(
            one
            for one in sensors
            if present[one["sid"]] == online and one["plat"] == numbers.get(platform, one["plat"]) and one["arch"] != 9
        )

    async def turn(self, knob: str, **arguments: Any) -> Any:
        async with self.client.post(f"{self.ready['url']}/_emulator/{knob}", json=arguments) as response:
            body = await response.json()
            assert response.status == 200, body
            return body

    async def look(self, what: str) -> Any:
        return (await self.call("GET", f"/_emulator/{what}"))[1]

    async def until(self, check: Callable[[], Awaitable[bool]]) -> None:
        """Wait for what a separate part of the emulator will do soon."""
        while not await check():
            await asyncio.sleep(0.01)

    async def output(self, name: str, **fields: str) -> tuple[int, Any]:
        form = {"name": name, "module": "syslog", "type": "event", **fields}
        return await self.call("POST", f"/v1/outputs/{self.oid}", form, await self.token())

    @asynccontextmanager
    async def stream(self, path: str = "/stream", **form: str) -> AsyncIterator[Stream]:
        form = {"type": "event", "api_key": self.api_key, **form}
        url = f"{self.ready['url']}{path}/{self.oid}"
        async with self.client.post(url, data=form, read_bufsize=1 << 24) as response:
            yield Stream(response)


def ledger_lines(folder: Path, name: str) -> list[bytes]:
    return (folder / name).read_bytes().splitlines()


def ledger_ends(folder: Path) -> dict[str, bool]:
    rows = map(json.loads, ledger_lines(folder, "connections.jsonl"))
    return {row["file"]: row["clean"] for row in rows}


class Ledger:
    """Reads what the emulator noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lines(self, name: str) -> list[bytes]:
        return ledger_lines(self.folder, name)

    def ends(self) -> dict[str, bool]:
        return ledger_ends(self.folder)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


Start = Callable[..., Awaitable[Local]]


@pytest.fixture
async def emulate(ledger: Ledger) -> AsyncIterator[Start]:
    """Starts emulators; by default at rate 0, with a ledger."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Local:
            given = Settings(**{"port": 0, "rate": 0, "ledger": ledger.folder, **settings})
            emulator = Emulator(given)
            stack.push_async_callback(emulator.stop)
            await emulator.start()
            client = await stack.enter_async_context(
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=15), connector=aiohttp.TCPConnector(force_close=True)
                )
            )
            return Local(emulator, client)

        yield start
