"""PgBouncer of one region: a read-write and a read-only database per shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pgfleet.facts.addresses import READS_BEGIN, read_only_database, read_write_database

#: Since when PgBouncer knows its clients' prepared statements, and how many it keeps prepared on one server connection.
PREPARED_SINCE, PREPARED = (1, 21), 200


def prepared_statements(version: tuple[int, int]) -> int:
    """How many prepared statements a PgBouncer of ``version`` is told to keep; 0: it knows none."""
    return PREPARED if version >= PREPARED_SINCE else 0


@dataclass(frozen=True, slots=True)
class Pooler:
    host: str
    port: int
    database: str
    read_write: Mapping[str, int]  # HAProxy's port per shard
    read_only: Mapping[str, int]
    max_client_conn: int
    default_pool_size: int
    query_wait_timeout: float  # seconds a client may queue for a server connection
    certificate: str
    key: str
    userlist: str
    stats_user: str
    prepared: int = 0  # see prepared_statements


def render_pgbouncer(pooler: Pooler) -> str:
    """``pgbouncer.ini``; transaction pooling, SCRAM passed through, TLS offered."""
    lines = ["[databases]"]
    for shard in pooler.read_write:
        for name, port, also in (
            (read_write_database(shard), pooler.read_write[shard], ""),
            (read_only_database(shard), pooler.read_only[shard], f" connect_query='{READS_BEGIN}'"),
        ):
            lines.append(f"{name} = host={pooler.host} port={port} dbname={pooler.database}{also}")
    settings: dict[str, object] = {
        "listen_addr": pooler.host,
        "listen_port": pooler.port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": pooler.userlist,
        "stats_users": pooler.stats_user,
        "pool_mode": "transaction",
        "max_client_conn": pooler.max_client_conn,
        "default_pool_size": pooler.default_pool_size,
        # A pool is one role's; roles together stay within what `check` counts.
        "max_db_connections": pooler.default_pool_size,
        "query_wait_timeout": f"{pooler.query_wait_timeout:g}",
        "client_tls_sslmode": "prefer",
        "client_tls_cert_file": pooler.certificate,
        "client_tls_key_file": pooler.key,
        # A failover is over in well under a second: look again at once, and never hand out a server of before it.
        "server_login_retry": "0.1",
        "server_connect_timeout": "2",
        "server_check_delay": "0",
        "server_fast_close": "1",
        "ignore_startup_parameters": "extra_float_digits,search_path,jit,options",
        "listen_backlog": "1024",
        **({"max_prepared_statements": pooler.prepared} if pooler.prepared else {}),
        "log_connections": "0",
        "log_disconnections": "0",
        "log_stats": "0",
    }
    lines += ["", "[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())]
    return "\n".join(lines) + "\n"


def render_userlist(verifiers: Mapping[str, str]) -> str:
    """``userlist.txt``: role and SCRAM verifier; the password itself is not in it."""
    return "".join(f'"{role}" "{verifier}"\n' for role, verifier in sorted(verifiers.items()))
