"""A read block writes nothing, also where the primary answers it, whatever is said in it."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest
from tests.adapters.stage import Bank, bank

import pgfleet

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

INSERT = "insert into questions (subject, stem) values ('PMP', 'through a read')"


@pytest.fixture(scope="module")
def servers() -> Iterator[Bank]:
    with bank(0) as made:
        yield made


@pytest.mark.parametrize("isolation", [None, "repeatable read"])
async def test_a_read_block_cannot_be_made_to_write(servers: Bank, isolation: str | None) -> None:
    async with pgfleet.connect(servers.folder) as fleet:
        with pytest.raises(asyncpg.ActiveSQLTransactionError):
            async with fleet.read("questions", key="PMP", isolation=isolation) as conn:
                await conn.execute("set transaction read write")
        with pytest.raises(pgfleet.WriteInRead):
            async with fleet.read("questions", key="PMP", isolation=isolation) as conn:
                await conn.execute(INSERT)
        assert await fleet.fetchval("questions", "select count(*) from questions", key="PMP") == 0
