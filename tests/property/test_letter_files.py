"""Taking letters out of their files: whatever is done in whatever order, exactly the others stay."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as some

from pipeline.engine.letter_folder import LetterFolder
from pipeline.engine.supply_letters import LetterFile, _lines

LINES = some.lists(some.binary(max_size=12).map(lambda data: data.replace(b"\n", b"") + b"\n"), max_size=12)


@given(LINES, some.data(), some.binary(max_size=5))
def test_what_is_not_done_stays(lines, data, more):
    """Letters leave the file in any order and in any number of steps; the rest stays, and so does what was written since."""
    whole = b"".join(lines)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "000001.jsonl"
        path.write_bytes(whole)
        file = LetterFile(LetterFolder(Path(folder)), path, len(whole), None)
        with path.open("rb") as opened:
            file.opened(opened)
            found = [place for run in _lines(opened, len(whole), 20) for place in run]
        assert [line for _, line in found] == lines
        with path.open("ab") as opened:
            opened.write(more)
        order = data.draw(some.permutations(range(len(lines))))
        done = set(order[: data.draw(some.integers(0, len(lines)))])
        for number in (one for one in order if one in done):
            start, line = found[number]
            file.done(start, start + len(line))
            if data.draw(some.booleans()):
                file.settle()
        file.settle()
        left = b"".join(line for number, line in enumerate(lines) if number not in done) + more
        assert (path.read_bytes() if path.exists() else b"") == left
        assert path.exists() == bool(left or not done)
