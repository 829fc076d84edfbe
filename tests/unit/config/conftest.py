"""A package of somebody else, installed for one test, so that these tests need no built-in component."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.config.load import Loaded, loads
from pipeline.core.errors import ConfigError

TOY = '''
from pipeline import Duration, Field, Filter, FilterConfig, Secret, Sink, SinkConfig, Source, SourceConfig, Template, Tls
from typing import Literal

class HeartbeatConfig(SourceConfig):
    """Emit one record at a fixed interval. For demos."""
    interval: Duration = Field(1.0, gt=0)
    """Time between two records."""
    tls: Literal["off"] | Tls | None = None
    """The certificate."""
    token: Secret | None = None
    """Who may connect."""

class Heartbeat(Source[HeartbeatConfig]):
    pass

class EvenConfig(FilterConfig):
    """Keep every second record."""

class Even(Filter[EvenConfig]):
    pass

class BinConfig(SinkConfig):
    """Store nothing."""
    path: Template = Template("bin")
    """Where it does not store."""
    depth: int = Field(1, gt=0)
    """How deep the bin is."""

class Bin(Sink[BinConfig]):
    pass

class NotASink:
    pass

class Naked(Sink):
    pass
'''

VALID = """
sources:
  beat: {type: heartbeat}
sinks:
  bin: {type: bin}
routes:
  all: {from: beat, to: bin}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Gives a function that installs a distribution with entry points and, where given, a module."""
    folder = tmp_path / "site"
    folder.mkdir()
    before = set(sys.modules)

    def add(distribution: str, entry_points: str, module: str = "", code: str = "") -> None:
        info = folder / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        if module:
            (folder / f"{module}.py").write_text(code)
        monkeypatch.syspath_prepend(str(folder))

    yield add
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def toys(install: Callable[..., None]) -> None:
    """A source `heartbeat`, a filter `even` and a sink `bin` of the package `toys`."""
    install(
        "toys",
        """
        [pipeline.sources]
        heartbeat = toy_components:Heartbeat
        [pipeline.filters]
        even = toy_components:Even
        [pipeline.sinks]
        bin = toy_components:Bin
        """,
        "toy_components",
        TOY,
    )


@pytest.fixture
def accept(toys: None) -> Callable[..., Loaded]:
    """Gives a function that loads a valid configuration."""
    return lambda text, env=None: loads(text, env or {}, file="lc.yaml")


@pytest.fixture
def refuse(toys: None) -> Callable[..., list[str]]:
    """Gives a function that returns the mistakes of a configuration, each as `line:column path: what | fix`."""

    def load(text: str, env: dict[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loads(text, env or {}, file="lc.yaml")
        problems = caught.value.problems or (caught.value,)
        return [f"{problem.where.removeprefix('lc.yaml:')}: {problem.what} | {problem.fix}" for problem in problems]

    return load
