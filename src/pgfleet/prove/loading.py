"""Loading questions: COPY in batches, one transaction each, every shard at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from pgfleet.prove.questions import Question
from pgfleet.routing.placement import Placement

COLUMNS = ("subject", "stem", "choices", "answer", "difficulty")
#: Rows in one COPY, and so in one transaction.
BATCH = 1000


class Client(Protocol):
    """What of ``pgfleet.connect``'s fleet is used here."""

    def write(self, table: str, *, key: Any) -> AbstractAsyncContextManager[Any]: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """:param by_subject: how many rows of each."""

    seconds: float
    by_subject: dict[str, int]

    @property
    def rows(self) -> int:
        return sum(self.by_subject.values())

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds else 0.0


async def load_questions(
    client: Client,
    placement: Placement,
    questions: Mapping[str, Sequence[Question]],
    told: Callable[[int], None],
) -> Loaded:
    """Load ``questions`` (by subject).

    :param told: called with the number of rows of each batch that was committed.
    """
    by_shard: dict[str, list[str]] = {}
    for subject in questions:
        by_shard.setdefault(placement.shard("questions", subject).shard, []).append(subject)
    began = time.monotonic()

    async def one_shard(subjects: Sequence[str]) -> None:
        for subject in subjects:
            rows = iter((q.subject, q.stem, list(q.choices), q.answer, q.difficulty) for q in questions[subject])
            while batch := list(islice(rows, BATCH)):
                async with client.write("questions", key=subject) as connection:
                    await connection.copy_records_to_table("questions", records=batch, columns=COLUMNS)
                told(len(batch))

    async with asyncio.TaskGroup() as group:
        for subjects in by_shard.values():
            group.create_task(one_shard(subjects))
    return Loaded(time.monotonic() - began, {subject: len(listed) for subject, listed in questions.items()})
