"""A node's own word on replication, in one query."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from pgfleet.control.connect import tls
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.facts.replication import NodeWord
from pgfleet.runtime.state import read_secret

_WORD = """
select r as recovering,
       pg_wal_lsn_diff(case when r then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, '0/0')::bigint
         as position,
       case when r then pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::bigint end as received,
       case when r then extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8 end
         as replay_age,
       case when r then (select received_tli from pg_stat_wal_receiver)
            else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end as timeline
  from pg_is_in_recovery() as r
"""


async def ask_node(folder: Path, book: AddressBook, node: NodeAddress, *, within: float) -> NodeWord:
    """What ``node`` says of itself; its silence, or its refusal, is a word too.

    :param within: seconds for connecting and answering.
    """
    connection = None
    try:
        async with asyncio.timeout(within):
            connection = await asyncpg.connect(
                host=node.host, port=node.port, user="pgfleet_monitor", password=read_secret(folder, "pgfleet_monitor"),
                database=book.database, ssl=tls(folder), timeout=within,
            )  # fmt: skip
            row = await connection.fetchrow(_WORD)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return NodeWord(error=str(error) or type(error).__name__)
    finally:
        if connection is not None:
            connection.terminate()
    assert row is not None  # noqa: S101 - one row always
    return NodeWord(row["recovering"], row["position"], row["received"], row["replay_age"], row["timeline"])
