"""A rule as one function without calls from condition to condition: for records that are as nearly all are."""

from __future__ import annotations

from typing import Any

from pipeline.rules.eventtype import event_type
from pipeline.rules.paths import parse_path
from pipeline.rules.tree import Group, Leaf, Node, Rule, anything

MAX_LEAVES = 256
"""Conditions at most in a rule that is made into one function."""


def straight(rule: Node, general: Rule) -> Rule | None:
    """Return the function, or None where the rule needs more than looks at certain places.

    It decides as ``general`` does, and asks that about a record with a list on the way to a place, from the beginning. Its second
    argument is not looked at.
    """
    writer = _Writer(general)
    return writer.function() if writer.condition(rule, "    ") else None


class _Writer:
    """Writes Python. No word of the rule gets into the text, only the names of values."""

    def __init__(self, general: Rule) -> None:
        self._lines = [
            "def rule(doc, _=0):",
            "    if doc.__class__ is not dict:",
            "        return general(doc)",
        ]
        self._names: dict[str, Any] = {"general": general, "event_type": event_type, "missing": object()}
        self._leaves = 0

    def function(self) -> Rule:
        text = "\n".join([*self._lines, "    return held"])
        exec(compile(text, "<rule>", "exec"), self._names)  # noqa: S102 - the text is made here, of words that are known
        made: Rule = self._names["rule"]
        return made

    def condition(self, node: Node, indent: str) -> bool:
        """Write what sets ``held``; False where that cannot be."""
        inner = indent
        if node.types is not None:
            self._write(indent, f"held = event_type(doc) in {self._name(node.types)}", "if held:")
            inner += "    "
        what = node.what
        if not (self._leaf(what, inner) if isinstance(what, Leaf) else self._group(what, inner)):
            return False
        if node.negated:
            self._write(inner, "held = not held")
        return True

    def _group(self, group: Group, indent: str) -> bool:
        first, *rest = group.rules
        if not self.condition(first, indent):
            return False
        for node in rest:
            self._write(indent, "if held:" if group.every else "if not held:")
            if not self.condition(node, f"{indent}    "):
                return False
        return True

    def _leaf(self, leaf: Leaf, indent: str) -> bool:
        steps = parse_path(leaf.path)
        self._leaves += 1
        if "?" in steps or "*" in steps or self._leaves > MAX_LEAVES:
            return False
        self._write(indent, f"found = doc.get({self._name(steps[0])}, missing)" if steps else "found = doc")
        for step in steps[1:]:
            self._write(
                indent,
                "if found.__class__ is dict:",
                f"    found = found.get({self._name(step)}, missing)",
                "elif found.__class__ is list:",
                "    return general(doc)",
                "else:",
                "    found = missing",
            )
        if leaf.holds is anything and not leaf.elements:
            self._write(indent, "held = found is not missing")
            return True
        if leaf.text:
            self._write(
                indent, f"wanted = {self._name(leaf.wanted)}", "if found.__class__ is str:", f"    held = {leaf.text}"
            )
        self._write(indent, f"{'elif' if leaf.text else 'if'} found is missing:", "    held = False")
        if leaf.elements:
            self._write(indent, "elif found.__class__ is list:", "    return general(doc)")
        self._write(indent, "else:", f"    held = {self._name(leaf.holds)}(found)")
        return True

    def _write(self, indent: str, *lines: str) -> None:
        self._lines += [indent + line for line in lines]

    def _name(self, value: Any) -> str:
        name = f"value_{len(self._names)}"
        self._names[name] = value
        return name
