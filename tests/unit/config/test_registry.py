"""From names to classes."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from pipeline.config.registry import BUILT_IN, KINDS, Registry, config_class
from pipeline.core.errors import ConfigError

from .conftest import TOY

Install = Callable[..., None]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in BUILT_IN[kind]])
def test_built_ins(kind: str, name: str) -> None:
    """Every built-in can be loaded and has a config class of its own, with the documentation of what it does."""
    config = config_class(Registry(installed=False).component(kind, name))
    assert config.__dict__["__doc__"]


def test_outside_packages(toys: None) -> None:
    """Components of installed packages stand beside the built-ins."""
    registry = Registry()
    assert {"heartbeat", "spout"} <= set(registry.names("sources"))
    assert config_class(registry.component("sources", "heartbeat")).__name__ == "HeartbeatConfig"
    assert "heartbeat" not in Registry(installed=False).names("sources")


@pytest.mark.parametrize("name", ["gauge", "file"])
def test_two_packages_with_one_name(install: Install, name: str) -> None:
    """Two packages that claim a name are both named; one may be ours."""
    install("acme-sinks", f"[pipeline.sinks]\n{name} = acme:Bin")
    if name not in BUILT_IN["sinks"]:
        install("zebra-sinks", f"[pipeline.sinks]\n{name} = zebra:Bin")
    with pytest.raises(ConfigError) as caught:
        Registry().component("sinks", name)
    other = "lc-pipeline" if name in BUILT_IN["sinks"] else "zebra-sinks"
    assert f"the packages `acme-sinks` and `{other}` have a sink of type {name!r} each" == caught.value.what


def test_a_conflict_that_nobody_uses_harms_nobody(install: Install) -> None:
    """A name claimed twice is an error for who uses it only."""
    install("acme-sinks", "[pipeline.sinks]\nfile = acme:Bin")
    assert Registry().component("sources", "spout")


def test_unknown_type() -> None:
    """An unknown type gets a guess and the list."""
    with pytest.raises(ConfigError) as caught:
        Registry(installed=False).component("sources", "fierhose")
    names = ", ".join(sorted(BUILT_IN["sources"]))
    assert f"Did you mean firehose? There are: {names}." == caught.value.fix


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("no_such_module:X", "cannot be loaded: ModuleNotFoundError"),
        ("toy_components:Nothing", "cannot be loaded: AttributeError"),
        ("toy_components:NotASink", "is not a pipeline.Sink"),
        ("toy_components:Heartbeat", "is not a pipeline.Sink"),
    ],
)
def test_broken_packages(install: Install, target: str, expected: str) -> None:
    """A package that cannot be loaded, or gives something else, is named."""
    install("broken", f"[pipeline.sinks]\nbroken = {target}", "toy_components", TOY)
    with pytest.raises(ConfigError) as caught:
        Registry().component("sinks", "broken")
    assert expected in caught.value.what
    assert "package broken" in caught.value.what


def test_a_component_without_config_class(install: Install) -> None:
    """A class that names no config class in its brackets is told how to."""
    install("naked", "[pipeline.sinks]\nnaked = toy_components:Naked", "toy_components", TOY)
    with pytest.raises(ConfigError, match="does not say which config class"):
        config_class(Registry().component("sinks", "naked"))


def test_only_what_is_used_is_imported() -> None:
    """Loading one component imports no other."""
    code = (
        "import sys; from pipeline.config.registry import Registry; Registry().component('filters', 'sample');"
        "print([name for name in sys.modules if name.startswith(('pipeline.sinks.', 'pipeline.sources.', 'aiokafka'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
