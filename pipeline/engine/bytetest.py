"""The byte test: leaves out the records without the bytes that one to be kept must hold, before they are even cut apart."""

from __future__ import annotations

import re
from collections.abc import Sequence

import re2

from pipeline.core.lines import Lines
from pipeline.engine.lot import Lot, Numbers
from pipeline.engine.trial import Trial

_FIT = re.compile(rb"[ !-.0-\[\]-~]+")
"""Of what a mark may be made: characters that JSON text holds as they are or as ``\\u00``, and the quotation marks around it."""
LEAST = 4 << 10
"""A limit on the size of records below this costs too much to watch over."""


class ByteTest:
    """Of all records with a mark, and of some others. Which of them a filter keeps is for it to say."""

    def __init__(self, marks: Sequence[bytes], up_to: int, trial: Trial) -> None:
        """Records of more bytes than ``up_to`` all pass, unless it is 0. While too many pass, ``trial`` lets it rest."""
        self._marks = marks
        self._window = up_to // 2
        self._trial = trial
        # A character that JSON writes as an escape hides a mark. Which ones do is told by the first digit of their code.
        digits = "".join(
            sorted({f"{character:02x}"[0] for mark in marks for character in mark if character != ord('"')})
        )
        self._hidden = re2.compile(rb"\\u00[%b]" % digits.encode(), _options()) if digits else None

    @staticmethod
    def fits(marks: Sequence[bytes], up_to: int) -> bool:
        """Whether it can look for these."""
        return bool(marks) and all(map(_FIT.fullmatch, marks)) and not 0 < up_to < LEAST

    def run(self, batch: Lines) -> Lot:
        """The records that pass."""
        if not self._trial.goes(len(batch)):
            return Lot.of(batch)
        block = batch.block
        found = self._found(block)
        self._trial.failed += len(found)
        if len(found) == len(batch):
            return Lot.of(batch)
        return Lot([block[start:end] for start, end in found], Numbers(block, [start for start, _ in found]))

    def _found(self, block: bytes) -> list[tuple[int, int]]:
        """Where the lines that pass begin and end."""
        find, rfind = block.find, block.rfind
        found: list[tuple[int, int]] = []
        for mark in self._marks:
            at = find(mark)
            while at >= 0:
                end = find(b"\n", at) + 1
                found.append((rfind(b"\n", 0, at) + 1, end))
                at = find(mark, end)
        more = [*self._escaped(block), *self._large(block)]
        return sorted({*found, *more}) if more or len(self._marks) > 1 else found

    def _escaped(self, block: bytes) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        if self._hidden is None:
            return found
        end = 0
        while hidden := self._hidden.search(block, end):
            at = hidden.start()
            end = block.find(b"\n", at) + 1
            found.append((block.rfind(b"\n", 0, at) + 1, end))
        return found

    def _large(self, block: bytes) -> list[tuple[int, int]]:
        """All lines that are too large, and perhaps some of half that size: those that fill a window."""
        window = self._window
        found: list[tuple[int, int]] = []
        if not window or len(block) <= 2 * window:
            return found
        at = 0
        while (end := at + window) <= len(block):
            if block.find(b"\n", at, end) < 0:
                line = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", end) + 1
                found.append(line)
                at = line[1] // window * window + (window if line[1] % window else 0)
            else:
                at = end
        return found


def _options() -> re2.Options:
    options = re2.Options()
    options.never_capture = True
    options.encoding = re2.Options.Encoding.LATIN1
    return options
