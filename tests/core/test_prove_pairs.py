"""Pairs of a write and a read: who is behind is found behind, and who is not is not; and what a page makes of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from pgfleet.client.carrying import Carrying
from pgfleet.errors import DeadlineExceeded, WriteLost
from pgfleet.prove.pairs import WAYS, Callers, Pair, Seen, by_shard
from pgfleet.prove.runs.read_your_writes import LAG, WITHOUT_TOKENS, page
from pgfleet.routing.token import Position, Token


class Lagging:
    """A fleet of one shard whose replica has nothing. Who carries a token reads the primary (or, ``forgetful``, does not).

    :param told: of the other client, which knows of writes only by tokens that are given to it.
    """

    def __init__(self, rows: dict[UUID, str] | None = None, *, forgetful: bool = False) -> None:
        self.rows: dict[UUID, str] = {} if rows is None else rows
        self.carrying, self.forgetful = Carrying(), forgetful
        self.number = 0

    async def execute(self, statement: str, *args: Any, **_: Any) -> str:
        if statement == "questions":  # the fleet's own call has the table first
            statement, args = args[0], args[1:]
            self._wrote()
        self.rows[args[1]] = args[-1]
        return "INSERT 0 1"

    def _wrote(self) -> None:
        self.number += 1
        self.carrying.wrote("stem", Position(1, self.number))

    @contextlib.asynccontextmanager
    async def write(self, table: str, **_: Any) -> AsyncIterator[Lagging]:
        yield self
        self._wrote()

    async def transact(self, table: str, function: Any, **_: Any) -> None:
        await function(self)
        self._wrote()

    @contextlib.asynccontextmanager
    async def read(self, table: str, **_: Any) -> AsyncIterator[Any]:
        fleet = self

        class Block:
            async def fetch(self, sql: str, *args: Any) -> Any:
                return await fleet.fetch(table, sql, *args)

        yield Block()

    async def fetch(self, table: str, sql: str, subject: str, row: UUID, **_: Any) -> list[dict[str, Any]]:
        fresh = bool(self.carrying.positions("stem")) and not self.forgetful
        return [{"replica": not fresh, "seen": self.rows.get(row) if fresh else None}]

    def token(self) -> Token:
        return self.carrying.token()

    def after(self, token: str | None) -> Any:
        return self.carrying.after(Token.parse(token) if token else Token())


async def tried(client: Lagging, *, carry: bool = True, pairs: int = 200) -> Seen:
    elsewhere = Lagging(client.rows, forgetful=client.forgetful)
    callers = Callers(client, elsewhere, {"stem": "Science"}, carry=carry, seed=3)
    return await callers.run(5, lambda seen: len(seen.pairs) + sum(seen.failed.values()) >= pairs)


async def test_who_carries_its_token_sees_what_it_wrote() -> None:
    seen = await tried(Lagging())
    assert (seen.behind, seen.replica_share) == (0, 0.0)
    assert {pair.way for pair in seen.pairs} == set(WAYS)
    assert all(not seen.where(way=way).behind and seen.where(way=way).pairs for way in WAYS)


async def test_who_does_not_is_behind_by_every_way() -> None:
    seen = await tried(Lagging(), carry=False)
    assert seen.behind == len(seen.pairs) > 0
    assert all(seen.where(way=way).behind for way in WAYS)
    assert seen.examples == [], "nothing else was to be expected"


async def test_a_client_that_forgets_is_found_out() -> None:
    seen = await tried(Lagging(forgetful=True))
    assert seen.behind == len(seen.pairs) > 0
    assert "read by a replica" in seen.examples[0]


async def test_what_fails_is_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(*_: Any, **__: Any) -> Any:
        raise DeadlineExceeded("too late")

    client = Lagging()
    monkeypatch.setattr(client, "execute", late)
    seen = await tried(client)
    assert seen.pairs == []
    assert seen.failed["write by execute: DeadlineExceeded PGF-U131"] > 0


async def test_who_is_told_that_a_write_is_lost_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: Any, **__: Any) -> Any:
        raise WriteLost("it is lost", seen=["on timeline 3"])

    client = Lagging()
    monkeypatch.setattr(client, "fetch", lost)
    seen = await tried(client)
    assert len(seen.told_lost) == sum(n for kind, n in seen.failed.items() if "WriteLost" in kind) > 0
    assert "on timeline 3" in seen.told_lost[0]


def seen_of(*behind: bool, shard: str = "stem") -> Seen:
    return Seen([Pair(shard, "execute", True, b, 0.001) for b in behind], seconds=1.0)


def test_a_page_is_kept_by_what_was_seen_alone() -> None:
    right = {LAG: seen_of(False, False), WITHOUT_TOKENS: seen_of(True)}
    assert page(right, 2).kept
    assert not page(right | {LAG: seen_of(False, True)}, 2).kept, "a read was behind"
    assert not page(right | {WITHOUT_TOKENS: seen_of(False)}, 2).kept, "nothing was ever behind: it shows nothing"
    assert not page(right, 3).kept, "there were fewer than were asked for"
    lost = seen_of(False, False)
    lost.told_lost.append("on timeline 3")
    assert not page(right | {"two failovers": lost}, 2).kept


def test_pairs_are_told_apart_by_shard() -> None:
    both = [seen_of(False, True), seen_of(True, shard="humanities")]
    assert (by_shard(both, "stem").behind, by_shard(both, "humanities").behind) == (1, 1)
    assert by_shard(both, "stem").read_ms(0.5) == pytest.approx(1.0)
