"""Records that are valid JSON and mean harm: for the fault scenarios."""

from __future__ import annotations

import json

from pipeline.emulator.records import Dice

_STRANGE = (
    "../../../../etc/cron.d/owned",
    "..\\..\\..\\Windows\\System32\\drivers\\etc\\hosts",
    "/etc/passwd",
    "C:\\Windows\\win.ini",
    "..",
    ".",
    "",
    " ",
    "nul\x00byte/../x",
    'line\nbreak\r\nand {"__trace":"connected"}',
    "\x1b[2J\x1b]0;owned\x07terminal",
    "\u202egnp.exe\u202c\u2066rtl\u2069",
    "\u200b\ufeffinvisible\u2028line\u2029paragraph",
    "e\u0301" * 40,
    "\U0001f600\U0010ffff\uffff",
    "{stream}/%Y/${LC_API_KEY}/%(x)s/%n",
    "a/b?c#d&e=f;g|h`id`$(id)",
    "CON",
    "__overflow__",
    "error: unauthorized",
)
_NUMBERS = (
    "18446744073709551616",
    "-9223372036854775809",
    "9" * 300,
    "-1.7976931348623157e308",
    "5e-324",
    "1e-400",
    "-0.0",
    "0." + "3" * 1000,
)


def hostile(
    seed: int, *, oid: str = "", distinct: int = 10_000, string_bytes: int = 1 << 20, depth: int = 500
) -> list[bytes]:
    """Return records that every JSON parser takes and a careless receiver trips over, the same for the same arguments.

    They are events with hostile parts, with ``oid`` in their routing if it is given: names that steer paths, terminals and
    templates, in every field that a template is likely to use; nesting of ``depth``; numbers beyond 64 bits; duplicate keys;
    a string of ``string_bytes`` bytes; and ``distinct`` records with a host name of their own each.
    """
    dice = Dice(seed, "hostile")

    def record(event: str, **routing: str) -> bytes:
        known = {"oid": oid} if oid else {}
        head = {
            **known,
            "event_id": dice.uuid(),
            "event_time": 1_700_000_000_000,
            "event_type": "NEW_PROCESS",
            "sid": dice.uuid(),
            **routing,
        }
        return b'{"event":%b,"routing":%b}' % (
            event.encode(),
            json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode(),
        )

    names = [json.dumps(name, ensure_ascii=escaped) for name in _STRANGE for escaped in (True, False)]
    return [
        *(record(f'{{"FILE_PATH":{name},{name}:{name}}}') for name in names),
        *(
            record("{}", **{field: name})
            for field in ("event_type", "hostname", "sid", "event_id", "this")
            for name in _STRANGE
        ),
        record('{"V":' * (depth - 2) + "1" + "}" * (depth - 2)),
        record('{"V":' + "[" * (depth - 3) + "]" * (depth - 3) + "}"),
        *(record(f'{{"PROCESS_ID":{number},"TIMESTAMP":{number}}}') for number in _NUMBERS),
        record('{"FILE_PATH":"a","FILE_PATH":"../b","FILE_PATH":{"FILE_PATH":null}}'),
        record('{},"event":[],"routing":{"hostname":"first","event_type":"first"}'),
        record('{"FILE_PATH":"%s"}' % ("x" * string_bytes)),
        record('{"FILE_PATH":"%s"}' % ("\\u0041" * (string_bytes // 6))),
        record("null"),
        record('[{"FILE_PATH":true}]'),
        *(record("{}", hostname=f"host-{number}-{dice.bits(32):08x}") for number in range(distinct)),
    ]
