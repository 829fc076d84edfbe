"""Turns a rule as written into a function that decides about a decoded record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.rules.condition import Condition, Location, RuleError, Test, kind_of, suggestion
from pipeline.rules.eventtype import event_type
from pipeline.rules.operators import OPERATORS
from pipeline.rules.paths import MAX_NODES, Budget

MAX_DEPTH = 32
"""Levels of ``rules`` in ``rules`` at most."""
MAX_CONDITIONS = 10_000
"""Conditions in one rule at most."""


def compile_rule(rule: Mapping[str, Any]) -> Callable[[Any], bool]:
    """Return a function that says whether a record (as `orjson.loads` gives it) satisfies ``rule``.

    Raises `RuleError` for a rule that is not right, with every condition's first mistake. The function raises `TooComplex`, and
    nothing else, for a record that costs too much to decide; its conditions share one budget of nodes. It keeps no state.
    """
    test = _Compiler().condition(rule, ())
    return lambda doc: test(doc, [MAX_NODES])


class _Compiler:
    def __init__(self) -> None:
        self._conditions = 0

    def condition(self, rule: Any, location: Location) -> Test:
        if not isinstance(rule, Mapping):
            raise RuleError(f"a condition must be an object with `op`, not {kind_of(rule)}.", location)
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise RuleError(f"the rule has more than {MAX_CONDITIONS} conditions.", location)
        op = rule.get("op")
        operator = OPERATORS.get(op) if isinstance(op, str) else None
        if operator is None:
            what = "'op' is missing." if op is None else f"{op!r} is no operator."
            raise RuleError(what, (*location, "op"), fix=suggestion(op or "", OPERATORS))
        condition = Condition(rule, location, self._rules)
        # `and` and `or` have nothing of their own to compare, and whether they would hand it down is not documented
        cased = () if "rules" in operator.required else ("case sensitive",)
        condition.expect(("op", *operator.required), ("not", "event", "events", *operator.optional, *cased))
        negated = condition.flag("not", default=False)
        condition.flag("case sensitive", default=True)
        types = condition.event_types()
        test = operator.build(condition)
        if negated:
            test = _negated(test)
        return test if types is None else _of_types(types, test)

    def _rules(self, rules: Any, location: Location) -> list[Test]:
        if not isinstance(rules, list) or not rules:
            raise RuleError(
                f"must be a list of conditions, not {'empty' if rules == [] else kind_of(rules)}.", location
            )
        if len(location) > MAX_DEPTH * 2:
            raise RuleError(f"rules are nested deeper than {MAX_DEPTH} levels.", location)
        tests: list[Test] = []
        mistakes: list[RuleError] = []
        for index, rule in enumerate(rules):
            try:
                tests.append(self.condition(rule, (*location, index)))
            except RuleError as error:
                mistakes.extend(error.mistakes)
        if mistakes:
            raise RuleError.joined(mistakes)
        return tests


def _negated(test: Test) -> Test:
    def negated(doc: Any, budget: Budget) -> bool:
        return not test(doc, budget)

    return negated


def _of_types(types: frozenset[str], test: Test) -> Test:
    def of_types(doc: Any, budget: Budget) -> bool:
        return doc.__class__ is dict and event_type(doc) in types and test(doc, budget)

    return of_types
