"""Files by signed URL: whole or not at all."""

import asyncio

import pytest

from pipeline.core.errors import NotFoundError, PipelineError, RequestRefusedError
from pipeline.limacharlie.ai import transfer
from pipeline.limacharlie.ai.errors import FileTooLargeError, TransferError


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    class Quick:
        def __init__(self, base, cap):
            self.tries = 0

        def next(self):
            self.tries += 1
            return 0.01

    monkeypatch.setattr(transfer, "Backoff", Quick)


@pytest.fixture(params=["rest", "socket"])
async def files(request, ai, running):
    """Upload and download over REST, and within the session."""
    session = await running()
    if request.param == "rest":

        class Rest:
            async def upload(self, source, **options):
                return await ai.files.upload(session.id, source, **options)

            async def download(self, path, target=None):
                return await ai.files.download(session.id, path, target)

        yield Rest()
        return
    async with ai.attach(session.id) as live:

        async def drain():
            async for _ in live.messages():
                pass

        task = asyncio.create_task(drain())
        yield live
        task.cancel()


async def test_bytes(files, cloud):
    """Bytes come back as they went, empty ones and large ones too."""
    for data in (b"", b"x", bytes(range(256)) * 12_000):
        path = await files.upload(data, filename="data.bin")
        assert path == "/workspace/uploads/data.bin"
        while await files.download(path) != data:
            await asyncio.sleep(0.01)  # the session takes note of an upload in its own time


async def test_files(files, tmp_path):
    """A file is read and written in pieces."""
    source, target = tmp_path / "evidence.csv", tmp_path / "copy.csv"
    source.write_bytes(b"a,b\n" * 500_000)
    path = await files.upload(source)
    assert path.endswith("/evidence.csv")
    await asyncio.sleep(0.05)
    assert await files.download(path, target) == b""
    assert source.read_bytes() == target.read_bytes()
    assert {"evidence.csv", "copy.csv"} == {found.name for found in tmp_path.iterdir()}


async def test_too_large(files, monkeypatch):
    """A file of more than 100 MB is refused before anything is sent."""
    monkeypatch.setattr(transfer, "MAX_FILE", 10)
    with pytest.raises(FileTooLargeError, match="at most 100 MB"):
        await files.upload(b"x" * 11)


async def test_too_large_for_the_service(files):
    """The service's own limit is told too."""
    with pytest.raises(RequestRefusedError, match="100 MB"):
        await files.upload(Sized())


class Sized(bytes):
    """Says that it is larger than it is."""

    def __len__(self):
        return 100_000_001


async def test_no_such_file(files):
    """A file that is not there is an error."""
    with pytest.raises((NotFoundError, RequestRefusedError), match="not found"):
        await files.download("/workspace/nothing")


@pytest.mark.parametrize("kind", ["expired", "refused", "corrupt", "short"])
@pytest.mark.parametrize("way", ["up", "down"])
async def test_another_try(files, cloud, kind, way):
    """What did not arrive whole is tried again with another URL, and given up in the end."""
    cloud.turn("ai_transfer", kind=kind, times=2)
    if way == "up":
        await files.upload(b"evidence")
        data = b"evidence"
    else:
        data = await files.download("/workspace/output.txt")
    assert data in (b"evidence", b"Nothing suspicious was found.\n")
    cloud.turn("ai_transfer", kind=kind, times=3)
    with pytest.raises(TransferError) as caught:
        await (files.upload(b"evidence") if way == "up" else files.download("/workspace/output.txt"))
    assert "Signature" not in f"{caught.value} {caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"


async def test_a_part_is_not_left(files, cloud, tmp_path):
    """A download that fails leaves no file, and an older one as it was."""
    target = tmp_path / "out.txt"
    target.write_text("old")
    cloud.turn("ai_transfer", kind="short", times=3)
    with pytest.raises(TransferError):
        await files.download("/workspace/output.txt", target)
    assert ["out.txt"] == [found.name for found in tmp_path.iterdir()]
    assert target.read_text() == "old"


async def test_a_stalled_transfer(files, cloud, monkeypatch):
    """A transfer that does not get on ends."""
    monkeypatch.setattr(transfer, "STALL_TIME", 0.2)
    cloud.turn("ai_transfer", kind="slow", times=3)
    path = await files.upload(b"x" * 4000)
    await asyncio.sleep(0.05)
    cloud.turn("ai_transfer", kind="slow", times=3)
    with pytest.raises(TransferError, match="time"):
        await files.download(path)


@pytest.mark.parametrize("url", ["ftp://x/y", "file:///etc/passwd", "//x/y", ""])
async def test_an_address_that_is_not_https(ai, cloud, running, url):
    """A file is not sent just anywhere."""
    session = await running()
    cloud.turn("respond", route="io", status=200, body=f'{{"download_url": "{url}"}}', times=None)
    with pytest.raises(PipelineError, match=r"https|no URL"):
        await ai.files.download(session.id, "/x")
