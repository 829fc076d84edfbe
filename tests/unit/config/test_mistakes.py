"""Each mistake with its place, what was expected, and a guess at what was meant."""

from collections.abc import Callable

import pytest

from .conftest import VALID

Refuse = Callable[..., list[str]]


HERE = "§"
"""Marks the place in a text that the message shall give."""


def one(refuse: Refuse, marked: str) -> str:
    """Return the only mistake of a text with a mark, without its place, which is checked here."""
    at = marked.index(HERE)
    place = f"{marked.count(chr(10), 0, at) + 1}:{at - marked.rfind(chr(10), 0, at)} "
    (problem,) = refuse(marked.replace(HERE, ""))
    assert problem.startswith(place), problem
    return problem.removeprefix(place)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("type: bin", "type: §bim", "sinks.bin.type: there is no sink of type 'bim' | Did you mean bin? "),
        ("bin: {type: bin}", "§bin: {path: x}", "sinks.bin.type: this key is missing | "),
        ("{type: bin}", "§bin", "sinks.bin: should be a mapping with a `type` | "),
        ("{type: bin}", "{type: §5}", "sinks.bin.type: should be text | "),
        ("type: bin", "type: bin, §pth: x", "sinks.bin.pth: this key is unknown | Did you mean path? "),
        (
            "type: bin",
            "type: bin, batch: {§max_event: 1}",
            "sinks.bin.batch.max_event: this key is unknown | Did you mean max_events? ",
        ),
        ("type: bin", "type: bin, depth: §deep", "sinks.bin.depth: should be a whole number, not 'deep' | "),
        ("type: bin", "type: bin, depth: §0", "sinks.bin.depth: should be greater than 0, not 0 | "),
        ("type: bin", "type: bin, timeout: §soon", "sinks.bin.timeout: a duration is a number of seconds"),
        ("type: bin", "type: bin, path: §'{stream}'", "sinks.bin.path: a template begins with a literal"),
        ("all: {from: beat, ", "§all: {", "routes.all.from: this key is missing | "),
        ("from: beat", "from: §[]", "routes.all.from: should not be empty | "),
        ("from: beat", "from: §beet", "routes.all.from: 'beet' is not one of the sources | Did you mean beat? "),
        ("to: bin", "to: [bin, §bim]", "routes.all.to[1]: 'bim' is not one of the sinks | Did you mean bin? "),
        ("to: bin", "to: [bin, §bin]", "routes.all.to[1]: this name is in the list twice | "),
        ("to: bin", "to: bin, filters: [{type: §odd}]", "routes.all.filters[0].type: there is no filter of type 'odd'"),
        (
            "to: bin",
            "to: bin, filters: [{type: even, §x: 1}]",
            "routes.all.filters[0].x: this key is unknown | Not used yet: name.",
        ),
        (
            "to: bin",
            "to: bin, filters: [{type: even, name: a}, {type: even, name: §a}]",
            "routes.all.filters[1].name: another filter has this name",
        ),
        ("to: bin", "to: bin, filters: [{type: even, name: §A b}]", "routes.all.filters[0].name: a filter's name"),
        (
            "to: bin",
            "to: bin, on_full: §blok",
            "routes.all.on_full: should be 'block' or 'drop_oldest', not 'blok' | Did you mean block?",
        ),
        ("to: bin", "to: bin, dedupe: {entries: §5}", "routes.all.dedupe.entries: "),
        ("to: bin", "to: bin, filters: [{type: even, name: §''}]", "routes.all.filters[0].name: a filter's name"),
        ("  beat:", "  beat: {type: heartbeat}\n  §Beat.1:", "sources.Beat.1: a name has lower-case letters"),
        (
            "heartbeat",
            "heartbeat, max_record: §17MiB",
            "sources.beat.max_record: one record may have 17MiB, more than a quarter of the spool's 64MiB | Set max_record to",
        ),
        (
            "sinks:",
            "sinks:\n  act: {type: §reliable_task, task: os_version}",
            "sinks.act.type: a sink of type `reliable_task` needs the disk spool",
        ),
        (
            "to: bin",
            "to: bin, dedupe: §true}\nspool: {type: disk, path: /s, max_size: 64MiB",
            "routes.all.dedupe: the ids that `dedupe` remembers may take 30.52MiB, more than a quarter of the spool's 64MiB",
        ),
        ("heartbeat", "heartbeat, orgs: [§acme]", "sources.beat.orgs[0]: 'acme' is not one of the orgs | "),
        ("heartbeat", "heartbeat, orgs: §5", "sources.beat.orgs: should be 'all' or a list | "),
        ("heartbeat", "heartbeat, tls: §on", "sources.beat.tls: should be 'off' or a mapping | "),
        ("heartbeat", "heartbeat, §tls: {cert: a}", "sources.beat.tls.key: this key is missing | "),
        ("heartbeat", "heartbeat, tls: {cert: a, key: b, §kea: c}", "sources.beat.tls.kea: this key is unknown"),
    ],
)
def test_one_mistake(refuse: Refuse, old: str, new: str, expected: str) -> None:
    """A single mistake gives a single message, at the place where it is."""
    assert old in VALID
    problem = one(refuse, VALID.replace(old, new, 1))
    assert problem.startswith(expected), problem


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("§sink: {}", "sink: this key is unknown | "),
        ("spool: §{type: ram}", "spool: its 'type' should be 'memory' or 'disk' | "),
        ("spool: §{path: /data/spool}", "spool: the key 'type' is missing | "),
        (
            "dead_letter: {max_size: §32MiB}",
            "dead_letter.max_size: a record of the source `beat` may have 16MiB, and its letter may never fit: ",
        ),
        ("admin: {listen: §nowhere}", "admin.listen: an address is host:port"),
        ("stop_timeout: §later", "stop_timeout: a duration is"),
        ("orgs: {§acme: {}}", "orgs.acme: this organization has no oid | "),
        ("orgs: {acme: {oid: §x}}", "orgs.acme.oid: an organization id is a UUID"),
        ("limacharlie: {url: §'ftp://x'}", "limacharlie.url: an address is like https"),
    ],
)
def test_sections(refuse: Refuse, line: str, expected: str) -> None:
    """A mistake in any section has its place."""
    problem = one(refuse, VALID + line)
    assert problem.startswith(expected), problem


def test_all_at_once(refuse: Refuse) -> None:
    """All mistakes are found in one go, in the order of the file, whatever kind they are of."""
    text = VALID.replace("heartbeat", 'heartbeat, interval: "${NOPE}", streem: x').replace("to: bin", "to: bim")
    problems = refuse(text + "stop_timeout: x\nsinks: {}\n")
    assert [problem.split(": ")[0].split()[1].split(".")[-1] for problem in problems] == [
        "interval",
        "streem",
        "to",
        "stop_timeout",
        "sinks",
    ]


EACH = """
limacharlie: {url: 'ftp://x'}
orgs:
  a: {oid: 8cbe27f4-bfa1-4afb-ba19-138cd51389cd}
  b: {oid: 8cbe27f4-bfa1-4afb-ba19-138cd51389cd}
  c: {}
  d: {oid: x}
sources:
  one: {type: heartbeat, streem: x}
  two: {type: heartbeat, max_record: 20MiB}
sinks:
  bin: {type: bim}
routes:
  all: {from: two, to: bin, on_full: no, filters: [{type: odd}, {type: even, name: A}]}
spool: {max_size: 10MiB}
dead_letter: {max_size: 40MiB}
"""


def test_a_mistake_does_not_hide_how_the_rest_fits_together(refuse: Refuse) -> None:
    """What no section can know alone is checked among the parts that have no mistake of their own."""
    assert [problem.split(": ")[0].split()[1] for problem in refuse(EACH)] == [
        "limacharlie.url",
        "orgs.b.oid",
        "orgs.c",
        "orgs.d.oid",
        "sources.one.streem",
        "sources.two.max_record",
        "sinks.bin.type",
        "routes.all.on_full",
        "routes.all.filters[0].type",
        "routes.all.filters[1].name",
        "dead_letter.max_size",
    ]


def test_a_wrong_limit_is_no_measure_for_others(refuse: Refuse) -> None:
    """A spool and a dead letter that have a mistake are not compared with their defaults in their place."""
    text = VALID.replace("heartbeat", "heartbeat, max_record: 600MiB")
    problems = refuse(text + "spool: {type: disk, path: x, max_sise: 9GiB}\ndead_letter: {max_size: much}\n")
    assert ["max_sise", "max_size"] == [problem.split(": ")[0].split(".")[-1] for problem in problems]


@pytest.mark.parametrize("path", ["/data/{stream}.jsonl", "/data//./{stream}.jsonl"])
def test_two_sinks_in_one_file(refuse: Refuse, path: str) -> None:
    """Two sinks `file` that write to one path would damage each other's files."""
    sinks = f"bin: {{type: file, path: '/data/{{stream}}.jsonl'}}\n  more: {{type: file, path: §'{path}'}}"
    problem = one(refuse, VALID.replace("bin: {type: bin}", sinks))
    assert problem.startswith("sinks.more.path: the sinks `bin` and `more` have the same path | ")


@pytest.mark.parametrize(
    ("sources", "admin", "who"),
    [
        ("a: {type: firehose}\n  b: {type: firehose, listen: §':4443'}", "", "the source `a` and the source `b`"),
        ("a: {type: firehose}", "admin: {listen: §':4443'}", "the source `a` and the section `admin`"),
    ],
)
def test_two_listeners_on_one_address(refuse: Refuse, sources: str, admin: str, who: str) -> None:
    """Two who listen on one address are both named."""
    problem = one(refuse, VALID.replace("sinks:", f"  {sources}\nsinks:") + admin)
    assert f"{who} both listen on :4443 | " in problem


def test_missing_sections(refuse: Refuse) -> None:
    """A configuration without sources, sinks and routes says that they are missing."""
    assert refuse("log: {}") == [
        f"lc.yaml {section}: this key is missing | " for section in ("sources", "sinks", "routes")
    ]


def test_same_oid_twice(refuse: Refuse) -> None:
    """Two organizations cannot be the same one."""
    oid = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
    (problem,) = refuse(VALID + f"orgs: {{a: {{oid: {oid}}}, b: {{oid: {oid}}}}}")
    assert "orgs.b.oid: `a` has the same oid" in problem


SPOUT = """
limacharlie: {oid: 8cbe27f4-bfa1-4afb-ba19-138cd51389cd}
sources: {tap: {type: spout, BACKFILL}}
sinks: {out: {type: stdout}}
routes: {all: {from: tap, to: out, dedupe: DEDUPE}}
spool: {SPOOL}
"""


@pytest.mark.parametrize(
    ("backfill", "dedupe", "spool", "expected"),
    [
        ("backfill: true", "true", "type: memory", ["sources.tap.backfill: `backfill` needs the disk spool"]),
        (
            "backfill: {delay: 1m}",
            "false",
            "type: disk, path: /s",
            ["sources.tap.backfill: `backfill` needs `dedupe` on"],
        ),
        (
            "backfill: true, stream: billing",
            "true",
            "type: disk, path: /s",
            ["sources.tap.backfill: LimaCharlie keeps no"],
        ),
        (
            "options: {is_flat: true}, backfill: true",
            "true",
            "type: disk, path: /s",
            ["sources.tap.backfill: the history"],
        ),
        ("backfill: {delai: 1m}", "true", "type: disk, path: /s", ["sources.tap.backfill.delai: this key is unknown"]),
    ],
)
def test_backfill_says_what_it_needs(
    refuse: Refuse, backfill: str, dedupe: str, spool: str, expected: list[str]
) -> None:
    """Without a spool that knows what was delivered, or of records that no history has, `backfill` is a mistake with its place."""
    problems = refuse(SPOUT.replace("BACKFILL", backfill).replace("DEDUPE", dedupe).replace("SPOOL", spool))
    assert [
        problem.split(" ", 1)[1][: len(start)] for problem, start in zip(problems, expected, strict=True)
    ] == expected
