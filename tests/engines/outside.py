"""PostgreSQL that pgfleet did not start: a primary and its streaming replica, made by hand, as somebody else would run them."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from tests.engines.scratch import POSTGRES_USER, Server, binaries, free_port

from pgfleet.runtime.certificates import make_authority, sign

#: Neither is a superuser, nor a member of pg_monitor. The owner owns the database and nothing else.
OWNER, STRANGER = "alice", "mallory"
PASSWORD = "s3cret"


@dataclass
class Outside:
    """:param root: everything of it is below, and gone afterwards."""

    root: Path
    primary: Server
    replica: Server
    authority: Path
    databases: int = 0
    servers: list[Server] = field(default_factory=list)

    def database(self) -> str:
        """A new one of :data:`OWNER`'s, on both."""
        self.databases += 1
        name = f"shop{self.databases}"
        self.primary.psql(f"create database {name} owner {OWNER}; revoke connect on database {name} from public;")
        self.primary.psql(f"grant connect on database {name} to {STRANGER}")
        self.caught_up()
        return name

    def caught_up(self) -> None:
        """Wait until the replica has replayed what the primary has written."""
        lsn = value(self.primary, "select pg_current_wal_lsn()")
        until = time.monotonic() + 30
        while value(self.replica, f"select coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)") != "t":
            assert time.monotonic() < until
            time.sleep(0.02)

    def copy(self, of: Server, name: str) -> Server:
        """A streaming replica more."""
        server = Server(self.root / name, free_port())
        server.folder.mkdir()
        if POSTGRES_USER:
            shutil.chown(server.folder, POSTGRES_USER)
        server.run(
            str(binaries() / "pg_basebackup"), "-D", str(server.data), "-R", "-X", "stream", "-c", "fast",
            "-d", f"host=127.0.0.1 port={of.port} user=postgres password=postgres",
        )  # fmt: skip
        server.start()
        self.servers.append(server)
        return server

    def stranger(self, name: str) -> Server:
        """A server of another system identifier, with the same users."""
        server = Server(self.root / name, free_port())
        server.make(self.root / "certificates")
        server.start()
        server.psql(USERS)
        self.servers.append(server)
        return server

    def end(self) -> None:
        for server in self.servers:
            server.stop()


USERS = f"create role {OWNER} login password '{PASSWORD}'; create role {STRANGER} login password '{PASSWORD}';"


def dsn(server: Server, database: str, *, user: str = OWNER, password: str = PASSWORD, more: str = "") -> str:
    return f"postgresql://{user}:{password}@127.0.0.1:{server.port}/{database}{more}"


def value(server: Server, query: str, database: str = "postgres") -> str:
    """The first value of ``query``, asked by the superuser."""
    told = subprocess.run(
        [
            binaries() / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres",
            "-d", database, "-c", query,
        ],
        capture_output=True, text=True, check=True, timeout=60, env=os.environ | {"PGPASSWORD": "postgres"},
    )  # fmt: skip
    return told.stdout.strip()


def promote(server: Server) -> None:
    """By hand, as whoever runs it would; returns when it takes writes."""
    server.run(str(binaries() / "pg_ctl"), "promote", "-D", str(server.data), "-w")


async def connect(server: Server, database: str) -> asyncpg.Connection[Any]:
    return await asyncpg.connect(dsn(server, database), ssl=False)


@contextmanager
def outside() -> Iterator[Outside]:
    """A pair that streams; gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="pgfleet-"))
    root.chmod(0o755)
    certificates = root / "certificates"
    certificates.mkdir()
    now = datetime.datetime.now(datetime.UTC)
    authority = make_authority("somebody else", now)
    server = sign(authority, now, unit="server", hosts=["127.0.0.1"], server=True)
    (certificates / "ca.crt").write_bytes(authority.certificate)
    (certificates / "server.crt").write_bytes(server.certificate)
    (certificates / "server.key").write_bytes(server.key)
    primary = Server(root / "one", free_port())
    made = Outside(root, primary, primary, certificates / "ca.crt", servers=[primary])
    try:
        primary.make(certificates)
        primary.start()
        primary.psql(USERS)
        made.replica = made.copy(primary, "two")
        yield made
    finally:
        made.end()
        shutil.rmtree(root)
