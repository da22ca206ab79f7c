"""Consistency tokens: where somebody's writes are, as a value that can be carried on, merged, and written as text.

A position is read *after* COMMIT returned (what a statement sees of the WAL inside its transaction lies before its own
commit record). It names the history it belongs to: two primaries can mint equal timeline numbers, so the system identifier
and the timeline's begin go with it.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pgfleet.errors import TokenUnreadable

#: What the text of a token begins with; the number is raised when its meaning changes.
VERSION = "pgf1"
#: Positions of one shard that a token keeps: one a timeline, the newest. More failovers than these within one request's
#: life are no history that anybody reads on.
TIMELINES = 4


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a write is: everything up to ``lsn`` of a history.

    :param timeline: PostgreSQL's. :param lsn: bytes of WAL. :param begin: where the timeline begins; 0 = not known.
    :param system: the system identifier; 0 = not known.
    """

    timeline: int
    lsn: int
    begin: int = 0
    system: int = 0

    def __str__(self) -> str:
        return f"{self.timeline} · {self.lsn >> 32:X}/{self.lsn & 0xFFFFFFFF:08X}"


@dataclass(frozen=True, slots=True)
class Token:
    """:param positions: per shard, at most one a timeline, sorted. Equal tokens have equal texts."""

    positions: Mapping[str, tuple[Position, ...]] = field(default_factory=dict)

    def of(self, shard: str) -> tuple[Position, ...]:
        """The positions on ``shard``; none: anything is fresh enough there."""
        return self.positions.get(shard, ())

    def with_position(self, shard: str, position: Position) -> Token:
        """With one more write. The farthest of a timeline stays, and the positions of other timelines: whether those are
        still part of the shard's history is for :func:`pgfleet.routing.lineage.judge` to say."""
        # A position that could not be read (timeline 0) is covered by any that was read later, from the same history.
        kept = {(p.system, p.timeline, p.begin): p for p in self.of(shard) if p.timeline or not position.timeline}
        name = (position.system, position.timeline, position.begin)
        if name in kept and kept[name].lsn >= position.lsn:
            return self
        kept[name] = position
        return Token({**self.positions, shard: tuple(sorted(kept.values())[-TIMELINES:])})

    def merged(self, other: Token) -> Token:
        """Both."""
        token = self
        for shard, position in other:
            token = token.with_position(shard, position)
        return token

    def __iter__(self) -> Iterator[tuple[str, Position]]:
        for shard, positions in self.positions.items():
            for position in positions:
                yield shard, position

    def __str__(self) -> str:
        """``pgf1.`` and URL-safe characters: fits a header, a cookie, a job's argument. No secret is in it."""
        entries = [[shard, p.system, p.timeline, p.begin, p.lsn] for shard, p in sorted(self)]
        body = json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode()
        packed = zlib.crc32(body).to_bytes(4, "big") + body
        return f"{VERSION}.{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """:raises TokenUnreadable: not a token, one that was cut or changed on its way, or one of another version."""
        version, dot, body = text.partition(".")
        if not dot or version != VERSION:
            raise TokenUnreadable(f"{text[:40]!r} is not a token of version {VERSION}")
        try:
            packed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            if int.from_bytes(packed[:4], "big") != zlib.crc32(packed[4:]):
                raise TokenUnreadable("a token was cut or changed on its way", seen=[f"{text[:40]}… ({len(text)} characters)"])
            token = cls()
            for shard, system, timeline, begin, lsn in json.loads(packed[4:]):
                if not isinstance(shard, str) or not all(type(n) is int and n >= 0 for n in (system, timeline, begin, lsn)):
                    raise ValueError("not a position")
                token = token.with_position(shard, Position(timeline, lsn, begin, system))
            return token
        except (binascii.Error, ValueError, TypeError, UnicodeDecodeError, RecursionError):
            raise TokenUnreadable(f"{text[:40]!r} is not a token") from None
