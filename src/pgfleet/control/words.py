"""A node's own word on replication, in one query."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from pgfleet.errors import CannotConnect, SecretUnreadable
from pgfleet.facts.addresses import AddressBook, NodeAddress
from pgfleet.facts.replication import NodeWord
from pgfleet.runtime.login import login_of
from pgfleet.runtime.sql import connect

#: Who asks, of nodes that have the fleet's roles.
_ROLE = "pgfleet_monitor"
_SETTINGS = {"application_name": "pgfleet status", "default_transaction_read_only": "on"}

# Without pg_monitor a node does not tell whom it receives WAL from and on which timeline, only that it does: then the timeline
# is the control file's. CASE is not evaluated early here: the functions are volatile.
_WORD = """
select r as recovering,
       pg_wal_lsn_diff(case when r then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, '0/0')::bigint
         as position,
       case when r then pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')::bigint end as received,
       case when r then extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8 end
         as replay_age,
       case when r then coalesce((select received_tli from pg_stat_wal_receiver),
                                 (select timeline_id from pg_control_checkpoint()))
            else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end as timeline,
       r and exists (select from pg_stat_wal_receiver) as receiving
  from pg_is_in_recovery() as r
"""


async def ask_node(folder: Path, book: AddressBook, node: NodeAddress, *, within: float) -> NodeWord:
    """What ``node`` says of itself; its silence, or its refusal, is a word too.

    :param within: seconds for connecting and answering.
    """
    connection = None
    try:
        async with asyncio.timeout(within):
            login = login_of(folder, book, node, _ROLE)
            connection = await connect(node.host, node.port, login, settings=_SETTINGS, seconds=within)
            row = await connection.fetchrow(_WORD)
    except (CannotConnect, SecretUnreadable) as error:
        return NodeWord(error=error.message)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return NodeWord(error=str(error) or type(error).__name__)
    finally:
        if connection is not None:
            connection.terminate()
    assert row is not None  # noqa: S101 - one row always
    return NodeWord(row["recovering"], row["position"], row["received"], row["replay_age"], row["timeline"], row["receiving"])
