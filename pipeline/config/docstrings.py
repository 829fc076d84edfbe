"""The docstrings of a model's fields, read from its source when somebody asks for documentation.

Pydantic can do it for each model that is made, but then every start of the program reads and parses the source of all.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Mapping
from functools import cache

from pydantic import BaseModel


def meanings(model: type[BaseModel]) -> Mapping[str, str]:
    """What each field means: its ``description``, else its docstring, else the one that it inherits; others are left out."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= _of_class(base)
    texts = {name: field.description or found.get(name, "") for name, field in model.model_fields.items()}
    return {name: text for name, text in texts.items() if text}


@cache
def _of_class(model: type[BaseModel]) -> Mapping[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(model))
    except (OSError, TypeError):  # made at run time
        return {}
    (definition,) = ast.parse(source).body
    body = getattr(definition, "body", [])
    found: dict[str, str] = {}
    for field, after in itertools.pairwise(body):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found
