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


def parse_expression(text: str) -> dict[str, Any]:
    """Return the rule for ``PATH=VALUE`` (also ``!=``, ``>``, ``<``, ``~``). Raises `UsageError` for anything else.

    ``=`` and ``!=`` are the operator ``is`` (``!=`` also holds where the path is absent), ``>`` and ``<`` compare numbers, and ``~``
    looks for a regular expression anywhere in the value, in upper or lower case. A value in quotes is taken without them; one that
    begins with an operator sign must be in quotes.
    """
    where = f"the filter {text!r}"
    parts = _PARTS.fullmatch(text)
    if not parts or not parts[1]:
        raise UsageError(
            "is not PATH=VALUE.", where=where, fix="Use = != > < or ~, as in 'priority>4' or 'routing/hostname~^web'."
        )
    path, sign, value = parts.groups()
    if value[:1] in tuple("=<>~"):
        fix = f"Use {sign} alone" + (", with the next number." if value[0] == "=" and sign in "<>" else ".")
        raise UsageError(
            f"{sign}{value[0]} is not known.", where=where, fix=f"{fix} Put a value that begins so in quotes."
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
        raise UsageError(f"{error.where}: {error.what}", where=where, fix=error.fix) from None
    return rule
