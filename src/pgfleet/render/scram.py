"""SCRAM-SHA-256 verifiers, as PostgreSQL stores them: a password never travels in SQL, not even to set it."""

from __future__ import annotations

import base64
import hashlib
import hmac

#: PostgreSQL's own count (libpq's SCRAM_DEFAULT_ITERATIONS); our passwords carry 256 bits, so more would only cost logins.
ITERATIONS = 4096


def scram_verifier(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`` (RFC 5802, section 3; PostgreSQL docs, pg_authid).

    Deterministic, so every shard can hold the same bytes: PgBouncer passes a client's proof on only where they are equal.
    """
    if not password.isascii():
        raise ValueError("only ASCII passwords: SASLprep would have to change others")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored = base64.b64encode(hashlib.sha256(client_key).digest()).decode()
    server = base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode()
    return f"SCRAM-SHA-256${iterations}:{base64.b64encode(salt).decode()}${stored}:{server}"
