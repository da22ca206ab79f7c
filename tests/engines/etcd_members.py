"""Real etcd members: over plain http, or over TLS in both directions as a fleet has them."""

from __future__ import annotations

import base64
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import randrange

import httpx

from pgfleet.engines.programs import find_program
from pgfleet.facts.addresses import AddressBook, EtcdAddress
from pgfleet.runtime.certificates import make_authority, sign

#: Of ``root`` and the keeper, once authentication is switched on.
PASSWORD = "of the keeper"


def free_ports(count: int) -> list[int]:
    """Below the ephemeral range; somebody else may still be quicker."""
    found: list[int] = []
    while len(found) < count:
        port = randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


@dataclass
class Members:
    """:param urls: of the members' clients, in order."""

    urls: list[str]
    tls: ssl.SSLContext | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def send(self, index: int, number: signal.Signals) -> None:
        self.processes[index].send_signal(number)

    def call(self, path: str, body: dict[str, object]) -> dict[str, object]:
        answer = httpx.post(f"{self.urls[0]}/v3/{path}", json=body, timeout=5, trust_env=False, verify=self.tls or False)
        answer.raise_for_status()
        said: dict[str, object] = answer.json()
        return said

    def switch_on_authentication(self, user: str, password: str, prefix: str) -> None:
        """``root`` with the same password, and ``user`` who may write below ``prefix``."""
        key, end = prefix.encode(), prefix.encode()[:-1] + bytes([prefix.encode()[-1] + 1])
        for name in ("root", user):
            self.call("auth/role/add", {"name": name})
            self.call("auth/user/add", {"name": name, "password": password})
            self.call("auth/user/grant", {"user": name, "role": name})
        span = {"key": base64.b64encode(key).decode(), "range_end": base64.b64encode(end).decode()}
        self.call("auth/role/grant", {"name": user, "perm": {"permType": "READWRITE", **span}})
        self.call("auth/enable", {})


@contextmanager
def etcd_members(folder: Path, count: int = 3, *, fleet: Path | None = None) -> Iterator[Members]:
    """Running and healthy; killed afterwards.

    :param fleet: a fleet's folder, to be furnished with certificates, the keeper's password and the address book.
    """
    ports = free_ports(2 * count)
    urls = [f"{'https' if fleet else 'http'}://127.0.0.1:{port}" for port in ports]
    more = _furnish(fleet, ports[:count], ports[count:]) if fleet else []
    peers = ",".join(f"m{i}={urls[count + i]}" for i in range(count))
    members = Members(urls[:count], _trust(fleet))
    try:
        for i in range(count):
            argv = [
                find_program("etcd"), "--name", f"m{i}", "--data-dir", str(folder / f"m{i}"),
                "--listen-client-urls", urls[i], "--advertise-client-urls", urls[i],
                "--listen-peer-urls", urls[count + i], "--initial-advertise-peer-urls", urls[count + i],
                "--initial-cluster", peers, "--initial-cluster-token", folder.name, "--initial-cluster-state", "new",
                "--logger", "zap", "--log-level", "warn", *more,
            ]  # fmt: skip
            with (folder / f"m{i}.log").open("wb") as log:
                members.processes.append(subprocess.Popen(argv, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}))
        for url in members.urls:
            _wait_for(url, members.tls)
        yield members
    finally:
        for process in members.processes:
            process.kill()
        for process in members.processes:
            process.wait()


def _wait_for(url: str, tls: ssl.SSLContext | None) -> None:
    ends = time.monotonic() + 30
    while True:
        try:
            if httpx.get(f"{url}/health", timeout=1, trust_env=False, verify=tls or False).status_code == 200:
                return
        except httpx.TransportError:
            if time.monotonic() > ends:
                raise
        time.sleep(0.05)


def _furnish(fleet: Path, client_ports: list[int], peer_ports: list[int]) -> list[str]:
    now = datetime.now(UTC)
    folder = fleet / "certificates"
    (fleet / "secrets").mkdir(mode=0o700)
    folder.mkdir()
    authority = make_authority("test", now)
    (folder / "ca.crt").write_bytes(authority.certificate)
    for name in ("operator", "etcd"):
        signed = sign(authority, now, unit=name, hosts=["127.0.0.1", "localhost"], server=name == "etcd")
        (folder / f"{name}.crt").write_bytes(signed.certificate)
        (folder / f"{name}.key").write_bytes(signed.key)
    (fleet / "secrets" / "etcd-keeper").write_text(PASSWORD)
    ports = enumerate(zip(client_ports, peer_ports, strict=True))
    etcd = tuple(EtcdAddress(f"m{i}", "us-east", "127.0.0.1", client, peer) for i, (client, peer) in ports)
    (fleet / "addresses.json").write_text(AddressBook(fleet.name, str(fleet), "app", etcd).to_json())
    server = ["--cert-file", f"{folder}/etcd.crt", "--key-file", f"{folder}/etcd.key"]
    peer = ["--peer-cert-file", f"{folder}/etcd.crt", "--peer-key-file", f"{folder}/etcd.key"]
    ca = ["--trusted-ca-file", f"{folder}/ca.crt", "--peer-trusted-ca-file", f"{folder}/ca.crt"]
    return [*server, *peer, *ca, "--client-cert-auth", "--peer-client-cert-auth", "--bcrypt-cost", "4"]


def _trust(fleet: Path | None) -> ssl.SSLContext | None:
    if fleet is None:
        return None
    tls = ssl.create_default_context(cafile=str(fleet / "certificates" / "ca.crt"))
    tls.load_cert_chain(fleet / "certificates" / "operator.crt", fleet / "certificates" / "operator.key")
    return tls
