"""Reading a file, and what its sections become."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.load import MAX_SIZE, Loaded, load
from pipeline.config.model import filter_id
from pipeline.core.errors import ConfigError
from pipeline.core.types import Listen

from .conftest import VALID

Accept = Callable[..., Loaded]


def test_minimal(accept: Accept) -> None:
    """A source, a sink and a route are enough; the rest has defaults."""
    config = accept(VALID).config
    assert (config.sources["beat"].interval, config.spool.max_size, config.stop_timeout) == (1.0, 64 << 20, 25.0)
    assert (Path("dead-letter"), 1 << 30, None) == (config.dead_letter.path, config.dead_letter.max_size, config.admin)
    assert (
        config.routes["all"].from_,
        config.routes["all"].to,
        config.routes["all"].on_full,
    ) == (("beat",), ("bin",), "block")


def test_component_class(accept: Accept) -> None:
    """A component's config is of its own class, and the registry gives the component."""
    loaded = accept(VALID)
    assert type(loaded.config.sources["beat"]).__name__ == "HeartbeatConfig"
    assert loaded.registry.component("sources", "heartbeat").__name__ == "Heartbeat"


def test_json(accept: Accept) -> None:
    """A JSON file works too, tabs and characters beyond the basic plane included."""
    data = {
        "sources": {"beat": {"type": "heartbeat", "stream": "\U0001f600/"}},
        "sinks": {"bin": {"type": "bin"}},
        "routes": {"all": {"from": ["beat"], "to": ["bin"]}},
    }
    loaded = accept(json.dumps(data, indent="\t").replace("/", "\\/"))
    assert loaded.config.sources["beat"].stream == "\U0001f600/"


def test_admin_and_log(accept: Accept) -> None:
    """The sections admin and log are read."""
    config = accept(VALID + "admin: {listen: ':0'}\nlog: {level: debug, format: json}").config
    assert Listen("", 0) == config.admin.listen
    assert (config.log.level, config.log.format) == ("debug", "json")


def test_a_spool_without_type_is_in_memory(accept: Accept) -> None:
    """`spool: {max_size: …}` is a spool in memory of that size."""
    spool = accept(VALID + "spool: {max_size: 100MiB}").config.spool
    assert ("memory", 100 << 20) == (spool.type, spool.max_size)


def test_listeners_on_a_free_port_do_not_meet(accept: Accept) -> None:
    """Port 0 may be given twice: each gets a port of its own."""
    sources = "  a: {type: firehose, listen: ':0'}\n  b: {type: firehose, listen: ':0'}\nsinks:"
    assert accept(VALID.replace("sinks:", sources)).config.sources.keys() == {"beat", "a", "b"}


def test_x_keys_are_room_for_anchors(accept: Accept) -> None:
    """Top-level x-* keys are ignored, and their anchors can be merged; own keys win."""
    text = VALID.replace("beat: {type: heartbeat}", "beat: {<<: *a, type: heartbeat, stream: audit}")
    config = accept("x-any: &a {interval: 5s, stream: detect}\n" + text).config
    assert (config.sources["beat"].interval, config.sources["beat"].stream) == (5.0, "audit")


def test_yaml_12_words(accept: Accept) -> None:
    """`off` is text, as in YAML 1.2, so that a choice may be called so."""
    assert accept(VALID.replace("heartbeat", "heartbeat, tls: off")).config.sources["beat"].tls == "off"


def test_organizations(accept: Accept) -> None:
    """What an organization lacks comes from the section limacharlie."""
    one, two = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd", "3f2b8c1e-77d4-4d0f-9a53-5f8a6c0e2b17"
    config = accept(
        f"{VALID}limacharlie: {{api_key: shared, uid: me}}\n"
        f"orgs: {{acme: {{oid: {one}}}, globex: {{oid: {two}, api_key: own}}}}"
    ).config
    acme, globex = config.account("acme"), config.account("globex")
    assert (one, "shared", "me") == (acme.oid, acme.api_key.get_secret_value(), acme.uid)
    assert (two, "own", None) == (globex.oid, globex.api_key.get_secret_value(), globex.uid)


def test_what_is_off_or_unset_is_no_mistake(accept: Accept) -> None:
    """A dedupe that a substitution switches off, and a filter's name that is null, are as if they were not there."""
    route = 'to: bin, dedupe: "${DEDUPE:-false}", filters: [{type: even, name: null}]'
    assert accept(VALID.replace("to: bin", route)).config.routes["all"].dedupe is False


def test_filter_ids(accept: Accept) -> None:
    """A filter is called by its name, else by its route and place."""
    route = accept(VALID.replace("to: bin", "to: bin, filters: [{type: even}, {type: even, name: two}]")).config.routes
    assert [filter_id("all", index, one) for index, one in enumerate(route["all"].filters)] == ["all.0", "two"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VALID.replace("from: beat", "from: [beat]") + "  again: {from: beat, to: bin}", ["routes.again"]),
        (VALID.replace("beat: {", "idle: {type: heartbeat}\n  beat: {"), ["sources.idle"]),
        (VALID.replace("bin: {", "idle: {type: bin}\n  bin: {"), ["sinks.idle"]),
        (VALID.replace("beat: {type: heartbeat}", "beat: {type: ai_session}"), ["routes.all"]),
        (VALID, []),
    ],
)
def test_warnings(accept: Accept, text: str, expected: list[str]) -> None:
    """A source or sink without a route, a sink that a source reaches twice, and sessions that come twice are warnings with a place."""
    warnings = accept(text).warnings
    assert expected == [warning.where.split()[1] for warning in warnings]
    assert all(warning.mark for warning in warnings)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty"),
        (b"a: \xff\xfe", "the file is not UTF-8 text (line 1)"),
        (b"\n" * MAX_SIZE + b"#", "the file is larger than 1 MiB"),
    ],
)
def test_unreadable_content(tmp_path: Path, content: bytes, expected: str) -> None:
    """An empty, too large or otherwise encoded file is said to be so."""
    path = tmp_path / "lc.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert (expected, str(path)) == (caught.value.what, caught.value.where)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_unreadable_file(tmp_path: Path, name: str) -> None:
    """A file that is missing or a folder is a mistake that names it."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / name)
    assert str(tmp_path / name) == caught.value.where


def test_byte_order_mark(tmp_path: Path, toys: None) -> None:
    """A byte order mark, as some editors write it, does no harm."""
    path = tmp_path / "lc.yaml"
    path.write_text(VALID, encoding="utf-8-sig")
    assert load(path, {}).config.sources


def test_environment_is_the_process_by_default(tmp_path: Path, toys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``env`` the variables of the process count."""
    monkeypatch.setenv("TOY_STREAM", "audit")
    path = tmp_path / "lc.yaml"
    path.write_text(VALID.replace("heartbeat", 'heartbeat, stream: "${TOY_STREAM}"'))
    assert load(path).config.sources["beat"].stream == "audit"
