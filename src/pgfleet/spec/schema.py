"""The JSON Schema of the file, for editors. It knows structure; what only ``check`` knows is left to it."""

from __future__ import annotations

from typing import Any

from pgfleet.spec.fleet import Fleet
from pgfleet.spec.keys import PLACES
from pgfleet.spec.part import Part
from pgfleet.spec.said import said_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema; equal for equal versions of this package and pydantic."""
    made = Fleet.model_json_schema(by_alias=True, mode="validation")
    _describe(made, Fleet)
    for _, model in PLACES.values():
        if model is not Fleet:
            _describe(made["$defs"][model.__name__], model)
    return {"$schema": DIALECT, **_said_once(made)}


def _describe(definition: dict[str, Any], model: type[Part]) -> None:
    """Write what each key is for beside it."""
    body = next((form for form in definition.get("anyOf", ()) if "properties" in form), definition)
    for key, text in said_of(model).items():
        body["properties"][key]["description"] = text


def _said_once(value: Any) -> Any:
    """Without pydantic's titles, which repeat each key."""
    if isinstance(value, dict):
        return {key: _said_once(inner) for key, inner in value.items() if not (key == "title" and isinstance(inner, str))}
    return [_said_once(inner) for inner in value] if isinstance(value, list) else value
