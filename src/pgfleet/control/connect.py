"""A connection of an operator to one node of a shard: to its primary, or to a replica, as one of the fleet's roles.

Who the primary is, the nodes themselves are asked, all at once: the first that says it is not in recovery is it. No
etcd is needed, so a schema can be changed and psql be opened while etcd is down.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import asyncpg

from pgfleet.errors import CannotConnect, NoSuchNode, NotApplied
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.runtime.http import fleet_context
from pgfleet.runtime.login import login_of
from pgfleet.runtime.sql import Connection, Login
from pgfleet.runtime.sql import connect as open_connection

Wanted = Literal["primary", "replica"]

#: Seconds for one node's TCP, TLS, authentication and first answer. A stopped node accepts TCP and says nothing.
LOOK_SECONDS = 3.0


def tls(folder: Path) -> ssl.SSLContext | None:
    """Verifies a node of the fleet in ``folder`` by the fleet's own authority, and by its address."""
    return fleet_context(folder)


@dataclass(slots=True)
class Connected:
    """An open connection, and whose it is."""

    node: NodeAddress
    connection: Connection


async def connect(
    book: AddressBook, shard: str, role: str, *, wanted: Wanted = "primary", settings: Mapping[str, str] | None = None
) -> Connected:
    """Connect to ``shard`` as ``role``, or as whom its nodes' DSNs name: to the node that is what is ``wanted``.

    :param settings: the session's parameters, sent with the start-up packet (``RESET`` returns to them).
    :raises NotApplied: the address book does not know the shard.
    :raises NoSuchNode: no node is what is wanted, or none answered in :data:`LOOK_SECONDS`; with what each said.
    :raises SecretUnreadable: the role's password is not ours to read.
    """
    nodes = book.of_shard(shard)
    if not nodes:
        raise NotApplied(f"shard {shard!r} was never applied", hint="pgfleet apply")
    folder = Path(book.folder)
    logins = [login_of(folder, book, node, role) for node in nodes]
    tasks = [asyncio.create_task(_look(node, login, settings or {})) for node, login in zip(nodes, logins, strict=True)]
    try:
        return await _first(shard, nodes, tasks, wanted)
    finally:
        for task in tasks:
            task.cancel()
        for left in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(left, _Looked) and left.connection is not None:
                left.connection.terminate()


@dataclass(slots=True)
class _Looked:
    node: NodeAddress
    said: str
    connection: Connection | None = None


async def _first(shard: str, nodes: Sequence[NodeAddress], tasks: Sequence[asyncio.Task[_Looked]], wanted: Wanted) -> Connected:
    said: dict[str, str] = {}
    for answer in asyncio.as_completed(tasks):
        looked = await answer
        if looked.said == wanted and looked.connection is not None:
            connection, looked.connection = looked.connection, None
            return Connected(looked.node, connection)
        said[str(looked.node.name)] = looked.said
    raise NoSuchNode(
        f"no node of {shard} is {'its primary' if wanted == 'primary' else 'a replica'} and answers",
        seen=[f"{node.name}: {said[str(node.name)]}" for node in nodes],
        hint="pgfleet status",
    )


async def _look(node: NodeAddress, login: Login, settings: Mapping[str, str]) -> _Looked:
    connection: Connection | None = None
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            connection = await open_connection(node.host, node.port, login, settings=settings, seconds=LOOK_SECONDS)
            replica = await connection.fetchval("select pg_is_in_recovery()")
        looked = _Looked(node, "replica" if replica else "primary", connection)
        connection = None
        return looked
    except TimeoutError:
        return _Looked(node, f"no answer in {LOOK_SECONDS:g} s")
    except CannotConnect as error:
        return _Looked(node, error.message)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return _Looked(node, str(error) or type(error).__name__)
    finally:
        if connection is not None:
            connection.terminate()
