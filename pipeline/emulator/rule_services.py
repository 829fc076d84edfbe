"""The extensions that hold rules for sensors: ``ext-exfil``, ``ext-integrity``, ``ext-artifact`` (before: the service logging).

They keep what they are told and give it back; no sensor follows it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from pipeline.emulator.extensions import ActionError
from pipeline.emulator.state import Org

MAX_RULES = 1000

_FIELDS: dict[str, dict[str, Any]] = {
    "name": {"data_type": "string", "is_required": True},
    "tags": {"data_type": "string", "is_list": True},
    "platforms": {"data_type": "string", "is_list": True},
}


@dataclass(frozen=True)
class Kind:
    """One kind of rule; `group` is under which name it is listed, and "" if there is only one kind."""

    group: str
    add: str
    remove: str
    keeps: tuple[str, ...]
    """Parameters that are kept besides filters."""


class RuleExtension:
    def __init__(self, name: str, label: str, kinds: tuple[Kind, ...]) -> None:
        self.name = name
        self.label = label
        self._kinds = kinds
        self.actions: dict[str, dict[str, dict[str, Any]]] = {
            "list_rules": {},
            **{kind.add: _FIELDS for kind in kinds},
            **{kind.remove: {"name": _FIELDS["name"]} for kind in kinds},
        }
        self._rules: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)

    def request(self, org: Org, action: str, data: dict[str, Any]) -> Any:
        if action == "list_rules":
            groups = {kind.group: self._rules[org.oid, kind.group] for kind in self._kinds}
            return groups.get("", groups)
        kind = next(kind for kind in self._kinds if action in (kind.add, kind.remove))
        rules, name = self._rules[org.oid, kind.group], data.get("name")
        if not isinstance(name, str) or not name:
            raise ActionError("missing parameter name")
        if action == kind.remove:
            if rules.pop(name, None) is None:
                raise ActionError(f"unknown rule {name[:80]}")
            return {}
        if len(rules) >= MAX_RULES and name not in rules:
            raise ActionError(f"more than {MAX_RULES} rules")
        filters = {"tags": data.get("tags") or [], "platforms": data.get("platforms") or []}
        kept = {field: data[field] for field in kind.keeps if field in data}
        rules[name] = {**kept, "filters": filters, "by": "api", "updated": int(time.time())}
        return {}


def rule_extensions() -> list[RuleExtension]:
    logging = ("patterns", "days_retention", "is_delete_after", "is_ignore_cert")
    return [
        RuleExtension(
            "ext-exfil",
            "Exfil",
            (
                Kind("list", "add_event_rule", "remove_event_rule", ("events",)),
                Kind("watch", "add_watch", "remove_watch", ("event", "operator", "value", "path")),
                Kind("perf", "add_perf_rule", "remove_perf_rule", ()),
            ),
        ),
        RuleExtension("ext-integrity", "Integrity", (Kind("", "add_rule", "remove_rule", ("patterns",)),)),
        RuleExtension("ext-logging", "Logging", (Kind("", "add_rule", "remove_rule", logging),)),
        RuleExtension("ext-artifact", "Artifact", (Kind("", "add_rule", "remove_rule", logging),)),
    ]
