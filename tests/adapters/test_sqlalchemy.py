"""SQLAlchemy sessions whose binds follow the route, on real servers."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.adapters.stage import GUARDS, Bank, Listener, bank
from tests.adapters.test_psycopg_async import cancel_its_wait

import pgfleet
from pgfleet.adapters.sqlalchemy import FleetSession, FleetSessions
from pgfleet.errors import BlockRolledBack, CrossShardWrite, NotOwned, PlacementMoved

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]


class Base(DeclarativeBase):
    pass


class Question(Base):
    __tablename__ = "questions"
    subject: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    stem: Mapped[str]


@pytest.fixture(scope="module")
def servers() -> Iterator[Bank]:
    with bank(1, arts=True) as made:
        yield made


@pytest.fixture
async def sessions(servers: Bank) -> AsyncIterator[FleetSessions]:
    async with pgfleet.connect(servers.folder, region="us-west") as fleet, FleetSessions(fleet, size=2) as made:
        yield made


def writing(sessions: FleetSessions, key: str = "PMP", **more: float) -> FleetSession:
    return sessions.using("questions", key=key, write=True, deadline=more.get("deadline"))


async def count(session: FleetSession, stem: str) -> int:
    return await session.scalar(select(func.count()).select_from(Question).where(Question.stem == stem)) or 0


async def test_what_is_added_is_committed_and_found(sessions: FleetSessions, servers: Bank) -> None:
    async with writing(sessions) as session:
        session.add(Question(subject="PMP", stem="added"))
        assert await session.scalar(text("select current_setting('pgfleet.key')")) == "questions:PMP"
        assert await session.scalar(text("select current_setting('pgfleet.epoch')")) == "7"
        assert await session.scalar(text("select inet_server_port()")) == servers.nodes[servers.primary].port
        await session.commit()
    async with sessions.using("questions", key="PMP") as session:
        assert await session.scalar(text("select pg_is_in_recovery()")) is True
        async with asyncio.timeout(10):
            while (found := await session.scalar(select(Question).where(Question.stem == "added"))) is None:
                await session.rollback()
        assert found.subject == "PMP"


async def test_one_session_reads_near_then_writes_to_the_primary(sessions: FleetSessions) -> None:
    async with writing(sessions) as session:
        session.add(Question(subject="PMP", stem="before"))
        await session.commit()
    async with sessions() as session:
        async with asyncio.timeout(10):
            while (
                q := await session.using("questions", key="PMP").scalar(select(Question).where(Question.stem == "before"))
            ) is None:
                await session.rollback()
        q.stem = "after"
        session.using("questions", key="PMP", write=True)
        await session.commit()
        assert await count(session, "after") == 1


async def test_a_read_writes_nothing(sessions: FleetSessions) -> None:
    with pytest.raises(pgfleet.WriteInRead):  # noqa: PT012 - the block is what is tested
        async with sessions.using("questions", key="PMP") as session:
            session.add(Question(subject="PMP", stem="no"))
            await session.flush()
    with pytest.raises(pgfleet.WriteInRead):
        async with sessions.using("questions", key="Art") as session:  # its only node is the primary
            await session.execute(update(Question).values(stem="no"))


async def test_without_a_word_where_there_is_no_bind(sessions: FleetSessions) -> None:
    async with sessions() as session:
        with pytest.raises(pgfleet.PlacementError, match="not told which rows"):
            await session.scalar(select(Question))
        with pytest.raises(pgfleet.PlacementError):
            session.using("questions", key="Alchemy")


async def test_one_transaction_writes_to_one_shard_and_reads_from_several(sessions: FleetSessions) -> None:
    async with writing(sessions) as session:
        session.add(Question(subject="PMP", stem="here"))
        await session.flush()
        assert await count(session.using("questions", key="Art"), "here") == 0
        with pytest.raises(CrossShardWrite):
            await session.using("questions", key="Art", write=True).scalar(text("select 1"))
        await session.using("questions", key="PMP", write=True).commit()
        session.using("questions", key="Art", write=True).add(Question(subject="Art", stem="there"))
        await session.commit()
        assert await count(session, "there") == 1


async def test_a_transaction_that_raises_leaves_nothing(sessions: FleetSessions) -> None:
    same = uuid4()
    with pytest.raises(IntegrityError):  # noqa: PT012
        async with writing(sessions) as session, session.begin():
            session.add(Question(subject="PMP", id=same, stem="twice"))
            await session.flush()
            await session.execute(text("insert into questions values ('PMP', :id, 'twice')"), {"id": same})
    with pytest.raises(BlockRolledBack):  # noqa: PT012
        async with writing(sessions) as session:
            await session.execute(text("insert into questions (subject, stem) values ('PMP', 'twice')"))
            with pytest.raises(DBAPIError):
                await session.execute(text("select 1 / 0"))
            await session.commit()
    async with writing(sessions) as session:
        assert await count(session, "twice") == 0


async def test_what_a_session_leaves_does_not_reach_the_next(sessions: FleetSessions) -> None:
    before = None
    for _ in range(2):  # the second time the statements are prepared already
        async with writing(sessions) as session:
            assert await session.scalar(text("show application_name")) == "pgfleet"
            assert await session.scalar(text("select count(*) from pg_locks where locktype = 'advisory' and objid = 78")) == 0
            assert await session.scalar(text("select count(*) from pg_class where relname = 'left_behind'")) == 0
            await session.execute(text("select set_config('application_name', 'mine', false)"))
            await session.execute(text("select pg_advisory_lock(78)"))
            await session.execute(text("create temp table left_behind ()"))
            before = await session.scalar(text("select pg_backend_pid()"))
            await session.commit()
    async with writing(sessions) as session:
        assert await session.scalar(text("select pg_backend_pid()")) == before
        assert await session.scalar(text("show application_name")) == "pgfleet"


@pytest.mark.parametrize("write", [True, False], ids=["write", "read"])
@pytest.mark.parametrize("left", ["prepared", "codec", "logger", "listener"])
async def test_what_cannot_be_undone_ends_the_session(sessions: FleetSessions, left: str, *, write: bool) -> None:
    async def backend() -> int:
        return int(await session.scalar(text("select pg_backend_pid()")))

    heard: list[object] = []
    async with sessions.using("questions", key="PMP", write=write) as session:
        before = await backend()
        driver: Any = (await (await session.connection()).get_raw_connection()).driver_connection
        match left:
            case "prepared":
                await session.execute(text("prepare left_behind as select 1"))
            case "codec":
                await driver.set_type_codec("int4", schema="pg_catalog", encoder=str, decoder=lambda _: 7, format="text")
            case "logger":
                driver.add_query_logger(heard.append)
            case _:
                driver.add_log_listener(lambda *_: heard.append(_))
        await session.commit()
    heard.clear()
    async with sessions.using("questions", key="PMP", write=write) as session:
        assert await session.scalar(text("select count(*) from pg_prepared_statements where from_sql")) == 0
        assert await session.scalar(text("select 1::int4")) == 1
        await session.execute(text("do $$ begin raise notice 'of somebody else'; end $$"))
        assert heard == []
        after = await backend()
        assert after != before
    async with sessions.using("questions", key="PMP", write=write) as session:
        assert await backend() == after


async def test_a_session_that_leaves_nothing_is_not_reset(sessions: FleetSessions, servers: Bank) -> None:
    async with writing(sessions) as session:
        pid = await session.scalar(text("select pg_backend_pid()"))
        await session.execute(select(Question).limit(1))
        await session.commit()
    connection = await servers.inner.connect("stem", role="postgres")
    try:
        assert await connection.fetchval("select query from pg_stat_activity where pid = $1", pid) == "COMMIT;"
    finally:
        await connection.close()


async def test_every_call_has_a_deadline(sessions: FleetSessions) -> None:
    began = time.monotonic()
    with pytest.raises(pgfleet.DeadlineExceeded):
        async with sessions.using("questions", key="PMP", deadline=0.3) as session:
            await session.execute(text("select pg_sleep(30)"))
    with pytest.raises(pgfleet.DeadlineExceeded):
        async with writing(sessions, deadline=0.3) as session:
            await session.execute(text("select pg_sleep(30)"))
    assert time.monotonic() - began < 3
    async with writing(sessions) as session:
        assert await session.scalar(text("select 1")) == 1


async def test_a_commit_whose_wait_for_the_replicas_is_cancelled_is_not_called_done(
    sessions: FleetSessions, servers: Bank
) -> None:
    servers.psql("alter system set synchronous_standby_names = 'nobody'; select pg_reload_conf()")
    try:
        async with writing(sessions, deadline=20) as session:
            session.add(Question(subject="PMP", stem="alone"))
            pid = await session.scalar(text("select pg_backend_pid()"))
            cancel = asyncio.create_task(asyncio.to_thread(cancel_its_wait, servers, pid))
            with pytest.raises(pgfleet.OutcomeUnknown) as told:
                await session.commit()
            assert told.value.seen == ("the replicas did not confirm it",)
            await cancel
        async with writing(sessions, deadline=0.6) as session:
            session.add(Question(subject="PMP", stem="alone"))
            with pytest.raises(pgfleet.OutcomeUnknown):
                await session.commit()
    finally:
        servers.psql("alter system reset synchronous_standby_names; select pg_reload_conf()")
    async with writing(sessions) as session:
        assert await session.scalar(text("select 1")) == 1


async def test_a_transaction_that_leaves_a_row_can_be_asked(sessions: FleetSessions, servers: Bank) -> None:
    with servers.nobody_confirms():
        async with sessions.using("questions", key="PMP", write=True, deadline=0.8, resolvable=True) as session:
            session.add(Question(subject="PMP", stem="asked"))
            with pytest.raises(pgfleet.OutcomeUnknown) as told:
                await session.commit()
    assert await told.value.resolve() == "committed"
    async with sessions.using("questions", key="PMP", write=True, resolvable=True) as session:
        assert await count(session, "asked") == 1
        await session.commit()


async def test_a_session_sees_its_own_writes_without_being_told_again(sessions: FleetSessions, servers: Bank) -> None:
    async with sessions() as session:
        session.using("questions", key="PMP")
        assert await count(session, "later") == 0
        await session.rollback()
        with servers.standing_still():
            async with writing(sessions) as other:
                other.add(Question(subject="PMP", stem="later"))
                await other.commit()
            assert await count(session, "later") == 1


async def test_reads_see_what_their_caller_wrote(sessions: FleetSessions, servers: Bank) -> None:
    async def somebody_else() -> int:
        async with sessions.using("questions", key="PMP") as session:
            return await count(session, "own")

    with servers.standing_still():
        async with writing(sessions) as session:
            session.add(Question(subject="PMP", stem="own"))
            await session.commit()
            assert await count(session.using("questions", key="PMP"), "own") == 1
        async with sessions.using("questions", key="PMP") as session:
            assert await count(session, "own") == 1
        assert await contextvars.Context().run(asyncio.ensure_future, somebody_else()) == 0


async def test_a_guards_refusal_says_what_it_means(sessions: FleetSessions, servers: Bank) -> None:
    servers.psql(GUARDS)
    try:
        for stem, error in (("old", PlacementMoved), ("alien", NotOwned)):
            with pytest.raises(error):  # noqa: PT012
                async with writing(sessions) as session:
                    session.add(Question(subject="PMP", stem=stem))
                    await session.commit()
    finally:
        servers.psql("drop function refuse cascade")


async def test_what_happens_is_told(servers: Bank) -> None:
    heard = Listener()
    async with pgfleet.connect(servers.folder, region="us-west", observers=[heard]) as fleet, FleetSessions(fleet) as sessions:
        async with writing(sessions) as session:
            await session.execute(text("select 1"))
            assert heard.calls == []
            await session.commit()
        with pytest.raises(DBAPIError):
            async with sessions.using("questions", key="PMP") as session:
                await session.execute(text("select 1 / 0"))
        assert heard.open_of["sqlalchemy", servers.primary, "write"] == 1
    told = [(call.kind, call.node, call.outcome) for call in heard.calls]
    assert told == [("transaction", servers.primary, "ok"), ("transaction", servers.replicas[0], "failed")]
    assert heard.open_of["sqlalchemy", servers.primary, "write"] == 0


async def test_a_server_that_was_restarted_costs_another_connection(sessions: FleetSessions, servers: Bank) -> None:
    async with writing(sessions) as session:
        await session.execute(text("select 1"))
    server = servers.nodes[servers.primary]
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    async with writing(sessions, deadline=20) as session:
        assert await session.scalar(text("select 1")) == 1


async def test_a_failover_between_two_transactions_and_in_the_middle_of_one() -> None:
    with bank(1) as own:
        async with pgfleet.connect(own.folder) as fleet, FleetSessions(fleet) as sessions:
            await _fail_over(own, sessions)


async def _fail_over(own: Bank, sessions: FleetSessions) -> None:
    async def write() -> None:
        async with writing(sessions, deadline=90) as other:
            await other.execute(text("select pg_sleep(60)"))

    async with writing(sessions) as session:
        session.add(Question(subject="PMP", stem="first"))
        await session.commit()
        await asyncio.sleep(0.5)  # asynchronous replication: let it arrive
        under_way = asyncio.create_task(write())
        await asyncio.sleep(0.3)
        old = own.primary
        try:
            own.send(old, signal.SIGSTOP)  # silent: nobody hangs up on us
            heir = await asyncio.to_thread(own.fail_over, kill=False)
            session.using("questions", key="PMP", write=True, deadline=30)
            assert await session.scalar(text("select inet_server_port()")) == own.nodes[heir].port
            assert await count(session, "first") == 1
            session.add(Question(subject="PMP", stem="second"))
            await session.commit()
            with pytest.raises(DBAPIError):
                await asyncio.wait_for(under_way, 10)
        finally:
            own.send(old, signal.SIGCONT)
