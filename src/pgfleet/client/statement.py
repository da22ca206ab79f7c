"""What a statement may leave in its session, read from its text. Pure; yes where in doubt.

A session's state is changed by utility statements (SET, LISTEN, PREPARE, …) and by functions (``set_config``, advisory locks).
So a statement leaves nothing behind when it is one of the five that read and write rows, and everything that it calls is known
to be harmless. What is known comes from the server's own catalogue (:mod:`pgfleet.client.catalogue`); a name that is not
known there counts as a call of something that leaves state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pgfleet.client.naming import Lexeme, Naming

#: Statements that change a session only through what they call.
ROWS = frozenset({"select", "insert", "update", "delete", "merge", "values", "table", "with"})
#: Statements inside a transaction that end with it, and what drivers send of themselves.
_INSIDE = frozenset({"savepoint", "release", "rollback", "begin", "start", "show", "explain", "analyze"})
#: End it.
ENDS = frozenset({"commit", "end", "abort"})

#: What may stand before a parenthesis and is no function: the grammar's own words (PostgreSQL docs, appendix C), and the types
#: that take a length. Anything else there is looked up as a function.
_GRAMMAR_WORDS = (
    "all and any array as asc between by case check coalesce collate cube current_time current_timestamp delete desc"
    " distinct do else except exists extract fetch filter first for from full greatest group grouping having if ilike in"
    " inner insert intersect interval into is join key lateral least left like limit localtime localtimestamp"
    " materialized not nothing nullif nulls offset on only or order outer over overlaps overlay partition position range"
    " returning right rollup row rows select set sets similar some substring tablesample then time timestamp timestamptz"
    " to treat trim union unique update using values when where window with within xmlelement xmlforest cast bit char"
    " character varchar varying decimal numeric dec float precision conflict normalize timetz bpchar"
)
_GRAMMAR = frozenset(_GRAMMAR_WORDS.split())

_LEXEME = re.compile(
    r"""
    (?P<comment>--[^\n\r]*|/\*)
  | (?P<dollar>\$(?:[A-Za-z_\x80-\uffff][A-Za-z_0-9\x80-\uffff]*)?\$)
  | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')
  | (?P<text>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*')
  | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*")
  | (?P<word>[A-Za-z_\x80-\uffff][A-Za-z_0-9$\x80-\uffff]*)
  | (?P<number>\d[\w.]*)
  | (?P<space>\s+)
  | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_PART = re.compile(r"/\*|\*/")


def lexemes(sql: str) -> Iterator[Lexeme]:
    """Words (folded), quoted identifiers (as they are), signs, and ``other`` for literals. Comments and space are left out.

    :raises ValueError: a literal or comment has no end: nobody can say what such a text means.
    """
    at = 0
    while at < len(sql):
        found = _LEXEME.match(sql, at)
        assert found is not None  # noqa: S101 - the last alternative matches anything
        kind, text, at = found.lastgroup, found.group(), found.end()
        if kind == "comment":
            at = _comment_end(sql, at) if text == "/*" else at
        elif kind == "dollar":
            end = sql.find(text, at)
            if end < 0:
                raise ValueError(f"no end of {text}")
            at = end + len(text)
            yield "other", ""
        elif kind == "word":
            yield "word", text.lower()
        elif kind == "quoted":
            yield "quoted", text[text.index('"') + 1 : -1].replace('""', '"')
        elif kind == "sign":
            if text in "'\"":
                raise ValueError(f"no end of {text}")
            yield "sign", text
        elif kind != "space":
            yield "other", text


def _comment_end(sql: str, at: int) -> int:
    depth = 1  # comments nest (PostgreSQL docs, 4.1.5)
    while depth:
        part = _COMMENT_PART.search(sql, at)
        if part is None:
            raise ValueError("no end of a comment")
        depth += 1 if part.group() == "/*" else -1
        at = part.end()
    return at


#: What INTO follows where it makes no table.
_TAKES = (("word", "insert"), ("word", "merge"))


@dataclass(frozen=True, slots=True)
class Shape:
    """What the text shows.

    :param first: its first word. :param calls: names before a parenthesis, folded.
    :param alone: one statement, and no ``select … into``, nor EXPLAIN of one that makes or executes something, nor the end of a
        transaction: what is left in its session is not taken back with it.
    """

    first: str
    calls: frozenset[str] = field(default_factory=frozenset)
    alone: bool = True


def read_statement(sql: str) -> Shape:
    """The shape of ``sql``; one that cannot be read has the first word ````."""
    try:
        return shape_of(list(lexemes(sql)))
    except ValueError:
        return Shape("")


def shape_of(found: Sequence[Lexeme]) -> Shape:
    """The shape of what ``found`` spells."""
    found = list(found)
    while found and found[-1] == ("sign", ";"):
        found.pop()
    if not found or found[0][0] != "word":
        # "(select 1) union …" begins with a parenthesis: rows all the same, but not worth a grammar.
        return Shape("")
    calls: set[str] = set()
    # EXPLAIN ANALYZE runs what it explains: also CREATE TEMP TABLE … AS, EXECUTE and DECLARE.
    first = found[0][1]
    alone = first != "explain" or not any(("word", made) in found for made in ("create", "execute", "declare"))
    if first in ENDS or (first == "rollback" and ("word", "to") not in found):
        alone = False
    before: Lexeme = ("sign", ";")
    naming = Naming(found, _GRAMMAR)
    for at, (kind, text) in enumerate(found):
        if (kind == "sign" and text == ";") or (kind == "word" and text == "into" and before not in _TAKES):
            alone = False
        elif kind in ("word", "quoted") and at + 1 < len(found) and found[at + 1] == ("sign", "("):
            grammars = kind == "word" and text in _GRAMMAR and before != ("sign", ".")  # what is qualified is a name
            if not grammars and not naming.named(at):
                calls.add(text)
        before = (kind, text)
    return Shape(first, frozenset(calls), alone)


@dataclass(frozen=True, slots=True)
class Harmless:
    """What a server's catalogue says.

    :param functions: names whose every function leaves nothing in a session.
    :param everything_else: no trigger, view, default, policy or function of the application leaves anything either.
    """

    functions: frozenset[str] = field(default_factory=frozenset)
    everything_else: bool = False


def touches(sql: str, harmless: Harmless) -> bool:
    """Whether ``sql`` may leave something in its session."""
    shape = read_statement(sql)
    if not shape.alone:
        return True
    if shape.first in _INSIDE:
        # EXPLAIN ANALYZE runs what it explains; of the others only these words can stand before a parenthesis.
        return shape.first == "explain" and not (harmless.everything_else and shape.calls <= harmless.functions)
    if shape.first not in ROWS or not harmless.everything_else:
        return True
    return not shape.calls <= harmless.functions
