"""Turns a rule as written into a function that decides about a decoded record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.rules.condition import Condition, Location, RuleError, kind_of, suggestion
from pipeline.rules.eventtype import event_type
from pipeline.rules.operators import OPERATORS
from pipeline.rules.paths import MAX_NODES, Budget, Resolver, compile_path
from pipeline.rules.straight import straight
from pipeline.rules.tree import Holds, Leaf, Node, Rule

MAX_DEPTH = 32
"""Levels of ``rules`` in ``rules`` at most."""
MAX_CONDITIONS = 10_000
"""Conditions in one rule at most."""


Test = Callable[[Any, Budget], bool]
"""One condition as a function that may spend so much on a record."""


def compile_rule(rule: Mapping[str, Any]) -> Rule:
    """Return a function that says whether a record satisfies ``rule``.

    Raises `RuleError` for a rule that is not right, with every condition's first mistake. The function raises `TooComplex` for a
    record that costs too much to decide; its conditions share one budget of nodes. What it remembers makes no difference.
    """
    node = _Reader().condition(rule, ())
    test = _test(node)

    def general(doc: Any, _: int = 0) -> bool:
        return test(doc, [MAX_NODES])

    return straight(node, general) or general


class _Reader:
    def __init__(self) -> None:
        self._conditions = 0

    def condition(self, rule: Any, location: Location) -> Node:
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
        return Node(operator.read(condition), negated, types)

    def _rules(self, rules: Any, location: Location) -> tuple[Node, ...]:
        if not isinstance(rules, list) or not rules:
            raise RuleError(
                f"must be a list of conditions, not {'empty' if rules == [] else kind_of(rules)}.", location
            )
        if len(location) > MAX_DEPTH * 2:
            raise RuleError(f"rules are nested deeper than {MAX_DEPTH} levels.", location)
        nodes: list[Node] = []
        mistakes: list[RuleError] = []
        for index, rule in enumerate(rules):
            try:
                nodes.append(self.condition(rule, (*location, index)))
            except RuleError as error:
                mistakes.extend(error.mistakes)
        if mistakes:
            raise RuleError.joined(mistakes)
        return tuple(nodes)


def _test(node: Node) -> Test:
    what = node.what
    if isinstance(what, Leaf):
        test = _any(compile_path(what.path, elements=what.elements), what.holds)
    else:
        test = (_every if what.every else _some)([_test(one) for one in what.rules])
    if node.negated:
        test = _negated(test)
    return test if node.types is None else _of_types(node.types, test)


def _any(values: Resolver, holds: Holds) -> Test:
    def test(doc: Any, budget: Budget) -> bool:
        for value in values(doc, budget):  # noqa: SIM110 - any() with a generator takes twice as long
            if holds(value):
                return True
        return False

    return test


def _every(tests: Sequence[Test]) -> Test:
    def test(doc: Any, budget: Budget) -> bool:
        for each in tests:  # noqa: SIM110 - all() with a generator takes twice as long
            if not each(doc, budget):
                return False
        return True

    return test


def _some(tests: Sequence[Test]) -> Test:
    def test(doc: Any, budget: Budget) -> bool:
        for each in tests:  # noqa: SIM110 - any() with a generator takes twice as long
            if each(doc, budget):
                return True
        return False

    return test


def _negated(test: Test) -> Test:
    def negated(doc: Any, budget: Budget) -> bool:
        return not test(doc, budget)

    return negated


def _of_types(types: frozenset[str], test: Test) -> Test:
    def of_types(doc: Any, budget: Budget) -> bool:
        return doc.__class__ is dict and event_type(doc) in types and test(doc, budget)

    return of_types
