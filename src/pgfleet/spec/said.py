"""What each key is for, as the models' own sources say it: the string below a field is its description.

pydantic can collect these itself, but only by reading the sources whenever a model is made, which every command would pay for.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache

from pgfleet.spec.part import Part


@cache
def said_of(model: type[Part]) -> dict[str, str]:
    """Key (as in the file) -> what it is for, inherited ones included."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, Part) and kind is not Part:
            found |= _own(kind)
    return {field.alias or name: found[name] for name, field in model.model_fields.items() if name in found}


def _own(model: type[Part]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - the source of a class
    said: dict[str, str] = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            said[field.target.id] = " ".join(below.value.value.split())
    return said
