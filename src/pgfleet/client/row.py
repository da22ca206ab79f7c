"""A row that no server sent as it is, because it was combined from several: read like an ``asyncpg.Record``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload


class Columns:
    """The names of an answer's columns, shared by its rows. Of columns with one name the last is found, as in Record."""

    __slots__ = ("at", "names")

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.at: Mapping[str, int] = {name: n for n, name in enumerate(self.names)}


class CombinedRow:
    """By place, name or slice; iterating gives the values; ``in`` looks for a name. Equal to a Record of equal values."""

    __slots__ = ("_columns", "_values")

    def __init__(self, columns: Columns, values: Sequence[Any]) -> None:
        self._columns, self._values = columns, tuple(values)

    @overload
    def __getitem__(self, which: str | int) -> Any: ...
    @overload
    def __getitem__(self, which: slice) -> tuple[Any, ...]: ...
    def __getitem__(self, which: str | int | slice) -> Any:
        if isinstance(which, str):
            return self._values[self._columns.at[which]]
        return self._values[which]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a column, or ``default`` where there is no such column."""
        at = self._columns.at.get(name)
        return default if at is None else self._values[at]

    def keys(self) -> Iterator[str]:
        return iter(self._columns.names)

    def values(self) -> Iterator[Any]:
        return iter(self._values)

    def items(self) -> Iterator[tuple[str, Any]]:
        return zip(self._columns.names, self._values, strict=True)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._columns.at

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (CombinedRow, tuple)):
            return self._values == tuple(other)
        # A Record compares with tuples by its values.
        return bool(other == self._values)

    def __hash__(self) -> int:
        return hash(self._values)

    def __repr__(self) -> str:
        return f"<CombinedRow {' '.join(f'{name}={value!r}' for name, value in self.items())}>"
