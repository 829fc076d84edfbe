"""The small commands: validate, list, schema, completion."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import VALID, Run


def test_validate(run: Run, valid: Path) -> None:
    """A valid configuration gets a table of what it has."""
    done = run("validate", str(valid))
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines() if line] == [
        [str(valid), "is", "valid."],
        ["SOURCE", "TYPE", "STREAM"],
        ["detections", "spout", "detect"],
        ["SINK", "TYPE"],
        ["archive", "file"],
        ["ROUTE", "FROM", "FILTERS", "TO"],
        ["all", "detections", "none", "archive"],
    ]
    assert done.stderr == ""


def test_validate_shows_all_mistakes(run: Run, valid: Path) -> None:
    """Each mistake has its place, and the exit code is 4."""
    valid.write_text(VALID.replace("spout", "spuot").replace("to:", "too:"))
    done = run("validate", "lc.yaml")
    assert (done.returncode, done.stdout) == (4, "")
    assert "Error: 3 mistakes in lc.yaml." in done.stderr
    assert "  lc.yaml:3:22 sources.detections.type\n    There is no source of type 'spuot'." in done.stderr


def test_validate_warns(run: Run, valid: Path) -> None:
    """A warning is shown and is no failure."""
    valid.write_text(VALID.replace("sinks:", "  idle: {type: spout}\nsinks:"))
    done = run("validate", "lc.yaml")
    assert done.returncode == 0
    assert "Warning: No route reads this source." in done.stderr


@pytest.mark.parametrize(("text", "code", "lines"), [(VALID, 0, []), (VALID.replace("to:", "too:"), 4, [7, 7])])
def test_validate_json(run: Run, valid: Path, text: str, code: int, lines: list[int]) -> None:
    """For programs there is one JSON object, with the line of each mistake."""
    valid.write_text(text)
    done = run("validate", "--json", "lc.yaml")
    result = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (code, "")
    assert (result["ok"], [problem["line"] for problem in result["problems"]]) == (code == 0, lines)


def test_validate_is_pure(run: Run, valid: Path) -> None:
    """Without --connect nothing is made: no folder of a sink, no dead letter."""
    run("validate", "lc.yaml")
    assert [path.name for path in valid.parent.iterdir()] == ["lc.yaml"]


def test_connect_without_credentials(run: Run, valid: Path) -> None:
    """A source that nobody gave a key ends --connect with the exit code of authentication."""
    done = run("validate", "--connect", "lc.yaml", env={"HOME": str(valid.parent)})
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


@pytest.mark.parametrize("as_json", [False, True])
def test_connect_without_an_organization(run: Run, valid: Path, as_json: bool) -> None:
    """A key without an organization's id is a mistake of the configuration, for programs as JSON."""
    env = {"LC_EPHEMERAL_CREDS": "1", "LC_API_KEY": "k"}
    done = run("validate", "--connect", "lc.yaml", *(["--json"] if as_json else []), env=env)
    said = json.loads(done.stdout)["problems"][0]["what"] if as_json else done.stderr
    assert (4, True) == (done.returncode, "There is an API key, but no organization id." in said)


def test_connect_shows_each_component(run: Run, valid: Path) -> None:
    """What cannot be reached is named with the reason, what can is ok, and the exit code tells."""
    section = "limacharlie: {oid: 8cbe27f4-bfa1-4afb-ba19-138cd51389cd, api_key: k, url: 'http://127.0.0.1:1'}"
    valid.write_text(VALID + section)
    done = run("validate", "--connect", "lc.yaml")
    assert done.returncode == 1
    assert "\ndetections: failed\nError: " in done.stdout
    assert "\narchive: ok\n" in done.stdout


def test_list(run: Run) -> None:
    """All components are listed, and one can be described."""
    rows = {tuple(line.split()[:2]) for line in run("list").stdout.splitlines()}
    assert {("sources", "spout"), ("filters", "match"), ("sinks", "kafka")} <= rows
    both = run("list", "file").stdout
    assert "## Source `file`" in both
    assert "## Sink `file`" in both
    assert "## Source `file`" not in run("list", "sinks.file").stdout


def test_list_as_json(run: Run) -> None:
    """Programs get the same as JSON: all components, or what one takes as a schema."""
    rows = {(row["kind"], row["type"]): row["summary"] for row in json.loads(run("list", "--json").stdout)}
    assert {("sources", "spout"), ("filters", "match"), ("sinks", "kafka")} <= set(rows)
    assert all(rows.values())
    both = json.loads(run("list", "file", "--json").stdout)
    assert [row["kind"] for row in both] == ["sources", "sinks"]
    assert "path" in both[1]["schema"]["properties"]


def test_schema(run: Run) -> None:
    """The schema is JSON, knows each component by its type, and lets numbers come from the environment."""
    schema = json.loads(run("schema").stdout)
    sources = schema["properties"]["sources"]["additionalProperties"]
    assert {"file", "firehose", "spout", "stdin"} <= set(sources["discriminator"]["mapping"])
    assert schema["patternProperties"] == {"^x-": {}}
    assert {"limacharlie", "orgs", "spool", "admin"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Run, shell: str) -> None:
    """The script says where it belongs, and its shell can read it."""
    script = run("completion", shell).stdout
    assert f"lc-pipeline completion {shell}" in script.splitlines()[-1]
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("lc-pipeline va", {"validate"}),
        ("lc-pipeline completion z", {"zsh"}),
        ("lc-pipeline list sinks.k", {"sinks.kafka"}),
        ("lc-pipeline list fire", {"firehose"}),
        ("lc-pipeline --log-level w", {"warning"}),
    ],
)
def test_completions(run: Run, words: str, expected: set[str]) -> None:
    """Commands, choices and component names complete."""
    env = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_LC_PIPELINE_COMPLETE": "bash_complete"}
    assert {line.split(",")[1] for line in run(env=env).stdout.split()} == expected


def test_files_complete(run: Run) -> None:
    """Where a configuration belongs, the shell offers files."""
    env = {"COMP_WORDS": "lc-pipeline validate l", "COMP_CWORD": "2", "_LC_PIPELINE_COMPLETE": "bash_complete"}
    assert run(env=env).stdout.startswith("file,")


def test_explain(run: Run, valid: Path) -> None:
    """Each route's way of deciding is shown with its filters, what it decodes, and why; nothing is made or connected to."""
    filters = "[{type: events, include: [A]}, {type: match, op: is, path: 'event/*/X', value: b.exe}]"
    valid.write_text(
        VALID.replace("to: archive", f"to: archive, filters: {filters}").replace("data/x.jsonl", "'data/{routing/sid}'")
    )
    done = run("explain", "lc.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "all:",
        "  1. byte test: a record without these bytes would be dropped by the filter",
        "     filters    all.1",
        '     looks for  "b.exe"',
        "  2. projection: all that is needed is in these fields",
        "     filters    all.0",
        "     decodes    etype, record, routing/event_type",
        "  3. full decode: a path with wildcards, or that of the whole record, may lead anywhere in it",
        "     filters    all.1",
        "     for sinks  routing/sid",
    ]
    assert [path.name for path in valid.parent.iterdir()] == ["lc.yaml"]


def test_explain_tells_of_dedupe(run: Run, valid: Path) -> None:
    """A route that decides nothing decodes nothing, unless it looks for copies."""
    assert run("explain", "lc.yaml").stdout.splitlines()[1:] == [
        "  nothing to decide: every record goes on as it came, and the route decodes none"
    ]
    valid.write_text(
        f"{VALID.replace('to: archive', 'to: archive, dedupe: true')}\nspool: {{type: disk, path: spool}}\n"
    )
    assert run("explain", "lc.yaml").stdout.splitlines()[1:] == [
        "  nothing to decide: every record goes on as it came",
        "  then dedupe: the id of each record that is left is decoded, or the record is hashed where it has none",
    ]


def test_explain_json(run: Run, valid: Path) -> None:
    """For programs it is one JSON object."""
    plain = json.loads(run("explain", "lc.yaml", "--json").stdout)
    assert plain == {"routes": {"all": {"steps": [], "dedupe": False}}}
    valid.write_text(VALID.replace("data/x.jsonl", "'data/{routing/sid}'"))
    (step,) = json.loads(run("explain", "lc.yaml", "--json").stdout)["routes"]["all"]["steps"]
    assert (step["way"], step["fields"], step["values"]) == ("projection", ["routing/sid"], ["routing/sid"])
