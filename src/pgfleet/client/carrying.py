"""The token of whoever is calling, carried in a context variable: what this caller has written, its reads must see.

A context is asyncio's: a task has that of whoever made it. The carrier in it is one object that its tasks share, so what a child
task wrote, its parent sees, where the parent had a carrier before: :meth:`Carrying.after` gives it one.
"""

from __future__ import annotations

from contextvars import ContextVar
from contextvars import Token as Before
from types import TracebackType
from typing import Self

from pgfleet.routing.token import Position, Token


class Carrier:
    """One caller's token, and the part of it that this caller has written itself; both only grow."""

    __slots__ = ("token", "written")

    def __init__(self, token: Token) -> None:
        self.token, self.written = token, Token()

    def wrote(self, shard: str, position: Position) -> None:
        self.token = self.token.with_position(shard, position)
        self.written = self.written.with_position(shard, position)


class Carrying:
    """The carriers of one fleet's callers."""

    def __init__(self) -> None:
        self._here: ContextVar[Carrier | None] = ContextVar("pgfleet-token", default=None)

    def positions(self, shard: str) -> tuple[Position, ...]:
        """What this caller's reads of ``shard`` must see; nothing: anything will do."""
        carrier = self._here.get()
        return () if carrier is None else carrier.token.positions.get(shard, ())

    def token(self) -> Token:
        """This caller's token."""
        carrier = self._here.get()
        return Token() if carrier is None else carrier.token

    def wrote(self, shard: str, position: Position) -> None:
        """This caller wrote to ``shard``, up to ``position``."""
        self._carrier().wrote(shard, position)

    def unsure(self, shard: str) -> None:
        """This caller may have written to ``shard``, nobody knows where: whoever looks for it shall look at the primary."""
        self.wrote(shard, Position(0, 0))

    def _carrier(self) -> Carrier:
        carrier = self._here.get()
        if carrier is None:
            carrier = Carrier(Token())
            self._here.set(carrier)
        return carrier

    def after(self, token: Token, *, alone: bool = False) -> After:
        """From here on (to the end of a ``with``, where there is one) this caller's reads see what ``token`` speaks of.

        :param alone: and of what this caller wrote before, they need not; nor need those that come after see what is written
            until then.
        """
        return After(self, self._here, Carrier(token if alone else self.token().merged(token)), alone=alone)

    def goes_on(self, within: Carrier) -> None:
        """``within`` has ended: what was written there, the reads that follow must see."""
        for shard, position in within.written:
            self.wrote(shard, position)


class After:
    """In effect when it is made; ``with`` ends it again."""

    def __init__(self, carrying: Carrying, here: ContextVar[Carrier | None], carrier: Carrier, *, alone: bool) -> None:
        self._carrying, self._here, self._carrier, self._alone = carrying, here, carrier, alone
        self._before: Before[Carrier | None] = here.set(carrier)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._here.reset(self._before)
        if not self._alone:
            self._carrying.goes_on(self._carrier)
