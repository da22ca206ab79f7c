"""What a borrower does to psycopg's connection object, or with it afterwards, does not reach the next borrower."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader
from tests.adapters.stage import Bank, bank

import pgfleet
from pgfleet.adapters.psycopg import AsyncConnection, AsyncFleet, Connection, Fleet

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

ROLES = pytest.mark.parametrize("write", [True, False], ids=["write", "read"])
NOTICE = "do $$ begin raise notice 'of somebody else'; end $$"


def outside(attribute: str, value: object) -> Callable[[Any], object]:
    """Set where psycopg lets it be: outside of any transaction."""

    def leave(conn: Any) -> None:
        conn.execute("commit")
        setattr(conn, attribute, value)

    return leave


#: What is done to the object.
LEAVE: dict[str, Callable[[Any], object]] = {
    "row factory": lambda conn: setattr(conn, "row_factory", dict_row),
    "cursor factory": lambda conn: setattr(conn, "cursor_factory", psycopg.ClientCursor),
    "server cursor factory": lambda conn: setattr(conn, "server_cursor_factory", None),
    "prepare_threshold": lambda conn: setattr(conn, "prepare_threshold", None),
    "prepared_max": lambda conn: setattr(conn, "prepared_max", 1),
    "loader": lambda conn: conn.adapters.register_loader("int4", TextLoader),
    "autocommit": outside("autocommit", False),
    "isolation level": outside("isolation_level", 4),
    "read only": outside("read_only", True),
    "deferrable": outside("deferrable", True),
}


@pytest.fixture(scope="module")
def servers() -> Iterator[Bank]:
    with bank(1, arts=True) as made:
        yield made


@pytest.fixture
def fleet(servers: Bank) -> Iterator[Fleet]:
    with Fleet(servers.folder, region="us-west", size=1) as made:
        yield made


@pytest.fixture
async def people(servers: Bank) -> AsyncIterator[AsyncFleet]:
    async with pgfleet.connect(servers.folder, region="us-west") as opened, AsyncFleet(opened, size=1) as made:
        yield made


def as_it_is(conn: Connection) -> dict[str, object]:
    return {
        "rows": conn.row_factory, "cursors": conn.cursor_factory, "server cursors": conn.server_cursor_factory,
        "threshold": conn.prepare_threshold, "most": conn.prepared_max, "one": conn.execute("select 1::int4").fetchone(),
        "autocommit": conn.autocommit, "isolation": conn.isolation_level, "read only": conn.read_only,
        "deferrable": conn.deferrable, "session": conn.info.backend_pid,
    }  # fmt: skip


@ROLES
@pytest.mark.parametrize("left", LEAVE)
def test_what_was_done_to_the_object_is_gone(fleet: Fleet, left: str, *, write: bool) -> None:
    lend = fleet.write if write else fleet.read
    with lend("questions", key="PMP") as conn:
        before = as_it_is(conn)
        LEAVE[left](conn)
    with lend("questions", key="PMP") as conn:
        assert as_it_is(conn) == before


@ROLES
def test_handlers_hear_nobody_else(fleet: Fleet, *, write: bool) -> None:
    heard: list[object] = []
    lend = fleet.write if write else fleet.read
    with lend("questions", key="PMP") as conn:
        conn.add_notice_handler(heard.append)
        conn.add_notify_handler(heard.append)
        conn.execute(NOTICE)
        assert len(heard) == 1
    with lend("questions", key="PMP") as conn:
        conn.execute(NOTICE)
        if write:
            conn.execute("commit")
            conn.execute("listen news")
            conn.execute("notify news")
    assert len(heard) == 1


def test_what_psycopg_has_prepared_is_kept(fleet: Fleet) -> None:
    ask = "select count(*) from pg_prepared_statements where statement = %s"
    for _ in range(3):
        with fleet.write("questions", key="PMP") as conn:
            conn.execute("select 'prepared'", prepare=True)
            assert conn.execute(ask, ["select 'prepared'"]).fetchone() == (1,)


@ROLES
def test_a_connection_that_was_kept_is_closed(fleet: Fleet, *, write: bool) -> None:
    lend = fleet.write if write else fleet.read
    with lend("questions", key="PMP") as kept:
        pid = kept.info.backend_pid
        cursor = kept.execute("select generate_series(1, 3)")
    assert cursor.fetchone() == (1,)  # it had come already
    with lend("questions", key="PMP") as conn:
        assert conn.info.backend_pid == pid
        for use in (kept.execute, cursor.execute, lambda _: kept.cursor()):
            with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
                use("select 1")
        kept.close()
        kept.cancel()
        assert kept.closed
        assert conn.execute("select 1").fetchone() == (1,)
    with lend("questions", key="PMP") as conn:
        assert conn.info.backend_pid == pid


@ROLES
async def test_one_that_was_kept_is_closed_before_it_is_clean(people: AsyncFleet, *, write: bool) -> None:
    lend = people.write if write else people.read
    kept: list[AsyncConnection] = []
    for _ in range(3):
        async with lend("questions", key="PMP") as conn:
            conn.row_factory = dict_row
            cursor = await conn.execute("select 1 as one")
            kept.append(conn)
        began = time.monotonic()
        for use in (*(one.execute for one in kept), cursor.execute):
            with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
                await use("select 1")
        await conn.close()
        async with lend("questions", key="PMP") as conn:
            assert await (await conn.execute("select 1")).fetchone() == (1,)
        assert time.monotonic() - began < 1
    pids = set()
    for _ in range(2):
        async with lend("questions", key="PMP") as conn:
            pids.add(conn.info.backend_pid)
    assert len(pids) == 1


@ROLES
def test_a_pipeline_that_was_left_open_ends_the_session(fleet: Fleet, *, write: bool) -> None:
    kept = []

    def leave() -> None:
        with (fleet.write if write else fleet.read)("questions", key="PMP") as conn:
            kept.append(conn.pipeline())
            kept[0].__enter__()
            conn.execute("select 1")

    if write:
        with pytest.raises(pgfleet.BlockRolledBack):
            leave()
    else:
        leave()
    with (fleet.write if write else fleet.read)("questions", key="PMP") as conn:
        assert conn.execute("select 1").fetchone() == (1,)


def test_a_read_is_read_only_as_long_as_its_transaction_is_the_blocks(fleet: Fleet) -> None:
    again = "commit; begin read write"
    for key, sql in (("PMP", "set transaction read write"), ("PMP", again), ("Art", "set transaction read write")):
        with pytest.raises(psycopg.Error), fleet.read("questions", key=key) as conn:
            conn.execute(sql)
    with fleet.read("questions", key="Art") as conn:  # its only node is the primary
        conn.execute(again)
        assert conn.execute("show transaction_read_only").fetchone() == ("off",)  # as docs/how-to/psycopg.md says
    with fleet.read("questions", key="Art") as conn:
        assert conn.execute("show transaction_read_only").fetchone() == ("on",)
