"""What a statement leaves in its session when its transaction has ended, read from its text: for whoever goes through a pooler,
where the session is the next client's. Pure; yes where in doubt.

Stricter than :mod:`pgfleet.client.statement` in one way, for what is left here cannot be discarded behind the borrower's back;
and more exact in another, for what ends with the transaction (SET LOCAL, a cursor) is nothing here, and what is refused has to be
told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pgfleet.client.naming import Lexeme
from pgfleet.client.statement import ENDS, ROWS, Harmless, lexemes, shape_of


class Leaves(IntEnum):
    """What is left, in the order in which one outweighs another."""

    NOTHING = 0
    #: Its text shows nothing; but something of the application's that it may run (a trigger, a view, a function) leaves state.
    HIDDEN = 1
    #: Its text shows it, or does not show that it leaves nothing.
    STATE = 2


@dataclass(frozen=True, slots=True)
class Left:
    """:param what: for people: the word or the call that leaves state."""

    leaves: Leaves
    what: str = ""


NOTHING, HIDDEN = Left(Leaves.NOTHING), Left(Leaves.HIDDEN)

#: End with their transaction, or are about no session at all; what they run may still be hidden.
_WITH_THE_TRANSACTION = frozenset({"lock", "notify", "truncate", "refresh", "comment"})
_QUIET = frozenset({"savepoint", "release", "show", "fetch", "move", "close", "begin", "start"})


def left(sql: str, harmless: Harmless) -> Left:
    """What ``sql`` (one or several statements) leaves in its session after its transaction."""
    try:
        pieces = list(_pieces(lexemes(sql)))
    except ValueError as error:
        return Left(Leaves.STATE, f"a text that cannot be read ({error})")
    return max((_left(piece, harmless) for piece in pieces), key=lambda one: one.leaves, default=NOTHING)


def _pieces(found: Iterator[Lexeme]) -> Iterator[list[Lexeme]]:
    piece: list[Lexeme] = []
    for lexeme in found:
        if lexeme == ("sign", ";"):
            if piece:
                yield piece
            piece = []
        else:
            piece.append(lexeme)
    if piece:
        yield piece


def _left(piece: Sequence[Lexeme], harmless: Harmless) -> Left:
    piece = _bare(piece)
    words = [text for kind, text in piece if kind == "word"]
    first = piece[0][1] if piece and piece[0][0] == "word" else ""
    if first in _QUIET:
        return NOTHING
    if first == "rollback" and "to" in words:
        return NOTHING
    if first in ENDS or first == "rollback":  # what follows would run in whose session nobody knows
        return Left(Leaves.STATE, f"{first.upper()}, which ends the transaction")
    if first == "set" and len(words) > 1 and words[1] in ("local", "transaction", "constraints"):
        return NOTHING
    if first == "explain":
        explained = _explained(piece)
        if not explained or explained[0] == ("word", "explain"):
            return Left(Leaves.STATE, "EXPLAIN")
        return _left(explained, harmless)
    if first == "copy":
        query = _parenthesized(piece, 1)
        return _rows(query, harmless) if query else _hidden(harmless)
    if first == "declare":
        if "hold" in words and "without" not in words:
            return Left(Leaves.STATE, "a cursor WITH HOLD")
        return _rows(piece, harmless)
    if first in _WITH_THE_TRANSACTION:
        return _hidden(harmless)
    if first not in ROWS:
        return Left(Leaves.STATE, first.upper() or "a text that does not begin with a word")
    return _rows(piece, harmless)


def _bare(piece: Sequence[Lexeme]) -> Sequence[Lexeme]:
    """Without the parentheses that it begins with: (select …) union (select …)."""
    return piece[next((at for at, lexeme in enumerate(piece) if lexeme != ("sign", "(")), len(piece)) :]


def _rows(piece: Sequence[Lexeme], harmless: Harmless) -> Left:
    shape = shape_of(_bare(piece))
    if not shape.alone:
        return Left(Leaves.STATE, "SELECT INTO")
    calls = shape.calls - {"set_config"} if _set_config_is_local(piece) else shape.calls
    if unknown := sorted(calls - harmless.functions):
        return Left(Leaves.STATE, f"{unknown[0]}()")
    return _hidden(harmless)


def _hidden(harmless: Harmless) -> Left:
    return NOTHING if harmless.everything_else else HIDDEN


def _explained(piece: Sequence[Lexeme]) -> Sequence[Lexeme]:
    """What EXPLAIN explains, and with ANALYZE runs."""
    at = 1
    while at < len(piece) and piece[at] in (("word", "analyze"), ("word", "analyse"), ("word", "verbose")):
        at += 1
    if at < len(piece) and at == 1 and piece[at] == ("sign", "("):
        options = _parenthesized(piece, at)
        if options and not any(lexeme[1] in ROWS for lexeme in options):
            at += len(options) + 2
    return _bare(piece[at:])


def _parenthesized(piece: Sequence[Lexeme], at: int) -> list[Lexeme]:
    """What stands between the parenthesis at ``at`` and its end; empty: there is none."""
    if at >= len(piece) or piece[at] != ("sign", "("):
        return []
    depth = 0
    for end in range(at, len(piece)):
        depth += {("sign", "("): 1, ("sign", ")"): -1}.get(piece[end], 0)
        if depth == 0:
            return list(piece[at + 1 : end])
    return []


def _set_config_is_local(piece: Sequence[Lexeme]) -> bool:
    """Whether every call of ``set_config`` says with the word TRUE that it is for the transaction only. (SET LOCAL takes no
    parameters, so this is how an application tells its row security who is asking.)"""
    for at, (kind, text) in enumerate(piece):
        if kind in ("word", "quoted") and text == "set_config" and at + 1 < len(piece) and piece[at + 1] == ("sign", "("):
            arguments = list(_split(_parenthesized(piece, at + 1)))
            if len(arguments) != 3 or arguments[2] != [("word", "true")]:
                return False
    return True


def _split(found: Sequence[Lexeme]) -> Iterator[list[Lexeme]]:
    depth, argument = 0, list[Lexeme]()
    for lexeme in found:
        depth += {("sign", "("): 1, ("sign", ")"): -1, ("sign", "["): 1, ("sign", "]"): -1}.get(lexeme, 0)
        if lexeme == ("sign", ",") and depth == 0:
            yield argument
            argument = []
        else:
            argument.append(lexeme)
    yield argument
