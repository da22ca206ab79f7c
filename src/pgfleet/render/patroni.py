"""Patroni's configuration of one node, and the dynamic configuration of its shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from pgfleet.render.postgres import hba_rules, postgres_parameters

#: Patroni's floors (config.py, validator.py of 4.1): ttl >= 20, loop_wait >= 1, retry_timeout >= 3, and
#: loop_wait + 2 * retry_timeout <= ttl. Values below are raised with no more than a warning in a log, so we render the floors.
TTL, LOOP_WAIT, RETRY_TIMEOUT = 20, 1, 3

#: A quarter of PostgreSQL's default: who is promoted copies the segment it stands in, and who follows is sent it from its
#: beginning, before the first commit can be confirmed (docs/adr/0011-wal-segments.md). Fixed when a shard is made.
WAL_SEGMENT_MB = 4


@dataclass(frozen=True, slots=True)
class PatroniNode:
    """What one node's file is made of. Paths are absolute; ports are TCP."""

    shard: str
    member: str
    folder: str
    bin_dir: str
    host: str
    port: int
    rest_port: int
    etcd: tuple[str, ...]  # host:port
    voter: bool
    region: str
    allowed: str  # network in pg_hba.conf
    certificate: str
    key: str
    authority: str
    superuser_password: str
    replication_password: str
    rewind_password: str
    etcd_password: str


def dynamic_configuration(settings: Mapping[str, str], *, sync: int, max_connections: int) -> dict[str, object]:
    """The shard's part in etcd (``/service/SHARD/config``); changed by PATCH, never by editing a node's file."""
    configuration: dict[str, object] = {
        "ttl": TTL,
        "loop_wait": LOOP_WAIT,
        "retry_timeout": RETRY_TIMEOUT,
        "maximum_lag_on_failover": 1048576,
        "primary_start_timeout": 0,  # a crashed primary gives its lock away at once instead of recovering in place
        "failsafe_mode": True,  # the loss of etcd alone does not demote
        "synchronous_mode": "quorum" if sync else False,
        "postgresql": {
            "use_pg_rewind": True,
            "use_slots": True,
            "parameters": postgres_parameters(settings, max_connections=max_connections),
        },
    }
    if sync:
        configuration["synchronous_node_count"] = sync
    return configuration


def render_patroni(node: PatroniNode, dynamic: Mapping[str, object]) -> str:
    """``patroni.yml``. Loopback needs no encryption between peers, so WAL is not encrypted there; everyone else may ask."""
    sslmode = "disable" if node.host.startswith("127.") else "verify-ca"

    def login(username: str, password: str) -> dict[str, str]:
        return {"username": username, "password": password, "sslmode": sslmode} | (
            {"sslrootcert": node.authority} if sslmode != "disable" else {}
        )

    document = {
        "scope": node.shard,
        "namespace": "/service/",
        "name": node.member,
        "log": {"level": "INFO", "dir": f"{node.folder}/log", "file_size": 5_000_000, "file_num": 2},
        "restapi": {
            "listen": f"{node.host}:{node.rest_port}",
            "connect_address": f"{node.host}:{node.rest_port}",
            "certfile": node.certificate,
            "keyfile": node.key,
            "cafile": node.authority,
            "verify_client": "optional",  # optional: reading is open, changing needs a certificate of the fleet
        },
        "ctl": {"cacert": node.authority, "certfile": node.certificate, "keyfile": node.key},
        "etcd3": {
            "hosts": list(node.etcd),
            "protocol": "https",
            "cacert": node.authority,
            "cert": node.certificate,
            "key": node.key,
            "username": "patroni",
            "password": node.etcd_password,
        },
        "bootstrap": {
            "dcs": dict(dynamic),
            "initdb": [
                {"encoding": "UTF8"},
                "data-checksums",
                {"locale": "C.UTF-8"},
                {"auth": "scram-sha-256"},
                {"wal-segsize": str(WAL_SEGMENT_MB)},
            ],
        },
        "postgresql": {
            "listen": f"{node.host}:{node.port}",
            "connect_address": f"{node.host}:{node.port}",
            "data_dir": f"{node.folder}/data",
            "bin_dir": node.bin_dir,
            "pgpass": f"{node.folder}/pgpass",
            "use_unix_socket": False,
            "use_unix_socket_repl": False,
            "authentication": {
                "superuser": login("postgres", node.superuser_password),
                "replication": login("replicator", node.replication_password),
                "rewind": login("rewind", node.rewind_password),
            },
            "parameters": {
                "ssl_cert_file": node.certificate,
                "ssl_key_file": node.key,
                "unix_socket_directories": "",
            },
            "pg_hba": hba_rules("replicator", node.allowed),
            "basebackup": [{"checkpoint": "fast"}],
            "remove_data_directory_on_diverged_timelines": False,  # what diverged is evidence; pg_rewind or a person decides
        },
        "tags": _tags(voter=node.voter, region=node.region),
        "watchdog": {"mode": "off"},  # the keeper and the pid namespace fence on this provider
    }
    text: str = yaml.safe_dump(document, sort_keys=False, width=4096)
    return text


def _tags(*, voter: bool, region: str) -> dict[str, object]:
    return {"nofailover": not voter, "nosync": not voter, "noloadbalance": False, "clonefrom": False, "region": region}


def members(hosts: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """etcd's client addresses as Patroni takes them: ``host:port``."""
    return tuple(f"{host}:{port}" for host, port in hosts)
