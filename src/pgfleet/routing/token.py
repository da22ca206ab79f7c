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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pgfleet.errors import TokenUnreadable

#: What the text of a token begins with; the number is raised when its meaning changes.
VERSION = "pgf2"
#: The one before, which had no ``within``; it is read.
BEFORE = "pgf1"
#: Positions of one shard that a token keeps: one a timeline, the newest. More failovers than these within one request's
#: life are no history that anybody reads on.
TIMELINES = 4


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a write is: everything up to ``lsn`` of a history.

    :param timeline: PostgreSQL's. :param lsn: bytes of WAL. :param begin: where the timeline begins; 0 = not known.
    :param system: the system identifier; 0 = not known.
    :param within: the write itself ends here at the latest, as its replicas confirmed; between that and ``lsn`` is what others
        wrote meanwhile. 0 = not known.
    """

    timeline: int
    lsn: int
    begin: int = 0
    system: int = 0
    within: int = 0

    @property
    def last(self) -> int:
        """Where the write itself ends, as far as is known."""
        return self.within or self.lsn

    def with_other(self, other: Position) -> Position:
        """Of two writes on one timeline, both."""
        lsn, last = max(self.lsn, other.lsn), max(self.last, other.last)
        return replace(self, lsn=lsn, within=last if last < lsn else 0)

    def __str__(self) -> str:
        return f"{self.timeline} · {self.last >> 32:X}/{self.last & 0xFFFFFFFF:08X}"


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
        before = self.of(shard)
        if position.timeline:  # one that could not be read (timeline 0) is covered by any that is read later, of the same history
            before = tuple(p for p in before if p.timeline)
        return self._with(shard, (*before, position))

    def _with(self, shard: str, positions: Iterable[Position]) -> Token:
        farthest: dict[tuple[int, int, int], Position] = {}
        for position in sorted(positions):
            of = (position.system, position.timeline, position.begin)
            farthest[of] = position.with_other(farthest.get(of, position))
        unread = [p for p in farthest.values() if not p.timeline]  # of a write that may be newer than all the others
        known = [p for p in sorted(farthest.values()) if p.timeline]
        told = (*unread, *known[-TIMELINES:])
        return self if told == self.of(shard) else Token({**self.positions, shard: told})

    def merged(self, other: Token) -> Token:
        """Both."""
        token = self
        for shard, positions in other.positions.items():
            token = token._with(shard, (*token.of(shard), *positions))
        return token

    def __iter__(self) -> Iterator[tuple[str, Position]]:
        for shard, positions in self.positions.items():
            for position in positions:
                yield shard, position

    def __str__(self) -> str:
        """``pgf2.`` and URL-safe characters: fits a header, a cookie, a job's argument. No secret is in it."""
        entries = [[shard, p.system, p.timeline, p.begin, p.lsn, p.within] for shard, p in sorted(self)]
        body = json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode()
        packed = zlib.crc32(body).to_bytes(4, "big") + body
        return f"{VERSION}.{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"

    @classmethod
    def read(cls, given: Token | str | None) -> Token:
        """What a caller gave: a token, its text, or nothing.

        :raises TokenUnreadable: it is none of these.
        """
        if isinstance(given, str) and given:
            return cls.parse(given)
        if given is None or given == "":
            return cls()
        if not isinstance(given, Token):
            raise TokenUnreadable(f"{given!r:.40} is not a token", hint="str(fleet.token())")
        return given

    @classmethod
    def parse(cls, text: str) -> Token:
        """:raises TokenUnreadable: not a token, one that was cut or changed on its way, or one of another version."""
        version, dot, body = text.partition(".")
        if not dot or version not in (VERSION, BEFORE):
            raise TokenUnreadable(f"{text[:40]!r} is not a token of version {VERSION}")
        try:
            packed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            if int.from_bytes(packed[:4], "big") != zlib.crc32(packed[4:]):
                raise TokenUnreadable("a token was cut or changed on its way", seen=[f"{text[:40]}… ({len(text)} characters)"])
            found: dict[str, list[Position]] = {}
            for entry in json.loads(packed[4:]):
                shard, system, timeline, begin, lsn, within = entry if version == VERSION else [*entry, 0]
                numbers = (system, timeline, begin, lsn, within)
                if not isinstance(shard, str) or not all(type(n) is int and n >= 0 for n in numbers) or 0 < within >= lsn:
                    raise ValueError("not a position")
                found.setdefault(shard, []).append(Position(timeline, lsn, begin, system, within))
            token = cls()
            for shard, positions in found.items():
                token = token._with(shard, positions)
            return token
        except (binascii.Error, ValueError, TypeError, UnicodeDecodeError, RecursionError):
            raise TokenUnreadable(f"{text[:40]!r} is not a token") from None
