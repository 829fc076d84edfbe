"""The analyst's short form of one condition, as in ``tail --filter 'priority>4'``."""

from __future__ import annotations

import re
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.rules.compile import compile_rule
from pipeline.rules.condition import RuleError

_PARTS = re.compile(r"\s*([^=!<>~]*?)\s*(!=|[=<>~])\s*(.*?)\s*", re.DOTALL)
_OPS: dict[str, tuple[str, str]] = {
    "=": ("is", "value"),
    "!=": ("is", "value"),
    ">": ("is greater than", "value"),
    "<": ("is lower than", "value"),
    "~": ("matches", "re"),
}

_NOUNS = {"re": "regular expression"}
_WHOLE = {"must": "it must", "holds": "it holds", "not": "it is not"}
"""First words of a complaint about a key, and how they begin a sentence."""


def parse_expression(text: str) -> dict[str, Any]:
    """Return the rule for ``PATH=VALUE`` (also ``!=``, ``>``, ``<``, ``~``). Raises `UsageError` for anything else.

    ``=`` and ``!=`` are the operator ``is`` (``!=`` also holds where the path is absent), ``>`` and ``<`` compare numbers, and ``~``
    looks for a regular expression anywhere in the value, in upper or lower case. A value in quotes is taken without them; one that
    begins with an operator sign must be in quotes.
    """
    parts = _PARTS.fullmatch(text)
    if not parts or not parts[1]:
        raise UsageError(
            f"The filter {text!r} is not a path, a sign and a value.",
            fix="Use = != > < or ~, as in 'priority>4' or 'routing/hostname~^web'.",
        )
    path, sign, value = parts.groups()
    if value[:1] in tuple("=<>~"):
        fix = f"Use {sign} alone" + (", with the next number." if value[0] == "=" and sign in "<>" else ".")
        raise UsageError(
            f"The sign {sign}{value[0]} in the filter {text!r} is not known.",
            fix=f"{fix} Put a value that begins so in quotes.",
        )
    if len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]:
        value = value[1:-1]
    op, key = _OPS[sign]
    rule: dict[str, Any] = {"op": op, "path": path, key: value}
    if sign == "!=":
        rule["not"] = True
    try:
        compile_rule(rule)
    except RuleError as error:
        word, space, rest = error.what.partition(" ")
        number = error.where == "value" and sign in "<>"
        fix = "Only numbers are compared by > and <; use = or ~ for text." if number else error.fix
        raise UsageError(
            f"The {_NOUNS.get(error.where, error.where)} in the filter {text!r} is wrong:"
            f" {_WHOLE.get(word, word)}{space}{rest}",
            fix=fix,
        ) from None
    return rule
