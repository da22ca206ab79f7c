"""HAProxy of one region: per shard a port that leads to the primary and one that leads to replicas, near ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: One check over TLS costs Patroni about 1.5 ms of CPU; all checks together shall stay near 5 % of a core.
CHECK_CPU_SECONDS = 0.0015
CHECK_CPU_SHARE = 0.05


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


def check_interval(checks: int) -> int:
    """Milliseconds between two checks of a server, so that ``checks`` of them stay cheap; 500 at best, 5000 at worst."""
    return max(500, min(5000, round(checks * CHECK_CPU_SECONDS / CHECK_CPU_SHARE * 1000 / 100) * 100))


def render_haproxy(
    region: str, host: str, frontends: Sequence[Frontend], *, authority: str, maxconn: int, regions: int
) -> str:
    """``haproxy.cfg``. Patroni's REST decides: a server is up where ``/primary`` or ``/replica`` answers 200."""
    checks = sum(2 * len(f.servers) for f in frontends) * regions
    interval = check_interval(checks)
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
    common = (
        f"    default-server inter {interval}ms fastinter 200ms downinter {interval}ms fall 2 rise 1 "
        f"on-marked-down shutdown-sessions check-ssl verify required ca-file {authority}"
    )
    for frontend in frontends:
        # Nobody else can become primary: a reader is never asked.
        voters = [s for s in frontend.servers if s.voter]
        lines += [
            f"listen {frontend.shard}_rw",
            f"    bind {host}:{frontend.read_write}",
            "    option httpchk OPTIONS /primary",
            "    http-check expect status 200",
            common,
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
            common,
            *(
                f"    server {s.name} {s.host}:{s.port} check port {s.rest_port}"
                + ("" if s.region == region else " backup")
                for s in frontend.servers
            ),
        ]
    return "\n".join(lines) + "\n"
