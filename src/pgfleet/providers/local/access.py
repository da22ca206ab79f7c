"""How pgfleet itself reaches the engines of a fleet: TLS contexts, etcd as a user, PostgreSQL as a role."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from pgfleet.engines.patroni import PatroniRest
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.runtime.sql import Connection, Login, connect
from pgfleet.runtime.state import read_secret
from pgfleet.topology.etcd import EtcdClient


def operator_tls(folder: Path) -> ssl.SSLContext:
    """Verifies the fleet's servers, and opens what is for its operator only."""
    certificates = folder / "certificates"
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    context.load_cert_chain(certificates / "operator.crt", certificates / "operator.key")
    return context


def etcd_as(folder: Path, book: AddressBook, user: str | None, *, timeout: float = 2.0) -> EtcdClient:
    """A client of the fleet's etcd; ``user`` None before authentication is on."""
    password = read_secret(folder, f"etcd-{user}") if user is not None else None
    urls = [member.url for member in book.etcd]
    return EtcdClient(urls, tls=operator_tls(folder), user=user, password=password, timeout=timeout)


def rest_of(folder: Path, node: NodeAddress) -> PatroniRest:
    """Patroni beside ``node``, with the operator's certificate."""
    return PatroniRest(node.rest_url, operator_tls(folder))


async def connect_as(
    folder: Path, node: NodeAddress, role: str, database: str, *, timeout: float = 5.0
) -> asyncpg.Connection[asyncpg.Record]:
    """A session of ``role`` on ``node``: TLS verified by the fleet's authority, every statement within ``timeout`` seconds."""
    verify = ssl.create_default_context(cafile=str(folder / "certificates" / "ca.crt"))
    return await asyncpg.connect(
        host=node.host, port=node.port, user=role, password=read_secret(folder, role), database=database, ssl=verify,
        timeout=timeout, command_timeout=timeout, server_settings={"application_name": "pgfleet"},
    )  # fmt: skip


@asynccontextmanager
async def owner_of(folder: Path, book: AddressBook, node: NodeAddress, *, seconds: float) -> AsyncIterator[Connection]:
    """A session of the schema's owner on ``node`` that is cut off, not cancelled, when its time is over.

    :param seconds: for connecting, and for each statement.
    """
    verify = ssl.create_default_context(cafile=str(folder / "certificates" / "ca.crt"))
    login = Login("pgfleet_owner", book.database, read_secret(folder, "pgfleet_owner"), verify)
    settings = {
        "application_name": "pgfleet", "client_connection_check_interval": "2s", "statement_timeout": f"{seconds:.3f}s",
    }  # fmt: skip
    connection = await connect(node.host, node.port, login, settings=settings, seconds=seconds)
    try:
        yield connection
    finally:
        connection.terminate()
