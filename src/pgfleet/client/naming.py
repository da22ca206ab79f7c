"""Which names before a parenthesis name something there (a table whose columns follow, a CTE, an alias), and call nothing. Pure.

Such names are known by where they stand. What may be a call somewhere in PostgreSQL's grammar counts as one: a list of columns
looks as the arguments of a call may (``r (a, b)``), so what stands before it decides, back to the word that begins it all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

Lexeme = tuple[Literal["word", "quoted", "sign", "other"], str]

_COMMA, _DOT, _OPEN, _CLOSE = ("sign", ","), ("sign", "."), ("sign", "("), ("sign", ")")
#: Where a clause begins, other than FROM: what is listed after them are no tables.
_CLAUSE_WORDS = (
    "select where by having window limit offset fetch values set returning with into for union except intersect insert update"
    " delete merge when then else"
)
_CLAUSES = frozenset(_CLAUSE_WORDS.split())


class Naming:
    """What is named in one statement.

    :param grammar: words of the grammar's own: neither tables nor functions, where they are not quoted.
    """

    def __init__(self, found: Sequence[Lexeme], grammar: Collection[str]) -> None:
        self._found, self._grammar = found, grammar
        self._opens: dict[int, int] = {}
        self._closes: dict[int, int] = {}
        opened = list[int]()
        for at, lexeme in enumerate(found):
            if lexeme == _OPEN:
                opened.append(at)
            elif lexeme == _CLOSE and opened:
                self._opens[at] = opened.pop()
                self._closes[self._opens[at]] = at

    def named(self, at: int) -> bool:
        """Whether the name at ``at``, which a parenthesis follows, is no call."""
        first = self._first(at)
        if self._word(first - 1) == "into":  # insert into s.t (a, b)
            return True
        if first < at:
            return False
        if self._word(at - 1) in ("with", "recursive", "as"):
            return True
        if not self._names_only(at + 1):
            return False
        return self._is_next_cte(at) or self._is_alias(at)

    def _is_next_cte(self, at: int) -> bool:
        """``with q (a) as (…), r (b) as (…)``: whether ``r`` stands at ``at``."""
        if self._word(self._closes[at + 1] + 1) != "as" or self._at(at - 1) != _COMMA:
            return False
        while self._at(at - 1) == _COMMA:
            body = self._opens.get(at - 2)
            if body is None:
                return False
            at = body - 1
            if self._word(at) == "materialized":
                at -= 2 if self._word(at - 1) == "not" else 1
            if self._word(at) != "as":
                return False
            at = self._opens.get(at - 1, at) - 1  # before the columns, where it has any
            if not self._is_name(at) or self._word(at) == "ordinality":
                return False
        return self._word(at - 1) == "with" or (self._word(at - 1), self._word(at - 2)) == ("recursive", "with")

    def _is_alias(self, at: int) -> bool:
        """``from (…) v (a, b)``, ``from f (…) v (a)``, ``from t v (a)``: whether ``v`` stands at ``at``."""
        last = at - 1
        if (self._word(last - 1), self._word(last)) == ("with", "ordinality"):
            last -= 2
            if self._at(last) != _CLOSE:
                return False
        if self._at(last) == _CLOSE:
            if last not in self._opens:
                return False
            last = self._opens[last] - 1
            if not self._is_name(last):
                return self._begins_item(last)
        return self._is_name(last) and self._begins_item(self._first(last) - 1)

    def _begins_item(self, at: int) -> bool:
        """Whether after ``at`` stands what is read from: a table, a function or a parenthesis."""
        if self._word(at) in ("lateral", "only"):
            at -= 1
        if self._word(at) in ("from", "join", "using"):
            # Of an expression that contains FROM (extract, is distinct from) no name can follow there.
            return True
        return self._at(at) == _COMMA and self._lists_tables(at)

    def _lists_tables(self, at: int) -> bool:
        """Whether the comma at ``at`` is one of a FROM's."""
        at -= 1
        while at >= 0:
            if at in self._opens:
                at = self._opens[at]
            elif self._at(at) in (_OPEN, _CLOSE) or (self._word(at) in _CLAUSES and self._word(at + 1) != "ordinality"):
                return False
            elif self._word(at) == "from":
                return self._word(at - 1) != "distinct"
            at -= 1
        return False

    def _names_only(self, at: int) -> bool:
        """Whether in the parenthesis that opens at ``at`` stand nothing but names."""
        if at not in self._closes:
            return False
        inside = self._found[at + 1 : self._closes[at]]
        return len(inside) % 2 == 1 and all(
            (kind in ("word", "quoted")) if n % 2 == 0 else (kind, text) == _COMMA for n, (kind, text) in enumerate(inside)
        )

    def _first(self, at: int) -> int:
        """Where the name begins that ends at ``at``: ``s`` of ``s.t``."""
        while at >= 2 and self._found[at - 1] == _DOT and self._found[at - 2][0] in ("word", "quoted"):
            at -= 2
        return at

    def _is_name(self, at: int) -> bool:
        kind, text = self._at(at)
        return kind == "quoted" or (kind == "word" and text not in self._grammar and text != "operator")

    def _word(self, at: int) -> str:
        kind, text = self._at(at)
        return text if kind == "word" else ""

    def _at(self, at: int) -> Lexeme:
        return self._found[at] if 0 <= at < len(self._found) else ("other", "")
