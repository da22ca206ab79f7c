"""The row that every measured write inserts, and reading all of them back. The row itself records the timeline it was
written on, in the inserting statement: what timeline a write belongs to is then nobody's opinion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from pgfleet.control.connect import connect
from pgfleet.facts.addresses import AddressBook
from pgfleet.prove.evidence import Ack

#: Filled with six parameters, in the words of the driver at hand. The first 8 of a WAL file's name are its timeline in
#: hexadecimal (PostgreSQL docs, 9.27.3); pg_control_checkpoint() would still tell the old one after a promotion.
INSERT = (
    "insert into questions (subject, id, stem, choices, answer, difficulty, explanation) values"
    " ({}, {}, {}, {}, {}, {}, 'timeline ' || substring(pg_walfile_name(pg_current_wal_lsn()) for 8))"
)

#: The same, made to tell how often it was done: a second time adds its timeline to the row that is there.
COUNTED = INSERT + " on conflict (subject, id) do update set explanation = questions.explanation || ', ' || excluded.explanation"

ROW = re.compile(r"timeline ([0-9A-F]{8})")
CHOICES = ["before the fault", "after it", "on both timelines", "on none"]
#: Ids asked for in one statement.
BATCH = 5000


def arguments(subject: str, row: UUID, number: int) -> tuple[str, UUID, str, list[str], int, int]:
    """What is inserted; no two are the same question."""
    return subject, row, f"Which write is {row}, number {number} of its writer?", CHOICES, number % 4, number % 5 + 1


async def read_back(book: AddressBook, acks: Iterable[Ack], subjects: Mapping[str, str]) -> dict[UUID, int]:
    """The timeline in each acknowledged row that is there now, read from each shard's primary.

    :param subjects: the subject that was written to on each shard.
    :raises NoSuchNode: a shard has no primary that answers.
    """
    wanted: dict[str, list[UUID]] = {}
    for ack in acks:
        wanted.setdefault(ack.shard, []).append(ack.id)
    found: dict[UUID, int] = {}
    for shard, ids in wanted.items():
        connection = (await connect(book, shard, "pgfleet_app")).connection
        try:
            for first in range(0, len(ids), BATCH):
                rows = await connection.fetch(
                    "select id, explanation from questions where subject = $1 and id = any($2)",
                    subjects[shard], ids[first : first + BATCH], timeout=60.0,
                )  # fmt: skip
                found |= {row["id"]: _timeline(row) for row in rows}
        finally:
            connection.terminate()
    return found


async def applied(connection: asyncpg.Connection[Any], subjects: Sequence[str]) -> dict[UUID, tuple[int, ...]]:
    """Every row of :data:`COUNTED` that a shard has: the timeline of each time it was done.

    :param connection: to the shard's primary. :param subjects: those that were written to there.
    """
    found: dict[UUID, tuple[int, ...]] = {}
    for subject in subjects:
        last = UUID(int=0)
        while rows := await connection.fetch(
            "select id, explanation from questions where subject = $1 and id > $2 order by id limit $3", subject, last, BATCH
        ):
            last = rows[-1]["id"]
            written = ((row["id"], ROW.findall(row["explanation"])) for row in rows)
            found |= {row: tuple(int(word, 16) for word in words) for row, words in written if words}
    return found


def _timeline(row: asyncpg.Record) -> int:
    match = ROW.fullmatch(row["explanation"])
    if match is None:
        raise ValueError(f"row {row['id']} does not say its timeline: {row['explanation']!r}")
    return int(match[1], 16)
