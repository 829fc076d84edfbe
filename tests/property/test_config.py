"""Whatever a configuration file holds, the answer is a configuration or a ConfigError."""

import contextlib

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config.load import loads
from pipeline.core.errors import ConfigError

BASE = """
limacharlie: {oid: "${LC_OID}", endpoints: {jwt: "https://x"}}
orgs: {acme: {oid: 8cbe27f4-bfa1-4afb-ba19-138cd51389cd}}
x-any: &any {type: sample, rate: 2}
sources:
  detections: {type: spout, stream: detect, orgs: [acme], reconnect: {base: 5s}}
sinks:
  lake: {type: kafka, bootstrap_servers: "kafka:9092", topic: "lc.{stream}", batch: {max_bytes: 1MiB}}
routes:
  all: {from: [detections], filters: [*any, {type: match, op: is, path: a/b, value: 4}], to: lake, on_full: block}
spool: {type: memory, max_size: 64MiB}
dead_letter: {path: dl}
admin: {listen: ":0"}
"""
ENV = {"LC_OID": "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"}

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["all", "${X}", "off"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def paths(data: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """All places in a document."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [at, *(path for key, value in inner for path in paths(value, (*at, key)))]


TREE = yaml.safe_load(BASE)


def load(text: str) -> None:
    with contextlib.suppress(ConfigError):
        loads(text, ENV)


def test_the_base_is_valid() -> None:
    """What these tests damage is right to begin with."""
    assert loads(BASE, ENV).config.routes


@given(st.text())
@example("a: !!int x")
@example("a: !!float x")
@example("a: !!bool x")
@example("%YAML 9.9\n---\na: 1")
@example("%TAG ! x\n---\na: 1")
@example("--- !!set {a, b}")
@example('"\\U00110000": 1')
@example("a: !<tag:yaml.org,2002:null> {b: c}")
@example("<<: {a: 1}")
@example("? |\n  a\n: b")
def test_any_text(text: str) -> None:
    """Any text gives a configuration or a ConfigError."""
    load(text)


@given(st.integers(0, len(BASE)), st.integers(0, 12), st.text("{}[]:,-&*!|>'\"%@`#$ \t\n<?~a1\\", max_size=6))
def test_any_damage(at: int, cut: int, insert: str) -> None:
    """A configuration with a piece replaced gives a configuration or a ConfigError."""
    load(BASE[:at] + insert + BASE[at + cut :])


@settings(deadline=None)
@given(st.sampled_from(paths(TREE)), values)
def test_any_value_anywhere(path: tuple[str | int, ...], value: object) -> None:
    """Any value at any place of a configuration gives a configuration or a ConfigError."""
    tree = yaml.safe_load(BASE)
    if path:
        place = tree
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    load(yaml.safe_dump(tree if path else value, allow_unicode=True))
