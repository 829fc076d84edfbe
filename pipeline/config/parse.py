"""From the text of a configuration to plain data.

YAML 1.2, of which JSON is a part. The text is parsed first and `${…}` is replaced afterwards, inside string leaves only, so that
no value can change the structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pipeline.config.problem import ConfigProblem, Mark, Path
from pipeline.config.substitute import substitute
from pipeline.config.tree import Tree

MAX_DEPTH = 50
"""Levels of nesting at most."""
MAX_VALUES = 50_000
"""Values at most, each use of an alias counted anew."""

_TAG = "tag:yaml.org,2002:"
_QUOTE = (
    'Put the value in quotes, like "${LC_OID}" or "lc.{stream}": inside braces and brackets a bare { means a mapping.'
)


def parse(text: str, env: Mapping[str, str], file: str) -> Tree:
    """Read YAML. Mistakes are collected in the tree's ``problems``; only a text that is no YAML raises ConfigProblem."""
    return _Parser(env, Tree(file)).parse(text)


class _Parser:
    """Fills a tree."""

    def __init__(self, env: Mapping[str, str], tree: Tree) -> None:
        self._env = env
        self._tree = tree
        self._left = MAX_VALUES
        self._yaml = YAML(typ="safe", pure=True)

    def parse(self, text: str) -> Tree:
        root = self._compose(text)
        if root is None:
            raise ConfigProblem(
                "the file is empty", file=self._tree.file, fix="It needs at least sources, sinks and routes."
            )
        if not isinstance(root, MappingNode):
            raise self._problem("a configuration is a mapping", (), root, "It begins with lines like `sources:`.")
        self._tree.data = self._mapping(root, ())
        return self._tree

    def _compose(self, text: str) -> Node | None:
        self._yaml.composer.warn_double_anchors = False  # YAML allows to use an anchor's name again
        try:
            return cast("Node | None", self._yaml.compose(text))
        except RecursionError:
            raise ConfigProblem(f"the file is nested deeper than {MAX_DEPTH} levels", file=self._tree.file) from None
        except MarkedYAMLError as error:
            at = error.problem_mark or error.context_mark
            raise ConfigProblem(
                f"this is not YAML: {error.problem or error.context}",
                file=self._tree.file,
                mark=Mark(at.line + 1, at.column + 1) if at else None,
                fix=_yaml_fix(text, at.index) if at else "",
            ) from None
        except YAMLError as error:  # a character that YAML does not allow at all
            position = getattr(error, "position", 0)
            line = text.count("\n", 0, position) + 1
            raise ConfigProblem(
                "this is not YAML: a control character",
                file=self._tree.file,
                mark=Mark(line, position - text.rfind("\n", 0, position)),
                fix='Remove it, or write it as an escape in double quotes, like "\\x1b".',
            ) from None
        except ValueError:  # an escape beyond Unicode, or a number of a version directive
            raise ConfigProblem(
                "this is not YAML: it has an escape or a directive that means nothing", file=self._tree.file
            ) from None

    def _problem(self, what: str, path: Path, node: Node, fix: str = "") -> ConfigProblem:
        return ConfigProblem(what, fix=fix, file=self._tree.file, mark=_mark(node), path=path)

    def _report(self, what: str, path: Path, node: Node, fix: str = "") -> None:
        self._tree.problems.append(self._problem(what, path, node, fix))

    def _build(self, node: Node, path: Path) -> Any:
        self._left -= 1
        if self._left < 0:
            raise self._problem(f"the file has more than {MAX_VALUES} values (aliases count each time)", path, node)
        if len(path) > MAX_DEPTH:
            raise self._problem(f"the file is nested deeper than {MAX_DEPTH} levels", path[:5], node)
        self._tree.values[path] = _mark(node)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            items = [(*path, index) for index in range(len(node.value))]
            for item, value in zip(items, node.value, strict=True):
                self._tree.keys[item] = _mark(value)
            return [self._build(value, item) for item, value in zip(items, node.value, strict=True)]
        return self._scalar(cast("ScalarNode", node), path)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        if not str(node.tag).startswith(_TAG):
            self._report(f"the tag {node.tag} has no meaning here", path, node, "Remove it.")
        result: dict[str, Any] = {}
        for key, value in self._pairs(node, path):
            name = str(key.value)
            if not path and name.startswith("x-"):
                continue
            place = (*path, name)
            self._tree.keys[place] = _mark(key)
            result[name] = self._build(value, place)
        return result

    def _pairs(self, node: MappingNode, path: Path, around: int = 0) -> Iterator[tuple[ScalarNode, Node]]:
        """The pairs of a mapping: its own, then those of `<<` that it does not have itself."""
        seen: dict[str, Node] = {}
        merged: list[Node] = []
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                merged += value.value if isinstance(value, SequenceNode) else [value]
            elif not isinstance(key, ScalarNode):
                self._report("a key is plain text", path, key)
            elif (first := seen.get(key.value)) is not None:
                self._report(
                    "this key is given twice",
                    (*path, key.value),
                    key,
                    f"The first is in line {first.start_mark.line + 1}; keep one.",
                )
            else:
                seen[key.value] = key
                yield key, value
        for mapping in merged:
            if not isinstance(mapping, MappingNode):
                self._report("only a mapping can be merged with <<", path, mapping)
                continue
            self._left -= 1 + len(mapping.value)
            if self._left < 0 or around > MAX_DEPTH:
                raise self._problem("the merges in this file have no end", path, mapping)
            for key, value in self._pairs(mapping, path, around + 1):
                if key.value not in seen:
                    seen[key.value] = key
                    yield key, value

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        kind = str(node.tag).removeprefix(_TAG)
        construct: Callable[[Node], Any] | None = {
            "bool": self._yaml.constructor.construct_yaml_bool,
            "int": self._yaml.constructor.construct_yaml_int,
            "float": self._yaml.constructor.construct_yaml_float,
        }.get(kind)
        if construct:
            try:
                value = construct(node)
            except (ValueError, KeyError, OverflowError):
                value = math.nan
            if isinstance(value, float) and not math.isfinite(value):
                self._report("this is not a finite number", path, node)
                return 0
            return value
        if kind == "null":
            return None
        if kind not in ("str", "timestamp", "value", "merge"):
            self._report(f"the tag {node.tag} has no meaning here", path, node, "Remove it.")
        return self._string(node, path)

    def _string(self, node: ScalarNode, path: Path) -> str:
        try:
            # JSON writes characters beyond U+FFFF as two escapes, which YAML reads one by one
            text = str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._report("this text has half a surrogate pair in its escapes", path, node)
            return ""
        if "${" not in text:
            return text
        result = substitute(text, self._env, lambda what, fix: self._report(what, path, node, fix))
        self._tree.substituted[path] = result
        return result


def _mark(node: Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


def _yaml_fix(text: str, at: int) -> str:
    found = text[at : at + 1]
    if found == "\t":
        return "This is a tab; YAML is indented with spaces."
    if found == "{" and at and text[at - 1] not in " \t\n,[{:":
        return _QUOTE
    if found in ("@", "`", "%"):
        return "Put the value in quotes."
    if found == ":":
        return "A value that has a colon and a space in it must be in quotes."
    return ""
