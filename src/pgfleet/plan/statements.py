"""SQL text cut into its statements, as psql cuts it, so that each can be sent alone and its place in the file be told.

Not a parser: it knows strings, quoted names, dollar quotes, comments, parentheses and the bodies of SQL-standard
functions (``BEGIN ATOMIC``), which is what a semicolon may hide in (PostgreSQL docs, 4.1; psqlscan.l). What it
cannot end, such as a string without its closing quote, is one statement up to the end of the file: the server says
what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<comment>--[^\n]*)
  | (?P<block>/\*)
  | (?P<string>[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)|'(?:[^']|'')*(?:'|\Z))
  | (?P<quoted>"(?:[^"]|"")*(?:"|\Z))
  | (?P<dollar>\$(?:[^\W\d]\w*)?\$)
  | (?P<word>[^\W\d][\w$]*)
  | (?P<number>\d\w*)
  | (?P<space>\s+)
  | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)

#: Tokens kept of a statement: enough to know what it is; a long INSERT's values are not needed for that.
KEPT_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, without its semicolon and without the comments before it.

    :param offset: of its first character in the text, from 0.
    :param tokens: its first tokens: words in lower case, quoted names with their quotes, strings as ``''``, signs.
    """

    text: str
    offset: int
    tokens: tuple[str, ...]

    def begins(self, *words: str) -> bool:
        return self.tokens[: len(words)] == words


def split(text: str) -> tuple[Statement, ...]:
    """The statements of ``text``, in order; what holds only spaces and comments is not one."""
    statements: list[Statement] = []
    tokens: list[str] = []
    start = end = at = parentheses = atomic = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise AssertionError("the last alternative matches any character")
        kind, piece, begins = match.lastgroup, match[0], at
        at = match.end()
        if kind in ("comment", "space"):
            continue
        if kind == "block":
            at = _end_of_comment(text, at)
            continue
        if kind == "dollar":
            closing = text.find(piece, at)
            at = len(text) if closing < 0 else closing + len(piece)
            piece = "''"
        if piece == ";" and not parentheses and not atomic:
            if tokens:
                statements.append(Statement(text[start:end], start, tuple(tokens[:KEPT_TOKENS])))
            tokens = []
            continue
        if not tokens:
            start, parentheses, atomic = begins, 0, 0
        end = at
        piece = "''" if kind == "string" else piece.lower() if kind == "word" else piece
        tokens.append(piece)
        if piece == "(":
            parentheses += 1
        elif piece == ")":
            parentheses = max(0, parentheses - 1)
        elif kind == "word" and not parentheses and _is_routine(tokens):
            atomic = max(0, atomic + _depth(piece, atomic))
    if tokens:
        statements.append(Statement(text[start:end], start, tuple(tokens[:KEPT_TOKENS])))
    return tuple(statements)


def head(text: str) -> Iterator[tuple[int, str]]:
    """The ``--`` comments before the first statement, each with its offset; what stands in block comments is none."""
    at = 0
    while (match := _TOKEN.match(text, at)) is not None and match.lastgroup in ("comment", "space", "block"):
        at = match.end()
        if match.lastgroup == "comment":
            yield match.start(), match[0]
        elif match.lastgroup == "block":
            at = _end_of_comment(text, at)


def place(text: str, offset: int) -> tuple[int, int]:
    """Line and column of ``offset``, both from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _end_of_comment(text: str, at: int) -> int:
    """Where a block comment that was opened before ``at`` ends; they nest, as the standard has it."""
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(text, at):
        depth += 1 if match[0] == "/*" else -1
        if not depth:
            return match.end()
    return len(text)


def _is_routine(tokens: list[str]) -> bool:
    head = tokens[1:] if tokens[:1] == ["create"] else []
    head = head[2:] if head[:2] == ["or", "replace"] else head
    return head[:1] in (["function"], ["procedure"])


def _depth(word: str, atomic: int) -> int:
    if word == "begin" or (word == "case" and atomic):
        return 1
    return -1 if word == "end" and atomic else 0
