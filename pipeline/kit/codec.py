"""Compression in whole frames that can be appended to a file, and reading such files back in bounded steps."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import zstandard
from isal import igzip_lib, isal_zlib

Compression = Literal["none", "gzip", "zstd"]

LEVELS: dict[Compression, tuple[int, int, int]] = {"none": (0, 0, 0), "gzip": (0, 1, 3), "zstd": (1, 1, 19)}
"""Lowest, default and highest level. gzip is ISA-L's, whose four levels are all faster than zlib's first."""

_SUFFIXES: tuple[tuple[str, Compression], ...] = ((".gz", "gzip"), (".zst", "zstd"))
_CHUNK = 1 << 20
_INPUT = 1 << 16
# zstd can turn four bytes into 128 KiB and its decoder cannot be told to stop in between: small bites bound what one can hold.
_BITE = 512
_MAX_WINDOW = 1 << 27
_FAULTS: Any = (igzip_lib.IsalError, zstandard.ZstdError)


class Damaged(ValueError):  # noqa: N818 - reads as a verdict on the file
    """The file holds bytes that are no frame of its compression."""


class BinarySource(Protocol):
    def read(self, size: int, /) -> bytes: ...


def by_suffix(path: str) -> Compression:
    """The compression that a path's ending stands for: ``.gz``, ``.zst``, else none."""
    return next((compression for suffix, compression in _SUFFIXES if path.endswith(suffix)), "none")


def split_suffix(path: str) -> tuple[str, str]:
    """Split ``/a/b.jsonl.gz`` into ``/a/b`` and ``.jsonl.gz``."""
    ending = next((suffix for suffix, _ in _SUFFIXES if path.endswith(suffix)), "")
    stem = path.removesuffix(ending)
    name = stem.rpartition("/")[2]
    dot = name.rfind(".")
    if dot > 0:
        ending = name[dot:] + ending
    return path[: len(path) - len(ending)], ending


class Encoder:
    """Makes frames. Not for concurrent use. ``level`` None is the default of `LEVELS`."""

    def __init__(self, compression: Compression, level: int | None = None) -> None:
        self.compression = compression
        self._level = LEVELS[compression][1] if level is None else level
        self._zstd = zstandard.ZstdCompressor(level=max(self._level, 1), write_checksum=True)

    def frame(self, data: bytes) -> bytes:
        """Return ``data`` as one whole frame, or as it is without compression."""
        if self.compression == "gzip":
            frame: bytes = isal_zlib.compress(data, self._level, wbits=31)
        elif self.compression == "zstd":
            frame = self._zstd.compress(data)
        else:
            frame = data
        return frame


class _ZstdDecoder:
    """Gives `zstandard` the face of `igzip_lib.IgzipDecompressor`, with output bounded by the size of the bites it takes."""

    def __init__(self) -> None:
        self._decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
        self._left = b""

    @property
    def eof(self) -> bool:
        return bool(self._decoder.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._decoder.unused_data) + self._left

    @property
    def needs_input(self) -> bool:
        return not self._left

    def decompress(self, data: bytes, size: int) -> bytes:
        view = memoryview(data or self._left)
        out: list[bytes] = []
        have = at = 0
        while at < len(view) and have < size and not self._decoder.eof:
            out.append(self._decoder.decompress(view[at : at + _BITE]))
            have += len(out[-1])
            at += _BITE
        self._left = bytes(view[at:])
        return b"".join(out)


class Reader:
    """Reads the content of a file of any number of frames, in steps of about 1 MiB (at worst 17 MiB), whatever the file claims.

    A file that grows can be read on after its end was seen.
    """

    def __init__(self, file: BinarySource, compression: Compression) -> None:
        self.whole = 0
        """Bytes of the file up to the end of the last whole frame that was read."""
        self._file = file
        self._compression = compression
        self._decoder: Any = None
        self._input = b""
        self._taken = 0

    @property
    def inside(self) -> bool:
        """Whether the bytes read so far end within a frame."""
        return self._decoder is not None

    def read(self) -> bytes:
        """Return the next piece, b"" at the present end. Raises `Damaged` when what follows is no frame, and OSError."""
        if self._compression == "none":
            data = self._file.read(_CHUNK)
            self.whole += len(data)
            return data
        while True:
            if not self._input and (self._decoder is None or self._decoder.needs_input):
                self._input = self._file.read(_INPUT)
                self._taken += len(self._input)
                if not self._input:
                    return b""
            if self._decoder is None:
                # A crash can leave a file longer than what reached the disk, and the rest zero.
                self._input = self._input.lstrip(b"\0")
                if not self._input:
                    continue
                self._decoder = (
                    _ZstdDecoder()
                    if self._compression == "zstd"
                    else igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
                )
            if data := self._step():
                return data

    def _step(self) -> bytes:
        given, self._input = (self._input, b"") if self._decoder.needs_input else (b"", self._input)
        try:
            data: bytes = self._decoder.decompress(given, _CHUNK)
        except _FAULTS as error:
            raise Damaged(f"no {self._compression} frame at byte {self.whole}: {error}") from None
        if self._decoder.eof:
            self._input = self._decoder.unused_data + self._input
            self._decoder = None
            self.whole = self._taken - len(self._input)
        return data
