"""What the README and the other documents say is so."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from prometheus_client.exposition import generate_latest
from ruamel.yaml import YAML

import pipeline
from pipeline.cli import COMMANDS, NAME, cli
from pipeline.config.load import load, loads
from pipeline.config.registry import config_class
from pipeline.engine.letters import DeadLetters
from pipeline.engine.meters import Meters
from pipeline.engine.status import Board
from pipeline.kit.clock import SystemClock
from pipeline.spool.memory import MemorySpool, MemorySpoolConfig

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
ENV = dict.fromkeys(("LC_API_KEY", "LC_UID", "GLOBEX_KEY"), "x") | {"LC_OID": "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"}


def blocks(document: Path, language: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def shell_words(document: Path) -> Iterator[list[str]]:
    """The words of each command line in the shell blocks, without variables before and comments behind."""
    for block in blocks(document, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.partition(" #")[0], comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words:
                yield words


def of_all(language: str) -> list[Any]:
    return [
        pytest.param(block, id=f"{document.stem}-{number}")
        for document in DOCUMENTS
        for number, block in enumerate(blocks(document, language))
    ]


def test_the_readme_is_short_and_begins_with_two_commands() -> None:
    """The README has less than 120 lines, and its first commands are `make demo` and `make test`."""
    assert len(README.read_text(encoding="utf-8").splitlines()) < 120
    assert [["make", "demo"], ["make", "test"]] == list(shell_words(README))[:2]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(document: Path) -> None:
    """Each `make TARGET` in code is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {words[1] for words in shell_words(document) if words[0] == "make"}
    named |= set(re.findall(r"`make ([\w-]+)", document.read_text(encoding="utf-8")))
    assert set() == named - targets


def test_make_alone_lists_the_targets() -> None:
    """`make` without a target names those that a new user needs, and builds nothing."""
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True).stdout
    assert all(f"make {target} " in shown for target in ("demo", "test", "check"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_command_lines_are_accepted(document: Path) -> None:
    """Each `lc-pipeline COMMAND` exists and takes the arguments that the document gives it."""
    for words in shell_words(document):
        if Path(words[0]).name == NAME:
            command = cli.get_command(click.Context(cli), words[1])
            assert command, words
            command.make_context(words[1], words[2:]).close()
    named = re.findall(rf"`{NAME} ([a-z]+)", document.read_text(encoding="utf-8"))
    assert set() == set(named) - set(COMMANDS)


def test_the_readme_example_runs_through_validate(tmp_path: Path) -> None:
    """The README's configuration, saved and handed to `lc-pipeline validate`, is valid."""
    (tmp_path / "pipeline.yaml").write_text(blocks(README, "yaml")[0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "validate", "pipeline.yaml"],
        cwd=tmp_path,
        env=os.environ | ENV | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("text", of_all("yaml"))
def test_configurations_are_valid(text: str, tmp_path: Path) -> None:
    """Each configuration in a document loads without a warning; what a fragment leaves out is filled in."""
    yaml = YAML(typ="safe", pure=True)
    content = yaml.load(text)
    config = content.get("config", content)
    config.setdefault("sources", {"detections": {"type": "spout", "stream": "detect"}})
    config.setdefault("sinks", {"console": {"type": "stdout"}})
    config.setdefault("routes", {"all": {"from": list(config["sources"]), "to": list(config["sinks"])}})
    file = tmp_path / "pipeline.yaml"
    with file.open("w", encoding="utf-8") as stream:
        yaml.dump(config, stream)
    assert () == load(file, ENV).warnings


@pytest.mark.parametrize("text", of_all("python"))
def test_components_in_documents_load(text: str) -> None:
    """Each component that a document shows can be imported, and its configuration is found."""
    names: dict[str, Any] = {"__name__": "plugin"}
    exec(compile(text, "plugin.py", "exec"), names)
    bases = (pipeline.Source, pipeline.Filter, pipeline.Sink)
    made = [value for value in names.values() if isinstance(value, type) and issubclass(value, bases)]
    (component,) = set(made) - set(bases)
    assert config_class(component).__module__ == "plugin"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """Each link to a file of the project leads to one that exists."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    inside = [link for link in links if "://" not in link]
    assert [] == [link for link in inside if not (document.parent / link).exists()]


async def test_metrics_are_documented(tmp_path: Path) -> None:
    """docs/operating.md names each metric that there is, and no other."""
    clock = SystemClock()
    letters = DeadLetters(tmp_path, 1 << 20, clock.now)
    meters = Meters(MemorySpool(MemorySpoolConfig()), Board(clock), letters, clock)
    exposed = set(re.findall(r"^# TYPE (\w+) ", generate_latest(meters.registry).decode(), re.MULTILINE))
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    assert {name for name in exposed if not name.endswith("_created")} == set(re.findall(r"\bpipeline_\w+", text))


def test_exit_codes_of_errors_are_documented() -> None:
    """docs/operating.md has a line for each exit code that an error can have."""
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    errors = [value for value in vars(pipeline).values() if isinstance(value, type) and issubclass(value, Exception)]
    codes = {error.exit_code for error in errors if issubclass(error, pipeline.PipelineError)}
    assert codes <= {int(code) for code in re.findall(r"^\| (\d) \|", text, re.MULTILINE)}


def test_the_chart_default_is_valid() -> None:
    """The configuration that the chart uses when none is given is valid."""
    file = ROOT / "helm" / "lc-pipeline" / "files" / "config.yaml"
    assert () == loads(file.read_text(encoding="utf-8"), ENV).warnings
