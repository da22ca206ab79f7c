"""The hash that places keys: the same number in Python and in SQL, today and in ten years.

SHA-256 because every language and every PostgreSQL has it and it will not change (``hashtext`` may); its first 8 bytes,
big-endian and unsigned, modulo the number of buckets.
"""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

#: More buckets than this are of no use, and the arithmetic of :func:`bucket_sql` would have to be looked at again.
MAX_BUCKETS = 65_536

Key = str | int | UUID


def key_text(key: Key) -> str:
    """A key as the text that is compared and hashed, the same as PostgreSQL's ``column::text``.

    Text as it is (no folding, no normalisation), whole numbers in decimal, UUIDs in lower case with hyphens.

    :raises TypeError: None, a boolean, or another type whose text PostgreSQL and Python may write differently.
    :raises ValueError: text that UTF-8 or PostgreSQL cannot hold (a lone surrogate, a NUL).
    """
    if isinstance(key, str):
        text = str.__str__(key)  # a StrEnum's member hashes as its value
        if "\0" in text:
            raise ValueError("a key cannot contain a NUL byte")
        text.encode("utf-8")  # UnicodeEncodeError is a ValueError
        return text
    if isinstance(key, int) and not isinstance(key, bool):
        return int.__str__(key)
    if isinstance(key, UUID):
        return str(key)
    raise TypeError(f"a key is text, a whole number or a UUID, not {type(key).__name__}")


def bucket(value: Key, buckets: int) -> int:
    """The bucket of ``value``, 0 to ``buckets - 1``.

    :raises TypeError: ``value`` is None or of a type that is not a key (:func:`key_text`).
    :raises ValueError: ``value`` cannot be stored as text, or ``buckets`` is not 1 to 65,536.
    """
    _counted(buckets)
    return int.from_bytes(sha256(key_text(value).encode()).digest()[:8], "big") % buckets


def bucket_sql(expression: str, buckets: int) -> str:
    """The same as an SQL expression of type integer over ``expression`` (text, an integer or uuid; put there as it is).

    Only immutable functions of PostgreSQL itself, so that it may stand in an index and a generated column:
    ``convert_to`` is only stable, hence the way through ``decode(…, 'escape')``, which gives the text's own bytes. (A
    publication's row filter refuses it all the same: PostgreSQL 15 allows no casts by text there.) Every name is qualified, so
    that a session's search path changes nothing. The server's encoding must be UTF8, as pgfleet makes it.
    """
    _counted(buckets)
    text = f"(({expression})::pg_catalog.text)"
    bytes_ = rf"pg_catalog.decode(pg_catalog.replace({text}, E'\\', E'\\\\'), 'escape')"
    hexadecimal = f"pg_catalog.left(pg_catalog.encode(pg_catalog.sha256({bytes_}), 'hex'), 16)"
    signed = f"pg_catalog.textcat('x', {hexadecimal})::bit(64)::bigint"
    # bigint is signed: modulo 2^64 in numeric reads its bits as unsigned, and the hash is computed only once.
    unsigned = f"pg_catalog.mod(pg_catalog.numeric_add(({signed})::numeric, {2**64}), {2**64})"
    return f"pg_catalog.mod({unsigned}, {buckets})::integer"


def _counted(buckets: int) -> None:
    if not 1 <= buckets <= MAX_BUCKETS:
        raise ValueError(f"{buckets} buckets; 1 to {MAX_BUCKETS} are possible")
