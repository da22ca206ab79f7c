"""Secrets: made once, kept in files of mode 0600, and never seen in argv, logs or reports."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pgfleet.runtime.files import write_atomically
from pgfleet.spec.secret import SecretRef

#: 32 bytes of the operating system's randomness in URL-safe text (43 characters): no quoting anywhere needs care.
BYTES = 32


def keep_secret(path: Path) -> str:
    """The secret at ``path``, made now if there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        secret = secrets.token_urlsafe(BYTES)
        write_atomically(path, secret, mode=0o600)
        return secret


def keep_salt(path: Path) -> bytes:
    """16 random bytes kept at ``path``: a SCRAM verifier must be the same bytes on every shard, so its salt is kept."""
    return bytes.fromhex(keep_hex(path))


def keep_hex(path: Path) -> str:
    """32 hexadecimal digits kept at ``path``."""
    try:
        return path.read_text()
    except FileNotFoundError:
        text = secrets.token_hex(16)
        write_atomically(path, text, mode=0o600)
        return text


def resolve(reference: SecretRef, beside: Path) -> str:
    """What ``reference`` leads to, without the white space around it.

    :param beside: the folder at which relative paths begin.
    :raises LookupError: nothing; the message is a sentence.
    """
    if reference.kind == "env":
        text = os.environ.get(reference.name, "").strip()
        if not text:
            raise LookupError(f"the environment variable {reference.name} is not set")
        return text
    path = beside / Path(reference.name).expanduser()
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LookupError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    if not text:
        raise LookupError(f"{path} is empty")
    return text
