"""Which records an output lets through: the filter options that outputs and streams share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.emulator.records import Record

UNSUPPORTED = (
    "is_flat",
    "is_no_routing",
    "is_prefix_data",
    "is_payload_as_string",
    "is_json_list",
    "custom_transform",
    "rule_tag_white_list",
    "rule_tag_black_list",
)
"""Options that change records or need a rule's tags: the emulator says so instead of ignoring them."""


class UnsupportedError(ValueError):
    """An option asks for something that the emulator does not do."""


def flag(text: str) -> bool:
    """Whether a form's text means yes: booleans travel as the words true and false."""
    return text.strip().lower() in ("true", "1", "yes")


def _names(text: str) -> frozenset[str]:
    return frozenset(line.strip() for line in text.splitlines() if line.strip())


class Selection:
    """The filter of one connection, built from form fields; raises `UnsupportedError`.

    White and black lists are names separated by newlines; `sample_rate` N passes one record in N.
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        for name in UNSUPPORTED:
            if options.get(name) and options[name].strip().lower() not in ("false", "0"):
                raise UnsupportedError(f"{name} is not supported by the emulator")
        self._tag = options.get("tag", "").strip()
        self._tag_black_list = _names(options.get("tag_black_list", ""))
        self._cats = _names(options.get("cat_white_list", "")) | _names(options.get("cat", ""))
        self._cat_black_list = _names(options.get("cat_black_list", ""))
        self._types = _names(options.get("event_white_list", ""))
        self._type_black_list = _names(options.get("event_black_list", ""))
        self._sid = options.get("sid", "").strip()
        self._investigation = options.get("inv_id", "").strip()
        rate = options.get("sample_rate", "").strip() or "1"
        if not rate.isdecimal() or int(rate) < 1:
            raise UnsupportedError(f"sample_rate is not a number above 0: {rate[:40]}")
        self._rate = int(rate)
        self._seen = 0
        self.everything = self._rate == 1 and not (
            self._tag
            or self._tag_black_list
            or self._cats
            or self._cat_black_list
            or self._types
            or self._type_black_list
            or self._sid
            or self._investigation
        )

    def choose(self, records: Sequence[Record]) -> Sequence[Record]:
        return records if self.everything else [record for record in records if self._passes(record)]

    def _passes(self, record: Record) -> bool:
        if self._tag and self._tag not in record.tags:
            return False
        if self._tag_black_list and not self._tag_black_list.isdisjoint(record.tags):
            return False
        if (self._cats and record.cat not in self._cats) or record.cat in self._cat_black_list:
            return False
        if (self._types and record.event_type not in self._types) or record.event_type in self._type_black_list:
            return False
        if self._sid and record.sid != self._sid:
            return False
        # an investigation's records carry its name alone, or with "/" and the id of one request
        if self._investigation and (record.inv_id or "").partition("/")[0] != self._investigation:
            return False
        self._seen += 1
        return (self._seen - 1) % self._rate == 0
