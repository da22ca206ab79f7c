"""Pairs of a write and a read of it at once, by many callers: does the read see the write?

A *caller* is a task with a context of its own, and so with a token of its own, as a request is. Where the token shall not be
carried, each write is made in a context that ends with it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from pgfleet.errors import PgfleetError, WriteLost
from pgfleet.prove.evidence import quantile
from pgfleet.prove.writing import CHOICES

#: Pairs of one caller, after which its token is forgotten.
SESSION = 10
#: Rows that one batch writes in one transaction; each is read.
BATCH = 5
#: Seconds for a call.
DEADLINE = 15.0
WAYS = ("execute", "update", "block", "transact", "batch", "elsewhere")

INSERT = """insert into questions (subject, id, stem, choices, answer, difficulty, explanation)
values ($1, $2, 'Does its writer see ' || $2::uuid::text || '?', $3, 0, 1, $4)"""
UPDATE = "update questions set explanation = $3 where subject = $1 and id = $2"
FIND = """select pg_is_in_recovery() as replica,
(select explanation from questions where subject = $1 and id = $2) as seen"""
FAILURES = (PgfleetError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Pair:
    """A write that was acknowledged, and the read that was answered after it.

    :param replica: whether a replica answered. :param behind: the write was not seen. :param took: seconds of the read.
    """

    shard: str
    way: str
    replica: bool
    behind: bool
    took: float


@dataclass(slots=True)
class Seen:
    """What many pairs showed.

    :param failed: writes and reads that ended with an error instead, by kind. :param told_lost: of these, reads that were told
        that the write is lost; and :param examples: of pairs that were behind.
    """

    pairs: list[Pair] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    told_lost: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def where(self, **wanted: str) -> Seen:
        """Only those of a ``shard``, or of a ``way``."""
        return Seen([pair for pair in self.pairs if all(getattr(pair, name) == value for name, value in wanted.items())])

    @property
    def behind(self) -> int:
        return sum(pair.behind for pair in self.pairs)

    @property
    def replica_share(self) -> float:
        """Of the reads; 0 to 1."""
        return sum(pair.replica for pair in self.pairs) / len(self.pairs) if self.pairs else 0.0

    def read_ms(self, part: float) -> float:
        """A quantile of the reads' times, in milliseconds."""
        return quantile([pair.took for pair in self.pairs], part) * 1000


class Callers:
    """:param elsewhere: another client of the same fleet, that knows of the writes only what a token's text tells it.
    :param subjects: what is written to on each shard. :param carry: whether reads know of their caller's writes.
    """

    def __init__(self, client: Any, elsewhere: Any, subjects: Mapping[str, str], *, carry: bool, seed: int) -> None:
        self._client, self._elsewhere, self._subjects, self._carry = client, elsewhere, dict(subjects), carry
        self._chance = random.Random(seed)
        self.seen = Seen()

    async def run(self, tasks: int, enough: Callable[[Seen], bool]) -> Seen:
        """As many callers at a time as ``tasks``, one after another, until there is ``enough``."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks):
                group.create_task(self._one_after_another(enough))
        self.seen.seconds = time.monotonic() - began
        return self.seen

    async def _one_after_another(self, enough: Callable[[Seen], bool]) -> None:
        while not enough(self.seen):
            await asyncio.create_task(self._caller(enough))

    async def _caller(self, enough: Callable[[Seen], bool]) -> None:
        shard, subject = self._chance.choice(list(self._subjects.items()))
        own: UUID | None = None  # a row that only this caller changes
        for _ in range(SESSION):
            way = self._chance.choice(WAYS)
            row = own if own is not None and way in ("update", "transact") else uuid4()
            rows = {row: str(uuid4())} | ({uuid4(): str(uuid4()) for _ in range(BATCH - 1)} if way == "batch" else {})
            try:
                await self._written(self._write(way, subject, rows, known=row == own))
            except FAILURES as error:
                self.seen.failed[f"write by {way}: {_kind(error)}"] += 1
                own = None  # nobody knows what is in it
                continue
            own = row
            await asyncio.gather(*(self._read(shard, subject, way, each, text) for each, text in rows.items()))
            if enough(self.seen):
                return

    async def _written(self, write: Coroutine[Any, Any, None]) -> None:
        if self._carry:
            await write
        else:
            await asyncio.create_task(write)  # what it wrote is known in its own context, which ends here

    async def _write(self, way: str, subject: str, rows: Mapping[UUID, str], *, known: bool) -> None:
        """:param known: the row is there already."""
        (row, text), client = next(iter(rows.items())), self._client

        async def put(connection: Any) -> None:
            for each, said in rows.items():
                if known:
                    await connection.execute(UPDATE, subject, each, said)
                else:
                    await connection.execute(INSERT, subject, each, CHOICES, said)

        async def put_twice(connection: Any) -> None:
            await put(connection)
            await connection.execute(UPDATE, subject, row, text)

        match way:
            case "block" | "batch":
                async with client.write("questions", key=subject, deadline=DEADLINE) as connection:
                    await put(connection)
            case "transact":
                await client.transact("questions", put_twice, key=subject, deadline=DEADLINE)
            case "update" if known:
                await client.execute("questions", UPDATE, subject, row, text, key=subject, deadline=DEADLINE)
            case _:
                await client.execute("questions", INSERT, subject, row, CHOICES, text, key=subject, deadline=DEADLINE)

    async def _read(self, shard: str, subject: str, way: str, row: UUID, text: str) -> None:
        began = time.monotonic()
        try:
            answer = await self._answer(subject, way, row)
        except FAILURES as error:
            self.seen.failed[f"read by {way}: {_kind(error)}"] += 1
            if isinstance(error, WriteLost):
                self.seen.told_lost.append(f"{row} on {shard}: {', '.join(error.seen)}")
            return
        behind = answer["seen"] != text
        self.seen.pairs.append(Pair(shard, way, answer["replica"], behind, time.monotonic() - began))
        if behind and self._carry and len(self.seen.examples) < 10:
            token = self._client.token().of(shard)
            self.seen.examples.append(f"{way} of {row} on {shard}, read by a {_who(answer)}: {answer['seen']}; token {token}")

    async def _answer(self, subject: str, way: str, row: UUID) -> Mapping[str, Any]:
        match way:
            case "elsewhere":
                token = str(self._client.token()) if self._carry else None
                with self._elsewhere.after(token):
                    rows = await self._elsewhere.fetch("questions", FIND, subject, row, key=subject, deadline=DEADLINE)
            case "block":
                async with self._client.read("questions", key=subject, deadline=DEADLINE) as connection:
                    rows = await connection.fetch(FIND, subject, row)
            case _:
                rows = await self._client.fetch("questions", FIND, subject, row, key=subject, deadline=DEADLINE)
        found: Mapping[str, Any] = rows[0]
        return found


def by_shard(seen: Sequence[Seen], shard: str) -> Seen:
    """Everything about ``shard`` in several."""
    return Seen([pair for one in seen for pair in one.where(shard=shard).pairs])


def _who(answer: Mapping[str, Any]) -> str:
    return "replica" if answer["replica"] else "primary"


def _kind(error: BaseException) -> str:
    return f"{type(error).__name__} {error.code}" if isinstance(error, PgfleetError) else type(error).__name__
