"""Reads a configuration: parse, substitute, validate, check; all mistakes at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.config import checks
from pipeline.config.explain import explain
from pipeline.config.model import Config
from pipeline.config.problem import ConfigProblem
from pipeline.config.registry import Registry
from pipeline.config.tree import Tree
from pipeline.core.errors import ConfigError

MAX_SIZE = 1 << 20
"""Bytes of a configuration file at most."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration."""

    config: Config
    warnings: tuple[ConfigProblem, ...]
    """What is allowed but hardly meant."""
    registry: Registry
    """Gives the component classes that the configuration names."""
    text: str
    """What was read, as it was written; "" of one that a program made."""
    file: str
    """What its mistakes are told with."""


def load(path: str | Path, env: Mapping[str, str] | None = None) -> Loaded:
    """Read a YAML or JSON file; ``env`` (default: the process's) is what ``${VAR}`` asks. Raises ConfigError."""
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise ConfigError(
            f"the file cannot be read: {error.strerror or error}", where=name, fix="Check the path and its permissions."
        ) from error
    except ValueError:
        raise ConfigError("this is not a file name", where=repr(name)) from None
    if len(content) > MAX_SIZE:
        raise ConfigError(f"the file is larger than {MAX_SIZE >> 20} MiB", where=name, fix="Is it a configuration?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"the file is not UTF-8 text (line {line})", where=name, fix="Save it with the encoding UTF-8."
        ) from None
    return loads(text, env, file=name)


def loads(text: str, env: Mapping[str, str] | None = None, *, file: str = "config") -> Loaded:
    """Read the text of a configuration. Raises ConfigError with all its mistakes in ``problems``."""
    from pipeline.config.parse import parse  # not what a program made needs: `tail` starts without YAML

    return _checked(parse(text, os.environ if env is None else env, file), text)


def made(data: Mapping[str, Any], *, file: str) -> Loaded:
    """Check a configuration that a program made; nothing in it is substituted. Raises ConfigError as `loads` does."""
    return _checked(Tree(file, data), "")


def _checked(tree: Tree, text: str) -> Loaded:
    registry = Registry()
    problems = [*tree.problems]
    config = None
    try:
        config = Config.model_validate(tree.data, context={"registry": registry})
    except ValidationError as error:
        problems += explain(error, tree, registry)
    parts = checks.sound_parts(tree.data, [problem.path for problem in problems], registry)
    problems += [*checks.check_names(tree), *checks.check_together(parts, tree, registry)]
    if config is None or problems:
        raise _together(problems, tree.file)
    return Loaded(config, tuple(checks.warnings(config, tree)), registry, text, tree.file)


def _together(problems: Iterable[ConfigProblem], file: str) -> ConfigError:
    """One error of many. Of several at one place the first counts: the others follow from it."""
    first: dict[object, ConfigProblem] = {}
    for problem in problems:
        first.setdefault((problem.mark, problem.path[-1:]), problem)
    found = sorted(first.values(), key=lambda problem: problem.mark or (0, 0))
    if len(found) == 1:
        return found[0]
    return ConfigError(f"{len(found)} mistakes", where=file, problems=tuple(found))
