"""A real power cut: a file system on a loop device, whose image is copied while a process writes. It has what was synced."""

import ctypes
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .disk_driver import Promises

VICTIM = Path(__file__).with_name("disk_victim.py")
CUTS = int(os.environ.get("LC_PIPELINE_POWER_CUTS", "12"))
"""For each case."""
IMAGE = 24 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def run(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True)


@contextmanager
def mounted(image: Path, *options: str) -> Iterator[Path]:
    place = image.with_suffix(".mount")
    place.mkdir()
    run("mount", "-o", ",".join(("loop", *options)), str(image), str(place))
    try:
        yield place
    finally:
        run("umount", str(place))
        place.rmdir()


def leak(folder: Path, rng: random.Random) -> None:
    """Let the kernel write some of what was not synced, as it may at any time."""
    for path in folder.rglob("*.seg"):
        if rng.random() < 0.5:
            fd = os.open(path, os.O_RDONLY)
            size = os.fstat(fd).st_size
            start = ctypes.c_int64(rng.randrange(size + 1))
            _libc.sync_file_range(fd, start, ctypes.c_int64(rng.randrange(1, 64 << 10)), 7)
            os.close(fd)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] not in "TZ":
        time.sleep(0.001)


def heard(process: subprocess.Popen[bytes]) -> list[str]:
    """Complete lines that are in the pipe."""
    assert process.stdout is not None
    data = b""
    while piece := process.stdout.read(65536):
        data += piece
    return data.decode().splitlines()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists(),
    reason="needs root, loop devices and mkfs",
)
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("sync", "on_full", "way"),
    [
        ("full", "block", "cached"),
        ("full", "block", "blocks"),
        ("full", "drop_oldest", "cached"),
        ("normal", "block", "cached"),
        ("normal", "drop_oldest", "blocks"),
    ],
)
async def test_a_power_cut_loses_nothing_that_was_synced(tmp_path: Path, sync: str, on_full: str, way: str) -> None:
    """With `full` all that was accepted is there after the power came back; with `normal` nothing is torn or out of order."""
    memory = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    try:
        await cut(base, sync, on_full, way)
    finally:
        shutil.rmtree(base)


async def cut(base: Path, sync: str, on_full: str, way: str) -> None:
    image = base / "disk.img"
    with image.open("wb") as file:
        file.truncate(IMAGE)
    run("mkfs.ext4", "-q", "-F", str(image))
    rng = random.Random(f"{sync} {on_full} {way}")
    promises = Promises()
    try:
        disk = mounted(image, "commit=300")  # its own commits must not hide a missing sync
        folder = disk.__enter__() / "spool"
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop device may be mounted here: {error.stderr.decode().strip()}")
    process = subprocess.Popen(
        [sys.executable, str(VICTIM), str(folder), sync, way, "none", "before", "1", on_full, "1000000"],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        promises.hear([process.stdout.readline().decode()])
        fcntl.fcntl(process.stdout, fcntl.F_SETFL, os.O_NONBLOCK)
        cuts = 0
        while cuts < CUTS:
            time.sleep(rng.uniform(0, 0.06))
            stop(process)
            leak(folder, rng)
            copy = base / f"cut-{cuts}.img"
            shutil.copyfile(image, copy)
            promises.hear(heard(process))
            process.send_signal(signal.SIGCONT)
            with mounted(copy) as place:
                await promises.check(place / "spool", durable=sync == "full")
            copy.unlink()
            cuts += 1
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        disk.__exit__(None, None, None)
