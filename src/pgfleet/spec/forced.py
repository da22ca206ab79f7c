"""PostgreSQL parameters that the owner may not set, each with its reason.

Some lose data, some take the ground from under an engine that pgfleet runs, some are said elsewhere in the file.
"""

from __future__ import annotations

#: Parameter -> the rest of the sentence "… because". ``render`` has the values.
FORBIDDEN: dict[str, str] = {
    # Acknowledged data would be lost.
    "fsync": "off corrupts the data directory when the machine crashes",
    "full_page_writes": "off leaves torn pages after a crash that nothing can repair",
    "synchronous_commit": "below on, an acknowledged commit may exist in the primary's memory alone",
    "zero_damaged_pages": "on answers damage with deletion",
    "ignore_checksum_failure": "on answers damage with wrong rows",
    "data_sync_retry": "on goes on after a failed write to disk as if it had succeeded",
    "wal_sync_method": "some methods do not reach the disk on some systems",
    "allow_in_place_tablespaces": "it is for PostgreSQL's own tests",
    # Replication and elections are Patroni's and pgfleet's.
    "wal_level": "moves between shards need logical, and replicas need at least replica",
    "wal_log_hints": "pg_rewind needs it on",
    "hot_standby": "replicas answer reads",
    "synchronous_standby_names": "Patroni keeps it; `sync` says how many replicas must have a commit",
    "primary_conninfo": "Patroni keeps it",
    "primary_slot_name": "Patroni keeps it",
    "promote_trigger_file": "a promotion beside Patroni makes two primaries",
    "recovery_min_apply_delay": "a replica that is late on purpose is no replica that can be elected",
    "restart_after_crash": "Patroni decides what becomes of a crashed primary",
    "cluster_name": "Patroni keeps it; replicas are told apart by it",
    "track_commit_timestamp": "moves and audits rely on it",
    # Places and doors.
    "listen_addresses": "the provider knows the address of each node",
    "port": "the provider knows the port of each node",
    "data_directory": "the provider knows the folder of each node",
    "config_file": "the provider knows the folder of each node",
    "hba_file": "the provider says who may connect",
    "ident_file": "the provider says who may connect",
    "external_pid_file": "the provider finds the processes",
    "unix_socket_directories": "nothing here uses sockets, and their paths may be too long",
    "unix_socket_permissions": "nothing here uses sockets",
    "dynamic_shared_memory_type": "a node's shared memory must end with the node",
    "shared_memory_type": "a node's shared memory must end with the node",
    "password_encryption": "passwords are SCRAM-SHA-256",
    "db_user_namespace": "roles are the same everywhere",
    "allow_system_table_mods": "it lets a statement break the catalogue",
    "local_preload_libraries": "it loads code into every session of any role",
    # Said elsewhere in the file.
    "max_connections": "`pools: {max_connections: …}` says it, and `check` counts with it",
    "superuser_reserved_connections": "`check` counts with its default",
}

#: The same for all parameters that begin so.
FORBIDDEN_PREFIXES: dict[str, str] = {
    "ssl": "certificates are the fleet's own",
    "archive_": "archives come with backups, which are declared and not set",
    "restore_": "restoring is a command, not a setting",
    "recovery_target": "restoring is a command, not a setting",
    "krb_": "roles use SCRAM",
    "gss_": "roles use SCRAM",
}


def why_forbidden(parameter: str) -> str | None:
    """The reason why ``parameter`` may not be set; None where it may. PostgreSQL folds case in parameters' names."""
    folded = parameter.lower()
    if folded in FORBIDDEN:
        return FORBIDDEN[folded]
    return next((why for prefix, why in FORBIDDEN_PREFIXES.items() if folded.startswith(prefix)), None)
