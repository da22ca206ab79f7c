"""GROUP BY across shards: each shard aggregates its rows, and the partial results are combined here.

A ``having``, a ``limit`` or a ``count(distinct ...)`` inside the query sees one shard's rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgfleet.client.row import Columns, CombinedRow
from pgfleet.client.sums import added, averaged, counted, greatest, least
from pgfleet.errors import CannotCombine

_FOLDS: dict[str, Callable[[Sequence[Any]], Any]] = {"count": counted, "sum": added, "min": least, "max": greatest}
_NAN = object()
_KNOWN = "count, sum, min, max, and avg:COLUMN, whose weights are a column that is a count"


@dataclass(frozen=True, slots=True)
class Combination:
    """How each column of the shards' answers becomes one of the whole.

    :param folds: column -> its name in ``_FOLDS``.
    :param means: column -> the column that counts what it is the mean of.
    :param group_by: columns whose equal values make one row; None: all that are not combined.
    """

    folds: Mapping[str, str]
    means: Mapping[str, str]
    group_by: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, combine: Mapping[str, str], group_by: str | Sequence[str] | None = None) -> Combination:
        """:param combine: ``{"n": "count", "total": "sum", "mean": "avg:n"}``.
        :raises CannotCombine: a word that is not known, an average without its count, a column in both.
        """
        if not isinstance(combine, Mapping):
            raise CannotCombine(f"combine says for each column how, not {combine!r}", hint="combine={'n': 'count'}")
        folds: dict[str, str] = {}
        means: dict[str, str] = {}
        for column, how in combine.items():
            if not isinstance(column, str):
                raise CannotCombine(f"combine names columns, not {column!r}", hint="combine={'n': 'count'}")
            word, colon, weight = how.partition(":") if isinstance(how, str) else ("", "", "")
            if isinstance(how, str) and how in _FOLDS:
                folds[column] = how
            elif word == "avg" and colon and weight:
                means[column] = weight
            else:
                raise CannotCombine(f"column {column} cannot be combined by {how!r}", hint=_KNOWN)
        for column, weight in means.items():
            if folds.get(weight) not in ("count", "sum"):
                raise CannotCombine(
                    f"column {column} is an average weighted by {weight}, which is not combined as a count",
                    hint=f"{{{column!r}: 'avg:{weight}', {weight!r}: 'count'}}",
                )
        if group_by is not None and not (isinstance(group_by, Sequence) and all(isinstance(column, str) for column in group_by)):
            raise CannotCombine(f"group_by is a column, or a list of columns, not {group_by!r}")
        groups = (group_by,) if isinstance(group_by, str) else None if group_by is None else tuple(group_by)
        if both := next((column for column in groups or () if column in combine), None):
            raise CannotCombine(f"column {both} is grouped by, and combined")
        return cls(folds, means, groups)

    def combines(self, column: str) -> bool:
        """Whether the column of the whole is worked out from those of the shards."""
        return column in self.folds or column in self.means

    def __call__(self, answers: Iterable[Sequence[Any]]) -> list[CombinedRow]:
        """One row for each group, in the order in which groups are met first; its columns are the answers'.

        :raises CannotCombine: the columns are not those, or a value is not what its column is combined as.
        """
        rows = [row for answer in answers for row in answer]
        if not rows:
            return []
        names = list(rows[0].keys())
        self._fits(names)
        columns = Columns(names)
        at = columns.at
        if odd := next((row for row in rows if list(row.keys()) != names), None):
            raise CannotCombine("the shards' answers have different columns", seen=[", ".join(names), ", ".join(odd.keys())])
        places = [at[name] for name in names if name not in self.folds and name not in self.means]
        groups: dict[object, list[Any]] = {}
        for row in rows:
            groups.setdefault(tuple([_hashable(row[place]) for place in places]), []).append(row)
        return [CombinedRow(columns, [self._value(name, at, group) for name in names]) for group in groups.values()]

    def _fits(self, names: Sequence[str]) -> None:
        for column in (*self.folds, *self.means, *(self.group_by or ())):
            if names.count(column) != 1:
                what = f"{names.count(column)} columns" if column in names else "no column"
                raise CannotCombine(f"the answer has {what} {column}", seen=[f"columns: {', '.join(names)}"])
        for column in names:
            if self.group_by is not None and column not in {*self.folds, *self.means, *self.group_by}:
                raise CannotCombine(f"column {column} is neither combined nor grouped by", hint=f"combine: {_KNOWN}")
            if names.count(column) != 1:
                raise CannotCombine(f"the answer has {names.count(column)} columns {column}")

    def _value(self, column: str, at: Mapping[str, int], group: Sequence[Any]) -> Any:
        values = [row[at[column]] for row in group]
        try:
            if column in self.means:
                return averaged(values, [row[at[self.means[column]]] for row in group])
            return _FOLDS[self.folds[column]](values) if column in self.folds else values[0]
        except (TypeError, ValueError, ArithmeticError) as error:
            how = self.folds.get(column) or f"avg:{self.means[column]}"
            raise CannotCombine(f"column {column} cannot be combined as {how}: {error}") from error


def _hashable(value: Any) -> object:
    """What is equal for values that GROUP BY takes for equal."""
    if isinstance(value, list):
        return tuple([_hashable(item) for item in value])
    return _NAN if value != value else value
