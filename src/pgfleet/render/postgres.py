"""PostgreSQL's parameters: what pgfleet forces (with the reason beside each), what it proposes, and who may connect."""

from __future__ import annotations

from collections.abc import Mapping

#: The owner's settings cannot change these; `spec` refuses them, and this table wins if something slips through.
FORCED: dict[str, str] = {
    "fsync": "on",  # off: a crash of the machine corrupts the data directory
    "full_page_writes": "on",  # off: a torn page after a crash cannot be repaired
    "synchronous_commit": "on",  # below: an acknowledged commit may exist on no disk but the primary's memory
    "zero_damaged_pages": "off",  # on: damage is answered with deletion
    "ignore_checksum_failure": "off",  # on: damage is answered with wrong rows
    "data_sync_retry": "off",  # on: a write to disk that failed once counts as done when it is asked for again
    "wal_level": "logical",  # moves between shards use logical replication; changing it later needs restarts
    "hot_standby": "on",  # replicas answer reads
    "wal_log_hints": "on",  # pg_rewind; data checksums imply it, said aloud all the same
    "password_encryption": "scram-sha-256",
    "ssl": "on",
    "unix_socket_directories": "",  # TCP only: a path would have to stay below 108 bytes, and nothing needs it
    "dynamic_shared_memory_type": "posix",  # in the node's own /dev/shm, so it dies with the node
}

#: Where the owner says nothing. Small: many nodes share a host on provider local.
PROPOSED: dict[str, str] = {
    "shared_buffers": "64MB",
    "max_wal_senders": "16",
    "max_replication_slots": "16",
    "max_worker_processes": "8",
    "wal_keep_size": "128MB",
    "min_wal_size": "80MB",
    "max_wal_size": "512MB",
    "checkpoint_timeout": "15min",
    # Replicas notice a dead primary, and follow the new one, quickly: the first commit after a failover waits for one.
    "wal_receiver_status_interval": "1s",
    "wal_receiver_timeout": "5s",
    "wal_sender_timeout": "5s",
    "wal_retrieve_retry_interval": "200ms",
    # A peer that vanished without a word is dropped in about 8 s.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "60s",
    "track_commit_timestamp": "on",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_min_error_statement": "panic",  # statements may carry people's data; errors are logged without them
    "hot_standby_feedback": "on",  # reads on replicas are not cancelled by the primary's vacuum
}


def postgres_parameters(settings: Mapping[str, str], *, max_connections: int) -> dict[str, str]:
    """The parameters of one shard, for Patroni's dynamic configuration: the same on each of its nodes.

    PostgreSQL folds case in parameters' names and takes the last of two, so every name here is in lower case and there once.

    :param settings: the owner's, as text.
    :param max_connections: of one node.
    """
    owners = {name.strip().lower(): value for name, value in settings.items()}
    merged = PROPOSED | owners | {"max_connections": str(max_connections)} | FORCED
    return dict(sorted(merged.items()))


def hba_rules(replicator: str, hosts: str) -> list[str]:
    """Lines of pg_hba.conf: passwords by SCRAM, TLS offered, nobody else.

    :param hosts: the network in which the fleet's engines and applications are, such as ``127.0.0.1/32``.
    """
    return [
        f"host replication {replicator} {hosts} scram-sha-256",
        f"host all all {hosts} scram-sha-256",
        "host all all all reject",
    ]
