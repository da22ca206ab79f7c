"""Three real etcd members over plain http, for tests that need no certificates."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import randrange

import httpx

from pgfleet.engines.programs import find_program


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
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def send(self, index: int, number: signal.Signals) -> None:
        self.processes[index].send_signal(number)

    def call(self, path: str, body: dict[str, object]) -> dict[str, object]:
        answer = httpx.post(f"{self.urls[0]}/v3/{path}", json=body, timeout=5, trust_env=False)
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
def etcd_members(folder: Path, count: int = 3) -> Iterator[Members]:
    """Running and healthy; killed afterwards."""
    ports = free_ports(2 * count)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    peers = ",".join(f"m{i}={urls[count + i]}" for i in range(count))
    members = Members(urls[:count])
    try:
        for i in range(count):
            argv = [
                find_program("etcd"), "--name", f"m{i}", "--data-dir", str(folder / f"m{i}"),
                "--listen-client-urls", urls[i], "--advertise-client-urls", urls[i],
                "--listen-peer-urls", urls[count + i], "--initial-advertise-peer-urls", urls[count + i],
                "--initial-cluster", peers, "--initial-cluster-token", folder.name, "--initial-cluster-state", "new",
                "--logger", "zap", "--log-level", "warn",
            ]  # fmt: skip
            with (folder / f"m{i}.log").open("wb") as log:
                members.processes.append(
                    subprocess.Popen(argv, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
                )
        for url in members.urls:
            _wait_for(url)
        yield members
    finally:
        for process in members.processes:
            process.kill()
        for process in members.processes:
            process.wait()


def _wait_for(url: str) -> None:
    ends = time.monotonic() + 30
    while True:
        try:
            if httpx.get(f"{url}/health", timeout=1, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            if time.monotonic() > ends:
                raise
        time.sleep(0.05)
