"""Looking at servers that exist already: each is asked who it is, all at once, and its silence is an answer too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

import asyncpg

from pgfleet.errors import CannotConnect, PgfleetError
from pgfleet.facts.addresses import NodeAddress
from pgfleet.facts.fleet import PlacementSeen
from pgfleet.names import NodeName
from pgfleet.providers.ownership import seen_placement
from pgfleet.runtime.sql import Connection, Login, connect, sqlstate

#: Seconds in which a server must answer: TCP, TLS, authentication and three questions. Servers elsewhere take a few round trips.
LOOK_SECONDS = 5.0
#: As the client's sessions begin: whoever does not take these is no server of its own.
_SETTINGS = {"application_name": "pgfleet", "default_transaction_read_only": "on", "statement_timeout": "5s"}

LoginOf = Callable[[NodeAddress], Login]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said.

    :param position: WAL replayed (a replica) or flushed; bytes. :param receiving: a replica is connected to whom it follows.
    :param system: PostgreSQL's system identifier. :param started: of its postmaster; with ``system``, which server this is.
    :param user: who we are there, which a pooler may name otherwise in its DSN.
    :param has_schema: ``pgfleet`` is there. :param owns_schema: and ours to change.
    :param shard: (fleet, shard, digest) that it was prepared as; None: it was not, or does not tell us.
    :param placement: the map of keys that it holds, and what of it is not guarded; None: likewise.
    """

    recovering: bool
    receiving: bool
    position: int
    timeline: int
    system: int
    started: datetime
    version: int
    user: str
    database: str
    may_create: bool
    has_schema: bool
    owns_schema: bool
    shard: tuple[str, str, str] | None = None
    placement: PlacementSeen | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """:param why: a sentence. :param state: SQLSTATE, where it was PostgreSQL that said no."""

    why: str
    state: str | None = None


Look = Answer | Silence


async def look(nodes: Sequence[NodeAddress], login_of: LoginOf, *, seconds: float = LOOK_SECONDS) -> dict[NodeName, Look]:
    """What each of ``nodes`` says, all asked at once."""
    answers = await asyncio.gather(*(look_at(node, login_of, seconds=seconds) for node in nodes))
    return {node.name: answer for node, answer in zip(nodes, answers, strict=True)}


async def look_at(node: NodeAddress, login_of: LoginOf, *, seconds: float = LOOK_SECONDS) -> Look:
    """What ``node`` says."""
    connection: Connection | None = None
    try:
        async with asyncio.timeout(seconds):
            connection = await connect(node.host, node.port, login_of(node), settings=_SETTINGS, seconds=seconds)
            return await _ask(connection)
    except CannotConnect as error:
        return Silence(error.message, error.state)
    except PgfleetError as error:  # its password is not ours to read
        return Silence(error.message)
    except TimeoutError:
        return Silence(f"{node.host}:{node.port} did not answer in {seconds:g} s")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return Silence(str(error) or type(error).__name__, sqlstate(error))
    finally:
        if connection is not None:
            connection.terminate()


@cache
def _sql() -> str:
    return files("pgfleet.providers.existing").joinpath("look.sql").read_text(encoding="utf-8")


async def _ask(connection: Connection) -> Answer:
    row = await connection.fetchrow(_sql())
    assert row is not None  # noqa: S101 - one row always
    said = dict(row)
    tells_shard, tells_placement = said.pop("tells_shard"), said.pop("tells_placement")
    shard = await connection.fetchrow("select fleet, shard, prepared from pgfleet.shard") if tells_shard else None
    try:
        placement = await seen_placement(connection) if tells_placement else None
    except asyncpg.UndefinedObjectError:  # prepared by a pgfleet that had other columns or functions there
        placement = None
    return Answer(
        **said,
        shard=(shard[0], shard[1], shard[2]) if shard is not None else None,
        placement=placement,
    )


def answered(looks: Mapping[NodeName, Look]) -> dict[NodeName, Answer]:
    """Those that said something."""
    return {name: one for name, one in looks.items() if isinstance(one, Answer)}


def primary_of(looks: Mapping[NodeName, Look]) -> NodeName | None:
    """Who takes writes: it says so itself; of two, the one on the higher timeline was promoted later."""
    claims = {name: one.timeline for name, one in answered(looks).items() if not one.recovering}
    return max(claims, key=lambda name: claims[name], default=None)
