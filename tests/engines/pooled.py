"""A PgBouncer before the servers of replicated.py, configured as apply does it; without HAProxy: it leads straight to one primary
and one replica."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.engines.replicated import TABLE, Replicated, replicated
from tests.engines.scratch import POSTGRES_USER, ROLES, free_port

from pgfleet.client.fleet import Fleet
from pgfleet.engines.pgbouncer import version_of
from pgfleet.engines.programs import find_program
from pgfleet.errors import EnginesMissing
from pgfleet.facts.addresses import AddressBook, PoolerAddress
from pgfleet.render.pgbouncer import Pooler, prepared_statements, render_pgbouncer, render_userlist
from pgfleet.runtime.state import read_addresses

REGION = "us-west"
#: Whose PgBouncer is tested: the installed one, or that of PGFLEET_TEST_PGBOUNCER.
PROGRAM = "PGFLEET_TEST_PGBOUNCER"


@dataclass
class PgBouncer:
    """``start`` and ``stop`` may alternate. :param address: as the address book has it."""

    folder: Path
    program: str
    address: PoolerAddress
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, str(self.folder / "pgbouncer.ini")], user=POSTGRES_USER, stdout=log, stderr=log, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.address.port)) == 0:
                    return
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=20)
            self.process = None


@dataclass
class Pooled:
    """:param servers: connections of the pooler to one server at most."""

    fleet: Replicated
    pooler: PgBouncer
    servers: int

    def client(self, **options: Any) -> Fleet:
        return self.fleet.client(region=REGION, **options)

    async def bare(self, database: str, role: str = "pgfleet_app") -> asyncpg.Connection[Any]:
        """Anybody's connection to the pooler."""
        return await asyncpg.connect(
            host="127.0.0.1", port=self.pooler.address.port, user=role, password=role, database=database, ssl=False,
            statement_cache_size=0,
        )  # fmt: skip


def find_pgbouncer() -> str:
    try:
        return os.environ.get(PROGRAM) or find_program("pgbouncer")
    except EnginesMissing:
        pytest.skip("no PgBouncer is installed")


@contextmanager
def pooled(
    names: tuple[str, ...] = ("one",), *, servers: int = 3, waits: float = 10.0, per_process: int = 10, table: str = TABLE
) -> Iterator[Pooled]:
    """Shards with a replica in ``us-west``, where the pooler is; all gone afterwards.

    :param waits: seconds for which the pooler lets a client wait for a server connection.
    """
    program = find_pgbouncer()
    with replicated(names, regions=("us-east", REGION), table=table) as fleet:
        prepared = prepared_statements(version_of(program))
        ports = {name: (shard.servers["us-east"].port, shard.servers[REGION].port) for name, shard in fleet.shards.items()}
        address = PoolerAddress(
            REGION, "127.0.0.1", free_port(), {name: at[0] for name, at in ports.items()}, {n: at[1] for n, at in ports.items()},
            prepared,
        )  # fmt: skip
        pooler = PgBouncer(make_folder(fleet), program, address)
        write_configuration(pooler, fleet, servers, waits)
        book = read_addresses(fleet.folder)
        write_book(fleet, replace(book, poolers=(address,), through="pooler", per_process=per_process))
        pooler.start()
        try:
            yield Pooled(fleet, pooler, servers)
        finally:
            pooler.stop()


def write_book(fleet: Replicated, book: AddressBook) -> None:
    (fleet.folder / "addresses.json").write_text(book.to_json())


def make_folder(fleet: Replicated) -> Path:
    folder = fleet.folder.parent / "pooler"
    folder.mkdir()
    for name in ("server.crt", "server.key"):
        shutil.copy(fleet.folder / "certificates" / name, folder / name)
        (folder / name).chmod(0o600)
    if POSTGRES_USER:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, POSTGRES_USER)
    return folder


def write_configuration(pooler: PgBouncer, fleet: Replicated, servers: int, waits: float) -> None:
    folder, address = pooler.folder, pooler.address
    text = render_pgbouncer(
        Pooler(
            host=address.host, port=address.port, database="app", read_write=address.read_write, read_only=address.read_only,
            max_client_conn=1000, default_pool_size=servers, query_wait_timeout=waits, certificate=str(folder / "server.crt"),
            key=str(folder / "server.key"), userlist=str(folder / "userlist.txt"), stats_user="pgfleet_monitor",
            prepared=address.prepared,
        )
    )  # fmt: skip
    (folder / "pgbouncer.ini").write_text(text)
    (folder / "userlist.txt").write_text(render_userlist(_shared_verifiers(fleet)))


def _shared_verifiers(fleet: Replicated) -> dict[str, str]:
    """The first shard's, and all others have the same from now on: who lets the pooler in by one lets it in everywhere."""
    found = _verifiers(fleet)
    for shard in list(fleet.shards.values())[1:]:
        shard.psql("; ".join(f"alter role {role} password '{verifier}'" for role, verifier in found.items()))
    return found


def _verifiers(fleet: Replicated) -> dict[str, str]:
    shard = next(iter(fleet.shards.values()))
    server = shard.servers[shard.primary]
    found = {}
    for role in ROLES[2:]:
        done = subprocess.run(
            ["psql", "-XAtq", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "-c",
             f"select rolpassword from pg_authid where rolname = '{role}'"],
            env=os.environ | {"PGPASSWORD": "postgres"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found[role] = done.stdout.strip()
    return found
