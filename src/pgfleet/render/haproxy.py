"""HAProxy of one region: per shard a port that leads to the primary and one that leads to replicas, near ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: One check over TLS costs Patroni about 1.5 ms of CPU. All of a fleet's together shall stay near a tenth of a core; most
#: of it goes to finding the primary, because writes wait for that, and replicas are many.
CHECK_CPU_SECONDS = 0.0015
PRIMARY_SHARE, REPLICA_SHARE = 0.07, 0.03


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    region: str
    host: str
    port: int
    rest_port: int
    voter: bool


@dataclass(frozen=True, slots=True)
class Frontend:
    """One shard as this region sees it."""

    shard: str
    read_write: int
    read_only: int
    servers: tuple[Server, ...]


def check_interval(checks: int, share: float) -> int:
    """Milliseconds between two checks of a server, so that ``checks`` of them take ``share`` of a core; 500 to 5000."""
    return max(500, min(5000, round(checks * CHECK_CPU_SECONDS / share * 1000 / 100) * 100))


def _defaults(interval: int, authority: str) -> str:
    # observe: the first connection that is refused takes a server out at once, without waiting for its next check.
    # fall 2: one slow answer must not cut every session; fastinter makes the second look 200 ms after the first.
    return (
        f"    default-server inter {interval}ms fastinter 200ms downinter {interval}ms fall 2 rise 1 "
        "observe layer4 error-limit 1 on-error mark-down on-marked-down shutdown-sessions "
        f"check-ssl verify required ca-file {authority}"
    )


def render_haproxy(region: str, host: str, frontends: Sequence[Frontend], *, authority: str, maxconn: int, regions: int) -> str:
    """``haproxy.cfg``. Patroni's REST decides: a server is up where ``/primary`` or ``/replica`` answers 200."""
    voters_checked = regions * sum(1 for f in frontends for server in f.servers if server.voter)
    all_checked = regions * sum(len(f.servers) for f in frontends)
    writes = _defaults(check_interval(voters_checked, PRIMARY_SHARE), authority)
    reads = _defaults(check_interval(all_checked, REPLICA_SHARE), authority)
    lines = [
        "global",
        f"    maxconn {maxconn}",
        "    nbthread 1",
        "    log stderr format raw daemon notice",
        "defaults",
        "    mode tcp",
        "    log global",
        "    option dontlognull",
        "    retries 0",  # with the default, a redispatch waits a second before each attempt
        "    option redispatch",
        "    timeout connect 2s",
        "    timeout client 30m",
        "    timeout server 30m",
        "    timeout check 2s",
    ]
    for frontend in frontends:
        # Nobody else can become primary: a reader is never asked.
        voters = [s for s in frontend.servers if s.voter]
        lines += [
            f"listen {frontend.shard}_rw",
            f"    bind {host}:{frontend.read_write}",
            "    option httpchk OPTIONS /primary",
            "    http-check expect status 200",
            writes,
            *(f"    server {s.name} {s.host}:{s.port} check port {s.rest_port}" for s in voters),
            f"frontend {frontend.shard}_ro",
            f"    bind {host}:{frontend.read_only}",
            # With no replica left the primary answers reads.
            f"    use_backend {frontend.shard}_rw_as_ro if {{ nbsrv({frontend.shard}_replicas) eq 0 }}",
            f"    default_backend {frontend.shard}_replicas",
            f"backend {frontend.shard}_rw_as_ro",
            *(f"    server {s.name} {s.host}:{s.port} track {frontend.shard}_rw/{s.name}" for s in voters),
            f"backend {frontend.shard}_replicas",
            "    balance leastconn",
            "    option allbackups",
            "    option httpchk OPTIONS /replica?lag=16MB",
            "    http-check expect status 200",
            reads,
            *(
                f"    server {s.name} {s.host}:{s.port} check port {s.rest_port}" + ("" if s.region == region else " backup")
                for s in frontend.servers
            ),
        ]
    return "\n".join(lines) + "\n"
