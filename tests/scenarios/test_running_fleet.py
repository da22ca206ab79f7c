"""One fleet, as its users meet it: safe, watched, and writable again after a fault, with nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import stat
import time
import uuid
from pathlib import Path

import asyncpg
import httpx
import pytest
from tests.scenarios.fleet_stage import Stage, kill

import pgfleet
from pgfleet.client.fleet import Fleet
from pgfleet.client.pools import NodePool
from pgfleet.client.router import Router
from pgfleet.names import NodeName
from pgfleet.providers.local.keeper.control import KeeperClient
from pgfleet.runtime.state import read_addresses, read_secret

pytestmark = [pytest.mark.engines, pytest.mark.timeout(240)]


async def writer(fleet: Fleet, stop: asyncio.Event, acked: list[uuid.UUID]) -> float:
    """Insert until told to stop; the longest gap between two acknowledgements, in seconds."""
    gap, last = 0.0, time.monotonic()
    while not stop.is_set():
        row = uuid.uuid4()
        try:
            await fleet.execute("questions", "insert into questions values ($1, $2, 'x')", "AWS", row, key="AWS", deadline=60)
        except pgfleet.OutcomeUnknown:
            continue
        acked.append(row)
        gap, last = max(gap, time.monotonic() - last), time.monotonic()
        await asyncio.sleep(0.005)
    return gap


async def under_writes(stage: Stage, fault: object, settle: float = 2.0) -> tuple[float, list[uuid.UUID]]:
    """Perform ``fault`` (an async function) while somebody writes; every acknowledged row must be there afterwards."""
    async with pgfleet.connect(stage.folder) as fleet:
        stop, acked = asyncio.Event(), list[uuid.UUID]()
        task = asyncio.create_task(writer(fleet, stop, acked))
        await asyncio.sleep(1)
        await fault()  # type: ignore[operator]
        await asyncio.sleep(settle)
        stop.set()
        gap = await task
        await asyncio.to_thread(stage.whole)
        async with fleet.write("questions", key="AWS", deadline=30) as connection:  # the new primary's own word
            rows = await connection.fetch("select id from questions where subject = 'AWS'")
        assert set(acked) <= {row["id"] for row in rows}
        assert len(acked) > 50
        return gap, acked


def test_everything_streams_and_a_second_apply_has_nothing_to_do(running_fleet: Stage) -> None:
    status = running_fleet.status()
    assert [(s["name"], s["primary"]["node"], len(s["replicas"])) for s in status["shards"]] == [
        ("one", "east-1", 2),
        ("two", "west-1", 1),
    ]
    assert status["healthy"], status["problems"]
    assert running_fleet.json("apply")["steps"] == []
    assert "nothing to do" in running_fleet.run("plan")


async def test_every_endpoint_answers_as_what_it_is(running_fleet: Stage) -> None:
    password = read_secret(running_fleet.folder, "pgfleet_app")
    for shard in (await asyncio.to_thread(running_fleet.status))["shards"]:
        for ways in shard["endpoints"].values():
            for way, uri in ways.items():
                assert password not in uri
                connection = await asyncpg.connect(uri, password=password, ssl=False, statement_cache_size=0, timeout=10)
                assert await connection.fetchval("select pg_is_in_recovery()") == (way == "read_only")
                await connection.close()


def test_secrets_are_nobody_elses(running_fleet: Stage) -> None:
    secrets = list((running_fleet.folder / "secrets").iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    words = [path.read_bytes() for path in secrets if path.suffix != ".salt"]
    logs = [path for path in running_fleet.folder.rglob("*.log") if path.is_file()]
    assert logs
    for place in [*logs, running_fleet.folder / "journal.db", running_fleet.folder / "addresses.json"]:
        text = place.read_bytes()
        assert not any(word in text for word in words), place
    for pid in running_fleet.processes():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        # etcd's cluster token names the cluster; it opens nothing.
        secret = [p.read_bytes() for p in secrets if p.suffix != ".salt" and p.name != "etcd-token"]
        assert not any(word in command for word in secret)


async def test_only_a_certificate_of_the_fleet_changes_anything(running_fleet: Stage) -> None:
    folder = running_fleet.folder
    node, etcd = read_addresses(folder).nodes[0], read_addresses(folder).etcd[0]
    plain = ssl.create_default_context(cafile=str(folder / "certificates" / "ca.crt"))
    application = ssl.create_default_context(cafile=str(folder / "certificates" / "ca.crt"))
    application.load_cert_chain(folder / "certificates" / "app.crt", folder / "certificates" / "app.key")
    async with httpx.AsyncClient(verify=plain, trust_env=False, timeout=30) as http:
        assert (await http.get(f"{node.rest_url}/patroni")).status_code == 200
        assert (await http.patch(f"{node.rest_url}/config", json={"loop_wait": 9})).status_code == 403
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await http.post(f"{etcd.url}/v3/kv/range", json={"key": "Lw=="})
    async with httpx.AsyncClient(verify=application, trust_env=False, timeout=30) as http:
        refused: object = 403
        with contextlib.suppress(
            httpx.TransportError, ssl.SSLError
        ):  # the other authority's certificate may be refused in the handshake
            refused = (await http.patch(f"{node.rest_url}/config", json={"loop_wait": 9})).status_code
        assert refused == 403
        answer = await http.post(f"{etcd.url}/v3/kv/range", json={"key": "Lw=="})
        assert "user name is empty" in answer.text
        who = {"name": "app", "password": read_secret(folder, "etcd-app")}
        token = (await http.post(f"{etcd.url}/v3/auth/authenticate", json=who)).json()["token"]
        headers = {"Authorization": token}
        put = await http.post(f"{etcd.url}/v3/kv/put", json={"key": "L3NlcnZpY2UveA==", "value": "eA=="}, headers=headers)
        assert "permission denied" in put.text


async def test_roles_may_what_they_need(running_fleet: Stage) -> None:
    book = read_addresses(running_fleet.folder)
    node = book.nodes[0]
    password = read_secret(running_fleet.folder, "pgfleet_app")
    connection = await asyncpg.connect(
        host=node.host, port=node.port, user="pgfleet_app", password=password, database=book.database, ssl="require"
    )
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("create table mine (x int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("select pg_read_file('/etc/passwd')")
    finally:
        await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(host=node.host, port=node.port, user="pgfleet_app", password="no", database=book.database)


def test_nothing_listens_beyond_loopback(running_fleet: Stage) -> None:
    sockets = {name for pid in running_fleet.processes() for name in _sockets(pid)}
    assert sockets
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                assert words[1].partition(":")[0] == "0100007F", line


def _sockets(pid: int) -> set[str]:
    """As /proc names them: ``socket:[inode]``."""
    found = set()
    with contextlib.suppress(OSError):  # it has ended
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed meanwhile
                found.add(str(link.readlink()))
    return {name for name in found if name.startswith("socket:")}


async def test_the_client_reads_near_and_writes_to_the_primary(running_fleet: Stage) -> None:
    async with pgfleet.connect(running_fleet.file, state=str(running_fleet.root), region="west") as fleet:
        replica = "select pg_is_in_recovery()"
        assert await fleet.fetchval("questions", replica, key="AWS")
        async with fleet.write("questions", key="AWS") as connection:
            assert not await connection.fetchval(replica)
            await connection.execute("insert into questions (subject, stem) values ('PMP', 'what?')")
        assert fleet.explain("questions", key="AWS").read == "west-1"
        with pytest.raises(pgfleet.WriteInRead):
            await fleet.fetch("questions", "delete from questions returning 1", key="AWS")
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what is tested
            async with fleet.write("questions", key="GRE") as connection:
                await connection.execute("insert into questions (subject, stem) values ('GRE', 'undone')")
                raise ZeroDivisionError
        with pytest.raises(pgfleet.DeadlineExceeded):
            await fleet.fetch("questions", "select pg_sleep(10)", key="GRE", deadline=0.5)
        with pytest.raises(asyncpg.UndefinedTableError):
            await fleet.execute("questions", "insert into nowhere values (1)", key="GRE")
        with pytest.raises(pgfleet.PlacementError):
            await fleet.fetch("nowhere", "select 1", key="GRE")
        rows = await fleet.everywhere("questions", "select count(*) as n from questions where stem = 'undone'")
        assert [row["n"] for row in rows] == [0, 0]


async def test_a_killed_primary_costs_moments_and_no_row(running_fleet: Stage) -> None:
    keeper = KeeperClient(running_fleet.folder)

    async def crash() -> None:
        primary = (await asyncio.to_thread(running_fleet.shard, "one"))["primary"]
        kill(primary["pid"])
        kill(primary["patroni_pid"])

    gap, _ = await under_writes(running_fleet, crash)
    assert gap < 10
    assert any(event["what"] == "revoked its lease" or "revoked" in event["what"] for event in (await keeper.status()).events)


async def test_patroni_alone_killed_takes_postgresql_with_it(running_fleet: Stage) -> None:
    async def crash() -> None:
        kill((await asyncio.to_thread(running_fleet.shard, "one"))["primary"]["patroni_pid"])

    gap, _ = await under_writes(running_fleet, crash)
    assert gap < 10


async def test_a_killed_keeper_is_followed_and_no_write_waits(running_fleet: Stage) -> None:
    keeper = KeeperClient(running_fleet.folder)
    before = await keeper.status()

    async def crash() -> None:
        kill(before.keeper)

    gap, _ = await under_writes(running_fleet, crash, settle=3)
    after = await keeper.status()
    assert after.keeper == before.twin
    assert {u.name: u.pid for u in after.units} == {u.name: u.pid for u in before.units}
    assert gap < 5


async def test_the_keeper_and_then_patroni(running_fleet: Stage) -> None:
    keeper = KeeperClient(running_fleet.folder)

    async def crash() -> None:
        primary = (await asyncio.to_thread(running_fleet.shard, "one"))["primary"]
        kill((await keeper.status()).keeper)
        kill(primary["patroni_pid"])

    gap, _ = await under_writes(running_fleet, crash)
    assert gap < 10


async def test_a_stopped_primary_is_fenced_and_acknowledges_nothing_more(running_fleet: Stage) -> None:
    import signal

    keeper = KeeperClient(running_fleet.folder)
    stopped: list[int] = []

    async def stop() -> None:
        primary = (await asyncio.to_thread(running_fleet.shard, "one"))["primary"]
        unit = (await keeper.status()).unit(f"node/one/{primary['node']}")
        assert unit is not None
        stopped.extend(unit.pids)
        for pid in unit.pids:
            kill(pid, signal.SIGSTOP)
        await asyncio.sleep(10)
        for pid in stopped:
            kill(pid, signal.SIGCONT)

    gap, _ = await under_writes(running_fleet, stop, settle=20)
    assert gap < 30


async def test_a_new_primary_says_itself_where_the_timelines_before_it_ended(
    running_fleet: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patroni notes it in etcd seconds after the promotion, here never: who reads by an older token does not wait for that."""
    monkeypatch.setattr("pgfleet.facts.topology._ends", lambda value: {})
    async with pgfleet.connect(running_fleet.folder) as fleet:
        row = uuid.uuid4()
        await fleet.execute("questions", "insert into questions values ($1, $2, 'x')", "AWS", row, key="AWS", deadline=30)
        await asyncio.to_thread(running_fleet.run, "switchover", "one")
        found = await fleet.fetch("questions", "select id from questions where id = $1", row, key="AWS", deadline=10)
        assert [one["id"] for one in found] == [row]
        router = fleet._open.router
        primary = router.primary("one")
        assert primary is not None
        async with fleet.write("questions", key="AWS") as connection:
            told = {line[0]: line[1] for line in await connection.fetch("select timeline, ended from pgfleet.timelines()")}
        assert router.lineage("one").ends == told
        assert list(told) == list(range(1, router.lineage("one").timeline))
        monkeypatch.undo()
    for _ in range(100):
        async with pgfleet.connect(running_fleet.folder) as fleet:
            if fleet._open.router.lineage("one").ends == told:  # Patroni's own note, at last
                break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError(told)
    await asyncio.to_thread(running_fleet.whole)


async def test_segments_are_short_for_who_is_promoted(running_fleet: Stage) -> None:
    async with pgfleet.connect(running_fleet.folder) as fleet:
        assert await fleet.fetchval("questions", "select current_setting('wal_segment_size')", key="AWS") == "4MB"


async def test_a_primary_tells_how_far_its_replicas_have_confirmed(running_fleet: Stage) -> None:
    async with pgfleet.connect(running_fleet.folder) as fleet:
        router = fleet._open.router
        await fleet.execute("questions", "insert into questions values ($1, $2, 'x')", "AWS", uuid.uuid4(), key="AWS")
        (position,) = fleet.token().of("one")
        primary = router.primary("one")
        assert primary is not None
        word = None
        for _ in range(150):  # it counts three seconds after the list of replicas changed, or one of them came back
            word = await router.positions.ask(primary)
            if word is not None and word.settled is not None and word.settled > 0:
                break
            await asyncio.sleep(0.2)
        assert word is not None
        assert word.settled is not None
        assert word.settled > 0, "nobody changed the replicas for 30 s"
        assert word.confirmed is not None, "its replicas are those of synchronous_standby_names"
        assert position.last <= word.confirmed <= word.position


async def test_a_switchover_fails_no_call(running_fleet: Stage) -> None:
    before = (await asyncio.to_thread(running_fleet.shard, "one"))["primary"]["node"]

    async def switch() -> None:
        await asyncio.to_thread(running_fleet.run, "switchover", "one")

    gap, _ = await under_writes(running_fleet, switch)
    assert (await asyncio.to_thread(running_fleet.shard, "one"))["primary"]["node"] != before
    assert gap < 20


async def test_a_session_is_made_ready_while_its_node_is_promoted(running_fleet: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    be_ready, readied = Router._be_ready, dict[NodeName, str]()

    async def noted(router: Router, pool: NodePool) -> None:
        assert router.primary("one") is None, "it is not believed to take writes yet"
        await be_ready(router, pool)
        if (connection := pool.take()) is not None:
            assert connection.taken_over
            readied[pool.node.name] = (await connection.own("show default_transaction_read_only"))[0]
            pool.release(connection)

    monkeypatch.setattr(Router, "_be_ready", noted)
    async with pgfleet.connect(running_fleet.folder) as fleet:
        router = fleet._open.router
        for node in router.addresses:
            assert node.shard != "one" or await router.pool(node, "read").warm(1) == 1
        await asyncio.to_thread(running_fleet.run, "switchover", "one")
        await fleet.execute(
            "questions", "insert into questions values ($1, $2, 'x')", "AWS", uuid.uuid4(), key="AWS", deadline=30
        )
        primary = router.primary("one")
        assert primary is not None
        assert readied == {primary.name: "off"}
    await asyncio.to_thread(running_fleet.whole)


def test_a_wrong_name_is_a_clear_error(running_fleet: Stage) -> None:
    assert "shards: one, two" in running_fleet.run("switchover", "three", expect=4)
    assert "PGF-F106" in running_fleet.run("switchover", "one", "--to", "north-9", expect=4)


def test_a_fleet_whose_every_process_was_killed_comes_back(running_fleet: Stage) -> None:
    count = running_fleet.run("sql", "--shard", "one", "-c", "select count(*) from questions")
    running_fleet.kill_everything()
    assert running_fleet.processes() == []
    for socket in (running_fleet.folder / "run").glob("*.sock"):
        socket.unlink()
    assert not running_fleet.status()["healthy"]
    running_fleet.run("apply")
    assert running_fleet.run("sql", "--shard", "one", "-c", "select count(*) from questions") == count


def test_the_journal_tells_and_is_whole(running_fleet: Stage) -> None:
    events = running_fleet.json("log")["events"]
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert any(event["what"] == "create node" and event["outcome"] == "ended" for event in events)
    running_fleet.run("log", "--verify")
