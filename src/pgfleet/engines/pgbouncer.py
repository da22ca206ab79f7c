"""PgBouncer on this host: which version it is."""

from __future__ import annotations

import re
import subprocess

_VERSION = re.compile(r"PgBouncer (\d+)\.(\d+)")


def version_of(program: str) -> tuple[int, int]:
    """Major and minor of ``program``; (0, 0) where it does not say."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    return read_version(said)


def read_version(said: str) -> tuple[int, int]:
    """:param said: what ``pgbouncer --version`` wrote."""
    found = _VERSION.search(said)
    return (int(found[1]), int(found[2])) if found else (0, 0)
