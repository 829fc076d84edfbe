"""`lc-pipeline replay` where no pipeline runs: what it says, what it refuses, and several workers' letters."""

import json
from pathlib import Path

import pytest

from pipeline.core.batch import LogId
from pipeline.engine.letters import letter

from .conftest import Run

CONFIG = """
workers: {workers}
sources:
  one: {{type: firehose, listen: "127.0.0.1:0", tls: "off"}}
  two: {{type: firehose, listen: "127.0.0.1:0", tls: "off"}}
sinks:
  archive: {{type: file, path: "out/x.jsonl"}}
routes:
  all: {{from: [one, two], to: archive}}
  some: {{from: one, to: archive}}
spool: {{type: disk, path: spool, max_size: 256MiB}}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with two sources and two routes."""
    path = tmp_path / "lc.yaml"
    path.write_text(CONFIG.format(workers=1))
    return path


def put(folder: Path, *payloads: str) -> None:
    folder.mkdir(parents=True)
    lines = [
        letter(
            payload.encode(), component="archive", reason="bad", detail="", log=LogId("one"), stream="event",
            received_at=1.0, rejected_at=2.0, sink="archive", route="all", lane="all/archive",
        )
        for payload in payloads
    ]  # fmt: skip
    (folder / "000001.jsonl").write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["letters", "lc.yaml"], 4, "name the dead letters"),
        (["letters", "lc.yaml", "all/archive", "--all"], 4, "name the dead letters"),
        (["letters", "lc.yaml", "nobody"], 3, "There are: all/archive, some/archive, one, two"),
        (["letters", "lc.yaml", "all/archive", "--route", "x"], 3, "no route 'x'"),
        (["letters", "lc.yaml", "all/archive", "--rate", "0"], 4, "rate"),
        (["letters", "lc.yaml", "all/archive", "--rate", "inf"], 4, "not a finite number"),
        (["letters", "lc.yaml", "all/archive", "--worker", "2"], 4, "no worker 2"),
        (["files", "lc.yaml", "lc.yaml"], 4, "Give --source: one, two"),
        (["files", "lc.yaml", "lc.yaml", "--source", "three"], 3, "no source three"),
        (["files", "lc.yaml", "lc.yaml", "--source", "two", "--route", "some"], 4, "These do: all"),
        (["log", "lc.yaml", "three"], 3, "no source three"),
        (["files", "lc.yaml", "/dev/null", "--source", "one"], 4, "not a regular file"),
        (["files", "lc.yaml", "lc.yaml", "--source", "one", "--stream", "x" * 65], 4, "stream: "),
        (["files", "lc.yaml", "\udcff.jsonl", "--source", "one"], 4, "not UTF-8"),
        (["letters", "lc.yaml", "/dev/null"], 4, "neither a file nor a folder"),
        (["log", "lc.yaml", "one", "--from", "5", "--to", "5"], 4, "nothing from 5 to 5"),
        (["gap", "lc.yaml"], 4, "which gaps"),
        (["letters", "gone.yaml", "x"], 4, "gone.yaml"),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed(run: Run, config: Path, arguments: list[str], code: int, words: str) -> None:
    """Each mistake is said with what there is instead, and its exit code."""
    config.with_name("\udcff.jsonl").write_text("{}\n")
    result = run("replay", *arguments)
    assert result.returncode == code
    assert words.lower() in " ".join(result.stderr.lower().split())


def test_what_it_says(run: Run, config: Path, tmp_path: Path) -> None:
    """Without a terminal there is no progress bar; each way and each reason has its line, and so has the outcome."""
    put(tmp_path / "dead-letter/lanes/all.archive", '{"a":1}', '{"a":2}')
    with (tmp_path / "dead-letter/lanes/all.archive/000001.jsonl").open("a") as file:
        file.write("rubbish\n")
    result = run("replay", "letters", "lc.yaml", "all.archive", "--dry-run")
    assert result.stdout.splitlines() == [
        "2 would go: one → all/archive (without filters)",
        "1 left out (unreadable): they are no dead letters.",
    ]
    result = run("replay", "letters", "lc.yaml", "all.archive")
    assert (result.returncode, result.stderr) == (1, "")  # whoever throws the files away then would lose a letter
    assert result.stdout.splitlines() == [
        "2 replayed: one → all/archive (without filters)",
        "1 left out (unreadable): they are no dead letters.",
        "Outcome: 2 delivered.",
    ]
    assert (tmp_path / "out/x.jsonl").read_text() == '{"a":1}\n{"a":2}\n'
    assert (tmp_path / "dead-letter/lanes/all.archive/000001.jsonl").read_text() == "rubbish\n"
    assert run("replay", "letters", "lc.yaml", "one").stdout == "Nothing to replay.\n"


@pytest.mark.timeout(60)
def test_letters_of_several_workers(run: Run, config: Path, tmp_path: Path) -> None:
    """With `workers`, each worker's letters are replayed from its own folders, or those of the one that is named."""
    config.write_text(CONFIG.format(workers=2))
    for worker in (1, 2):
        put(tmp_path / f"dead-letter/w{worker}/lanes/all.archive", f'{{"w":{worker}}}')
    report = json.loads(run("replay", "letters", "lc.yaml", "all/archive", "--dry-run", "--json").stdout)
    assert report["targets"] == {"one → all/archive (without filters)": 2}
    assert run("replay", "letters", "lc.yaml", "all/archive", "--worker", "2").returncode == 0
    assert [file.read_text() for file in (tmp_path / "out").rglob("*.jsonl")] == ['{"w":2}\n']
    assert run("replay", "letters", "lc.yaml", "all/archive").returncode == 0
    assert "Say which one: --worker N" in run("replay", "log", "lc.yaml", "one").stderr
    stored = "".join(file.read_text() for file in (tmp_path / "out").rglob("*.jsonl"))
    assert sorted(stored.split()) == ['{"w":1}', '{"w":2}']


def test_names_are_completed(run: Run, config: Path) -> None:
    """Lanes, sources and routes of the configuration complete."""
    for words, expected in (
        ("lc-pipeline replay letters lc.yaml al", ["all/archive"]),
        ("lc-pipeline replay log lc.yaml t", ["two"]),
        ("lc-pipeline replay files lc.yaml --source t", ["two"]),
        ("lc-pipeline replay log lc.yaml one --route s", ["some"]),
    ):
        env = {"_LC_PIPELINE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        found = [line.partition(",")[2] for line in run(env=env).stdout.splitlines()]
        assert found == expected
