"""Names: what a fleet, region, shard, node or role may be called, and the two ways a node is named."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Fleets, regions, groups and shards: a DNS label. It is a folder's name, a Patroni scope and a part of an etcd key, so
#: it must be safe in all three; 40 characters leave room for a region and a number in PostgreSQL's 63-byte slot names.
NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")

#: Tables, columns, databases and roles: an identifier that PostgreSQL needs no quotes for (folded to lower case), and at
#: most 63 bytes (NAMEDATALEN - 1).
IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def is_name(text: str) -> bool:
    """Whether ``text`` may name a fleet, region, group or shard."""
    return NAME.fullmatch(text) is not None


def is_identifier(text: str) -> bool:
    """Whether ``text`` may name a table, column, database or role."""
    return IDENTIFIER.fullmatch(text) is not None


def quote_identifier(name: str) -> str:
    """``name`` as a quoted SQL identifier (PostgreSQL docs, 4.1.1: a quote is doubled)."""
    if "\0" in name:
        raise ValueError("an identifier cannot contain a NUL byte")
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """``text`` as an SQL literal (PostgreSQL docs, 4.1.2.1, with standard_conforming_strings on: a quote is doubled, a backslash
    is itself). For the few places that take no parameters."""
    if "\0" in text:
        raise ValueError("a literal cannot contain a NUL byte")
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True, order=True)
class NodeName:
    """One PostgreSQL server of a shard: ``certification/us-east-1`` is node 1 of region us-east."""

    shard: str
    region: str
    number: int

    @property
    def member(self) -> str:
        """The name within its shard (Patroni's member name): ``us-east-1``."""
        return f"{self.region}-{self.number}"

    def __str__(self) -> str:
        return f"{self.shard}/{self.member}"

    @classmethod
    def parse(cls, text: str) -> NodeName:
        """Read ``shard/region-number``.

        :raises ValueError: ``text`` has another form.
        """
        shard, slash, member = text.partition("/")
        region, dash, number = member.rpartition("-")
        if not (slash and dash and is_name(shard) and is_name(region) and number.isdecimal() and int(number) > 0):
            raise ValueError(f"{text!r} is not a node's name (shard/region-number, such as stem/us-east-1)")
        return cls(shard, region, int(number))
