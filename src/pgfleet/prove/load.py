"""An application of the question bank: readers and writers through the fleet's client, every call written down.

It is a closed loop with pauses, so that a machine of two cores is busy and not saturated: an outage then shows as an
outage, and not as a queue. Each writer keeps to a timetable; the writers of the shard that a fault will hit are several
and quick, because a gap can only be seen as sharply as writes are frequent.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid4

import asyncpg

from pgfleet.errors import PgfleetError
from pgfleet.prove.evidence import Ack
from pgfleet.prove.tally import Call, Kind
from pgfleet.prove.writing import INSERT, arguments

PAGE = """select id, stem, difficulty, pg_is_in_recovery() as replica from questions
where subject = $1 and id > $2 order by id limit 20"""
POINT = """select id, stem, choices, answer, difficulty, pg_is_in_recovery() as replica from questions
where subject = $1 and id = $2"""
SEARCH = """select id, stem, pg_is_in_recovery() as replica from questions
where subject = $1 and tsv @@ websearch_to_tsquery('english', $2) limit 10"""
UPDATE = "update questions set difficulty = $3 where subject = $1 and id = $2"
INSERTION = INSERT.format(*(f"${n}" for n in range(1, 7)))

#: Of 100 reads: so many pages and searches, the rest reads one question by its id.
PAGES, SEARCHES = 60, 2
#: One write of so many changes the writer's last row instead of adding one.
UPDATE_EVERY = 8
FIRST = UUID(int=0)


class Client(Protocol):
    """What of ``pgfleet.connect``'s fleet is used here."""

    async def fetch(self, table: str, sql: str, *args: Any, key: Any) -> Sequence[Mapping[str, Any]]: ...
    async def execute(self, table: str, sql: str, *args: Any, key: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """:param think: seconds that a reader pauses after a call, on average.
    :param writers: all on the shard in focus; each writes every ``every`` seconds.
    :param elsewhere_every: seconds between two writes of the one writer that each other shard has."""

    readers: int = 8
    think: float = 0.008
    writers: int = 3
    every: float = 0.025
    elsewhere_every: float = 0.1


@dataclass(slots=True)
class Application:
    """:param subjects: what is read and written, by shard; the first of each shard is written to.
    :param focus: the shard that is written to most; None: all alike."""

    client: Client
    subjects: Mapping[str, Sequence[str]]
    focus: str | None = None
    pace: Pace = Pace()
    seed: int = 0
    calls: list[Call] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    unknown: list[tuple[str, UUID]] = field(default_factory=list)
    failures: list[tuple[float, str]] = field(default_factory=list)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set; a call that is under way then is finished."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.pace.readers):
                group.create_task(self._read(stop, random.Random(f"{self.seed}/reader/{number}")))
            for shard in self.subjects:
                busy = self.focus in (None, shard)
                every = self.pace.every if busy else self.pace.elsewhere_every
                for number in range(self.pace.writers if busy else 1):
                    group.create_task(self._write(stop, shard, every, number / max(1, self.pace.writers) * every))

    def written(self, shard: str) -> str:
        """The subject that is written to on ``shard``."""
        return self.subjects[shard][0]

    async def _read(self, stop: asyncio.Event, chance: random.Random) -> None:
        places = [(shard, subject) for shard, subjects in self.subjects.items() for subject in subjects]
        seen: dict[str, list[tuple[UUID, str]]] = {}
        while not stop.is_set():
            shard, subject = chance.choice(places)
            known = seen.get(subject, [])
            drawn = chance.randrange(100)
            if not known or drawn < PAGES:
                after = chance.choice(known)[0] if known and drawn % 2 else FIRST
                rows = await self._called("page", shard, self.client.fetch("questions", PAGE, subject, after, key=subject))
                if rows:
                    seen[subject] = [(row["id"], row["stem"]) for row in rows]
            elif drawn < PAGES + SEARCHES:
                words = chance.choice(known)[1].split()[-3:]
                call = self.client.fetch("questions", SEARCH, subject, " or ".join(words), key=subject)
                await self._called("search", shard, call)
            else:
                row = chance.choice(known)[0]
                await self._called("point", shard, self.client.fetch("questions", POINT, subject, row, key=subject))
            await asyncio.sleep(self.pace.think * chance.uniform(0.5, 1.5))

    async def _write(self, stop: asyncio.Event, shard: str, every: float, offset: float) -> None:
        subject = self.written(shard)
        last: UUID | None = None
        number = 0
        await asyncio.sleep(offset)
        due = time.monotonic()
        while not stop.is_set():
            number += 1
            if last is not None and number % UPDATE_EVERY == 0:
                call = self.client.execute("questions", UPDATE, subject, last, number % 5 + 1, key=subject)
                await self._called("update", shard, call)
            else:
                row = uuid4()
                call = self.client.execute("questions", INSERTION, *arguments(subject, row, number), key=subject)
                if await self._called("insert", shard, call, row) is not None:
                    self.acks.append(Ack(self.calls[-1].at, shard, row))
                    last = row
            # Kept to the timetable; what an outage made impossible is not made up for.
            due = max(due + every, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _called(self, kind: Kind, shard: str, call: Any, row: UUID | None = None) -> Any:
        """The call's answer, written down; None when it failed."""
        began = time.monotonic()
        try:
            answer = await call
        except (PgfleetError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            ended = time.monotonic()
            what = f"{type(error).__name__} {error.code}" if isinstance(error, PgfleetError) else type(error).__name__
            self.calls.append(Call(ended, ended - began, kind, shard, error=what))
            self.failures.append((ended, f"{kind} {shard}: {error}"))
            if row is not None:
                self.unknown.append((shard, row))  # it may be there or not; it counts neither way
            return None
        ended = time.monotonic()
        replica = bool(answer[0]["replica"]) if kind in ("page", "point", "search") and answer else None
        self.calls.append(Call(ended, ended - began, kind, shard, replica))
        return answer if answer is not None else ()
