"""The words of the file: names, counts, durations, percentages and keys, each refusing what it is not.

A refusal carries the code and the hint of its diagnostic (:class:`Wrong`), so that pydantic only has to carry it.
"""

from __future__ import annotations

import json
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from pgfleet.names import IDENTIFIER, NAME, is_identifier, is_name
from pgfleet.spec import codes
from pgfleet.units import parse_duration

_PERCENT = re.compile(r"\s*(\d{1,3}(?:\.\d+)?)\s*%\s*")
_DURATION_TEXT = r"^\s*\d+(\.\d+)?\s*(ms|s|min|h|d|seconds?|minutes?|hours?|days?|milliseconds?)\s*$"


class Wrong(ValueError):
    """A value that cannot be meant, with its code and a hint that can be pasted."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def _name(text: str) -> str:
    if not is_name(text):
        plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-").lstrip("0123456789-")[:40].strip("-")
        raise Wrong(
            codes.NAME,
            f"`{text}` cannot be a name: lower-case letters, digits and inner hyphens, a letter first, 40 at most",
            hint=plain if is_name(plain) else "a-name",
        )
    return text


def _identifier(text: str) -> str:
    if not is_identifier(text):
        plain = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_").lstrip("0123456789_")[:63]
        raise Wrong(
            codes.NAME,
            f"`{text}` cannot be an identifier: lower-case letters, digits and underscores, no digit first, 63 at most",
            hint=plain if is_identifier(plain) else "a_name",
        )
    return text


def _duration(value: object) -> float:
    if isinstance(value, str):
        try:
            return parse_duration(value)
        except ValueError as error:
            raise Wrong(codes.DURATION, f"{error}", hint=_with_a_unit(value)) from None
    if value == 0 and isinstance(value, int) and not isinstance(value, bool):
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise Wrong(codes.DURATION, f"{value} has no unit: seconds, minutes?", hint=f"{value} s")
    raise Wrong(codes.DURATION, "a duration was expected, such as 50 ms, 1 s, 5 min, 2 h, 30 d", hint="1 s")


def _with_a_unit(text: str) -> str:
    """The duration that was probably meant; a unit is known by its first letters."""
    match = re.match(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text)
    if match is None:
        return "1 s"
    letters = match[2].lower()
    unit = next((unit for unit in ("ms", "min", "s", "h", "d") if letters.startswith(unit)), "min" if letters == "m" else "s")
    return f"{match[1]} {unit}"


def _duration_text(seconds: float) -> str:
    return "0" if seconds == 0 else f"{seconds:.6f}".rstrip("0").rstrip(".") + " s"


def _percent(value: object) -> float:
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        hint = f"{value} %" if isinstance(value, int | float) and not isinstance(value, bool) else "99.9 %"
        raise Wrong(codes.VALUE, "a percentage was expected", hint=hint)
    return float(match[1]) / 100


def _percent_text(share: float) -> str:
    return f"{share * 100:.10g} %"


def _key(value: object) -> str:
    if isinstance(value, bool):
        raise Wrong(codes.KEY_VALUE, "true and false are not keys; quote the word if it is one", hint=f'"{str(value).lower()}"')
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        text = getattr(value, "text", str(value))  # as it was written: 1.10 is not 1.1
        raise Wrong(codes.KEY_VALUE, f"{text} is read as a number with a fraction; quote it if it is a word", hint=f'"{text}"')
    if value is None:
        raise Wrong(codes.KEY_VALUE, "a key is missing here; quote the word if it is `null`", hint='"null"')
    if not isinstance(value, str):
        only = value[0] if isinstance(value, list | tuple) and len(value) == 1 and isinstance(value[0], str | int) else '"…"'
        raise Wrong(codes.KEY_VALUE, "a key must be a word or a whole number", hint=f"{only}")
    if "\0" in value:
        raise Wrong(codes.KEY_VALUE, "PostgreSQL text cannot hold a NUL byte", hint=json.dumps(value.replace("\0", "")))
    return value


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return str(getattr(value, "text", value))
    if isinstance(value, str):
        return value
    raise Wrong(codes.VALUE, "a PostgreSQL parameter is text, a number, on or off", hint=_as_text(value))


def _as_text(value: object) -> str:
    """A list as PostgreSQL writes one; anything else as nothing."""
    items = value if isinstance(value, list | tuple) else ()
    return json.dumps(", ".join(str(item) for item in items if isinstance(item, str | int | float)), ensure_ascii=False)


#: A fleet, region, group or shard.
Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"})]
#: A table, column or database.
Identifier = Annotated[str, AfterValidator(_identifier), WithJsonSchema({"type": "string", "pattern": f"^{IDENTIFIER.pattern}$"})]
#: Nodes of one kind in one region.
Nodes = Annotated[int, Field(strict=True, ge=0, le=64)]
#: A whole number; text, fractions and booleans are not.
Count = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
#: Seconds; in the file with a unit.
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(_duration_text),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _DURATION_TEXT}, {"const": 0}, {"const": "0"}]}),
]
#: A share between 0 and 1; in the file as ``99.9 %``.
Percentage = Annotated[
    float,
    BeforeValidator(_percent),
    PlainSerializer(_percent_text),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d{1,3}(\.\d+)?\s*%\s*$"}),
]
#: A value of a table's key column, as the text that is hashed.
KeyValue = Annotated[str, BeforeValidator(_key), WithJsonSchema({"type": ["string", "integer"]})]
#: The value of a PostgreSQL parameter, as text.
Setting = Annotated[str, BeforeValidator(_setting), WithJsonSchema({"type": ["string", "number", "boolean"]})]
