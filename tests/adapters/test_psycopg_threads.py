"""psycopg's synchronous connections by route, in threads, on real servers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from tests.adapters.stage import Bank, bank
from tests.adapters.test_psycopg_async import COUNT, INSERT, cancel_its_wait

import pgfleet
from pgfleet.adapters.psycopg import Connection, Fleet

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def servers() -> Iterator[Bank]:
    with bank(1) as made:
        yield made


@pytest.fixture
def fleet(servers: Bank) -> Iterator[Fleet]:
    with Fleet(servers.folder, size=4) as made:
        yield made


def one(conn: Connection, sql: str, *args: object) -> object:
    row = conn.execute(sql, args).fetchone()
    assert row is not None
    return row[0]


def test_reads_are_read_only_and_writes_are_committed(fleet: Fleet, servers: Bank) -> None:
    with fleet.write("questions", key="PMP") as conn:
        conn.execute(INSERT, ["kept"])
        assert one(conn, "select inet_server_port()") == servers.nodes[servers.primary].port
    with fleet.read("questions", key="PMP") as conn:
        assert one(conn, "select pg_is_in_recovery()") is True
    with pytest.raises(pgfleet.WriteInRead), fleet.read("questions", key="PMP") as conn:
        conn.execute(INSERT, ["no"])
    with pytest.raises(ZeroDivisionError), fleet.write("questions", key="PMP") as conn:
        conn.execute(INSERT, [str(1 // 0)])
    with fleet.write("questions", key="PMP") as conn:
        assert one(conn, COUNT, "kept") == 1


def test_the_route_is_there_without_a_driver(fleet: Fleet, servers: Bank) -> None:
    route = fleet.route("questions", key="PMP", write=True)
    assert (route.name, route.port, route.role) == (servers.primary, servers.nodes[servers.primary].port, "write")
    with psycopg.connect(**route.connect_kwargs(user="pgfleet_app", password="pgfleet_app")) as conn:
        row = conn.execute("select current_setting('pgfleet.epoch')").fetchone()
        assert row == ("7",)


def test_every_call_has_a_deadline(fleet: Fleet) -> None:
    began = time.monotonic()
    with pytest.raises(pgfleet.DeadlineExceeded), fleet.read("questions", key="PMP", deadline=0.3) as conn:
        conn.execute("select pg_sleep(30)")
    assert time.monotonic() - began < 2


def test_a_stopped_server_costs_the_deadline_and_not_more(fleet: Fleet, servers: Bank) -> None:
    servers.send(servers.primary, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(pgfleet.DeadlineExceeded), fleet.write("questions", key="PMP", deadline=0.7):
            pass
        assert time.monotonic() - began < 2
    finally:
        servers.send(servers.primary, signal.SIGCONT)


def test_threads_share_it(fleet: Fleet) -> None:
    def insert(number: int) -> int:
        with fleet.write("questions", key="PMP", deadline=20) as conn:
            conn.execute(INSERT, ["threads"])
        return number

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(insert, range(200))) == sum(range(200))
    with fleet.write("questions", key="PMP") as conn:
        assert one(conn, COUNT, "threads") == 200


def test_a_commit_whose_wait_for_the_replicas_is_cancelled_is_not_called_done(fleet: Fleet, servers: Bank) -> None:
    servers.psql("alter system set synchronous_standby_names = 'nobody'; select pg_reload_conf()")
    try:
        with (  # noqa: PT012 - the block is what is tested
            pytest.raises(pgfleet.OutcomeUnknown) as told,
            fleet.write("questions", key="PMP", deadline=20) as conn,
        ):
            conn.execute(INSERT, ["alone"])
            cancel = threading.Thread(target=cancel_its_wait, args=(servers, one(conn, "select pg_backend_pid()")))
            cancel.start()
        cancel.join()
        assert told.value.seen == ("the replicas did not confirm it",)
    finally:
        servers.psql("alter system reset synchronous_standby_names; select pg_reload_conf()")


def test_a_write_that_leaves_a_row_can_be_asked(fleet: Fleet, servers: Bank) -> None:
    with (
        servers.nobody_confirms(),
        pytest.raises(pgfleet.OutcomeUnknown) as told,
        fleet.write("questions", key="PMP", deadline=0.6, resolvable=True) as conn,
    ):
        conn.execute(INSERT, ["asked"])
    assert fleet.resolve(told.value) == "committed"
    with fleet.write("questions", key="PMP") as conn:
        assert one(conn, COUNT, "asked") == 1


def test_a_thread_sees_what_it_wrote_itself_and_what_it_is_given_the_token_of(fleet: Fleet, servers: Bank) -> None:
    def written() -> object:
        with fleet.read("questions", key="PMP") as conn:
            return one(conn, COUNT, "by token")

    def written_after(token: str) -> object:
        with fleet.after(token):
            return written()

    with servers.standing_still():
        with fleet.write("questions", key="PMP") as conn:
            conn.execute(INSERT, ["by token"])
        assert written() == 1
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(written).result() == 0
            assert threads.submit(written_after, str(fleet.token())).result() == 1


def test_it_is_closed_after_its_block_and_in_a_child(servers: Bank) -> None:
    with Fleet(servers.folder) as fleet:
        with fleet.read("questions", key="PMP"):
            pass
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with fleet.read("questions", key="PMP"):
                    os.write(write, b"lent")
            except pgfleet.PgfleetError as error:
                os.write(write, error.code.encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 100) == b"PGF-F203"
        os.close(read)
        os.close(write)
    with pytest.raises(pgfleet.PgfleetError, match="not open"), fleet.read("questions", key="PMP"):
        pass


def test_a_failover_cuts_off_who_still_writes_to_the_old_primary() -> None:
    with bank(1) as own, Fleet(own.folder) as fleet:
        with fleet.write("questions", key="PMP") as conn:
            conn.execute(INSERT, ["first"])
        time.sleep(0.5)  # asynchronous replication: let it arrive
        old, begun, said = own.primary, threading.Event(), list[Exception]()

        def write() -> None:
            try:
                with fleet.write("questions", key="PMP", deadline=90) as conn:
                    begun.set()
                    conn.execute("select pg_sleep(60)")
            except (psycopg.Error, pgfleet.PgfleetError) as error:
                said.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        begun.wait(10)
        try:
            own.send(old, signal.SIGSTOP)  # silent: nobody hangs up on us, and it would go on writing if it were woken
            heir = own.fail_over(kill=False)
            with fleet.write("questions", key="PMP", deadline=30) as conn:
                assert one(conn, "select inet_server_port()") == own.nodes[heir].port
                assert one(conn, COUNT, "first") == 1
            writer.join(10)
            assert [type(error) for error in said] == [psycopg.OperationalError]
        finally:
            own.send(old, signal.SIGCONT)
