"""Single PostgreSQL servers that stand for the shards of a fleet, with its TLS, roles and address book: enough for what
asks only the nodes, without Patroni and etcd."""

from __future__ import annotations

import datetime
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from pgfleet.control.connect import tls
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.names import NodeName
from pgfleet.runtime.certificates import make_authority, sign

ROLES = ("postgres", "pgfleet_owner", "pgfleet_app", "pgfleet_monitor")
POSTGRES_USER = "postgres" if os.geteuid() == 0 else None

SET_UP = """
create role pgfleet_owner login password 'pgfleet_owner';
create role pgfleet_app login password 'pgfleet_app';
create role pgfleet_monitor login password 'pgfleet_monitor' in role pg_monitor;
create database app owner pgfleet_owner;
\\connect app
alter schema public owner to pgfleet_owner;
alter default privileges for role pgfleet_owner grant select, insert, update, delete on tables to pgfleet_app;
alter default privileges for role pgfleet_owner grant usage on sequences to pgfleet_app;
"""


def binaries() -> Path:
    """The newest PostgreSQL's programs that Debian's layout or PATH has."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parent.parent.name))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        pytest.skip("no PostgreSQL server is installed")
    return Path(on_path).parent


def free_port() -> int:
    """A port below the ephemeral range on which nobody listens, by chance: tests of others look for theirs at the same time."""
    for _ in range(1000):
        port = random.randrange(12000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


@dataclass
class Server:
    """One PostgreSQL server; ``start`` and ``stop`` may alternate."""

    folder: Path
    port: int
    data: Path = field(init=False)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.data = self.folder / "data"

    def run(self, *argv: str, stdin: str | None = None) -> None:
        subprocess.run(
            argv, user=POSTGRES_USER, check=True, input=stdin, text=True, capture_output=True, cwd="/", timeout=60,
            env=os.environ | {"PGPASSWORD": "postgres"},
        )  # fmt: skip

    def make(self, certificates: Path) -> None:
        self.folder.mkdir(parents=True)
        if POSTGRES_USER:
            shutil.chown(self.folder, POSTGRES_USER)
        password = self.folder / "pw"
        password.write_text("postgres")
        password.chmod(0o644)
        self.run(
            str(binaries() / "initdb"), "-D", str(self.data), "-U", "postgres", "--auth=scram-sha-256", "-E", "UTF8",
            "--locale=C", "--no-sync", f"--pwfile={password}",
        )  # fmt: skip
        for name in ("server.crt", "server.key"):
            shutil.copy(certificates / name, self.data / name)
            (self.data / name).chmod(0o600)
            if POSTGRES_USER:
                shutil.chown(self.data / name, POSTGRES_USER)

    def start(self) -> None:
        """Start it; where somebody else took its port meanwhile, on another one."""
        first = self.process is None and not (self.folder / "log").exists()
        for _ in range(5 if first else 1):
            if self._started():
                return
            self.port = free_port()
        raise AssertionError((self.folder / "log").read_text())

    def _started(self) -> bool:
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "ssl": "on",
            "fsync": "off", "shared_buffers": "16MB", "max_connections": "30",
        }  # fmt: skip
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(binaries() / "postgres"), "-D", str(self.data), *options],
                user=POSTGRES_USER, stdout=log, stderr=log, cwd="/", start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + 30
        while subprocess.run(
            [binaries() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode or not (self.data / "postmaster.pid").exists():  # fmt: skip
            if self.process.poll() is not None:
                self.process = None
                return False
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.05)
        time.sleep(0.05)
        return self.process.poll() is None

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(3)  # SIGQUIT: at once, as a crash is
            self.process.wait(timeout=30)
            self.process = None

    def psql(self, text: str, database: str = "postgres") -> None:
        self.run(
            str(binaries() / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port),
            "-U", "postgres", "-d", database, stdin=text,
        )  # fmt: skip


@dataclass
class Shards:
    """Servers by shard, and the state folder that knows them."""

    folder: Path
    servers: dict[str, Server]

    @property
    def book(self) -> AddressBook:
        return AddressBook(
            fleet=self.folder.name, folder=str(self.folder), database="app",
            nodes=tuple(
                NodeAddress(NodeName(shard, "us-east", 1), "voter", "127.0.0.1", server.port, 1)
                for shard, server in self.servers.items()
            ),
        )  # fmt: skip

    async def connect(self, shard: str, role: str = "pgfleet_owner") -> asyncpg.Connection[Any]:
        return await asyncpg.connect(
            host="127.0.0.1",
            port=self.servers[shard].port,
            user=role,
            password=role,
            database="app",
            ssl=tls(self.folder),
        )

    async def fetch(self, shard: str, query: str, *args: object, role: str = "pgfleet_owner") -> list[tuple[Any, ...]]:
        connection = await self.connect(shard, role)
        try:
            return [tuple(row) for row in await connection.fetch(query, *args)]
        finally:
            await connection.close()

    def empty(self) -> None:
        """A new database on every server that runs."""
        for server in self.servers.values():
            server.psql("drop database if exists app with (force); create database app owner pgfleet_owner;")
            server.psql(SET_UP[SET_UP.index("alter schema") :], "app")

    def end(self) -> None:
        for server in self.servers.values():
            server.stop()


@contextmanager
def running(fleet: str, *names: str) -> Iterator[Shards]:
    """:func:`make_shards` in a folder that the servers' user can enter; both are gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="pgfleet-"))
    root.chmod(0o755)
    shards = make_shards(root, fleet, *names)
    try:
        yield shards
    finally:
        shards.end()
        shutil.rmtree(root)


def make_shards(root: Path, fleet: str, *names: str) -> Shards:
    """Servers for the shards ``names``, started; the state of ``fleet`` below ``root``."""
    folder = root / fleet
    certificates = folder / "certificates"
    certificates.mkdir(parents=True)
    now = datetime.datetime.now(datetime.UTC)
    authority = make_authority("pgfleet test", now)
    server = sign(authority, now, unit="server", hosts=["127.0.0.1", "localhost"], server=True)
    (certificates / "ca.crt").write_bytes(authority.certificate)
    (certificates / "server.crt").write_bytes(server.certificate)
    (certificates / "server.key").write_bytes(server.key)
    (folder / "secrets").mkdir()
    for role in ROLES:
        (folder / "secrets" / role).write_text(role)
    shards = Shards(folder, {})
    for name in names:
        shards.servers[name] = made = Server(root / "servers" / name, free_port())
        made.make(certificates)
        made.start()
        made.psql(SET_UP)
    (folder / "addresses.json").write_text(shards.book.to_json())
    return shards
