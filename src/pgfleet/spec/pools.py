"""Pools: how many connections there are, from the clients to the poolers and from there to PostgreSQL."""

from __future__ import annotations

from pgfleet.spec.part import Part
from pgfleet.spec.scalars import Count, Duration

#: Of a node's max_connections, kept for people, Patroni, monitoring and migrations.
RESERVED = 15
#: Connections that one process of an application opens to one node beside those for statements, at most: who is primary, how far
#: a node has come, and whether it lives are asked by a connection each (client/router.py).
PROBES = 3


class Pools(Part):
    """Sizes of pools; the same for every region."""

    max_client_conn: Count = 1000
    """Clients that one region's pooler holds; more are refused."""
    default_pool_size: Count = 20
    """Server connections of one region's pooler to one shard, for writes and for reads each; more clients queue."""
    query_wait_timeout: Duration = 30.0
    """How long a client queues for a server connection before it is told so."""
    max_connections: Count = 100
    """PostgreSQL's, of one node."""
    processes: Count | None = None
    """Processes of the application in all; `check` multiplies."""
    per_process: Count = 10
    """Connections for statements that one process of the application opens, at most: to one node (its own questions to that node
    take up to 3 more, which `check` counts), or with `through: pooler` to its region's pooler for one shard."""
