"""etcd's command line: three members, TLS in both directions, users switched on later by its own API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EtcdMember:
    name: str
    host: str
    client_port: int
    peer_port: int

    @property
    def peer_url(self) -> str:
        return f"https://{self.host}:{self.peer_port}"


def render_etcd(
    member: EtcdMember, members: Sequence[EtcdMember], *, binary: str, token: str, folder: str, certificate: str,
    key: str, authority: str, client_authorities: str,
) -> tuple[str, ...]:  # fmt: skip
    """The argument vector of one member.

    :param client_authorities: a bundle: the fleet's authority and the application's.
    """
    client = f"https://{member.host}:{member.client_port}"
    cluster = ",".join(f"{m.name}={m.peer_url}" for m in members)
    return (
        binary, "--name", member.name, "--data-dir", folder,
        "--listen-client-urls", client, "--advertise-client-urls", client,
        "--listen-peer-urls", member.peer_url, "--initial-advertise-peer-urls", member.peer_url,
        "--initial-cluster", cluster, "--initial-cluster-token", token, "--initial-cluster-state", "new",
        "--cert-file", certificate, "--key-file", key, "--trusted-ca-file", client_authorities, "--client-cert-auth",
        "--peer-cert-file", certificate, "--peer-key-file", key, "--peer-trusted-ca-file", authority,
        "--peer-client-cert-auth",
        "--heartbeat-interval", "100", "--election-timeout", "1000", "--pre-vote",
        "--auto-compaction-mode", "periodic", "--auto-compaction-retention", "10m",
        # Our passwords carry 256 bits: a slow hash protects nothing and would cost 60 ms of CPU for each of 40 logins.
        "--bcrypt-cost", "4",
        "--logger", "zap", "--log-level", "warn",
    )  # fmt: skip
