"""Whether servers are the shard that the file says they are. Pure: what they said goes in, the first thing wrong comes out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from pgfleet.errors import (
    DsnRejected,
    NoSuchNode,
    NotOneShard,
    PgfleetError,
    PooledEndpoint,
    PrivilegeMissing,
    TakenAlready,
    TwoPrimaries,
)
from pgfleet.names import NodeName, quote_identifier
from pgfleet.providers.existing.look import Answer, Look, Silence, answered

#: SQLSTATE (PostgreSQL docs, appendix A): authentication, no such database; and what TLS says has no SQLSTATE.
_REJECTED = ("28", "3D000")
#: PgBouncer's answer to a start-up parameter that it does not know; PostgreSQL has none of its own in this class here.
_POOLED = "08P01"


def fault(fleet: str, shard: str, looks: Mapping[NodeName, Look], sources: Mapping[NodeName, str]) -> PgfleetError | None:
    """What keeps these servers from being ``shard`` of ``fleet``; None: nothing.

    :param looks: of the shard's nodes, in the order of the file.
    :param sources: where the file says each: ``fleet.yaml:5 shards.main.primary``.
    """
    said = answered(looks)
    rules: tuple[Callable[[], PgfleetError | None], ...] = (
        lambda: _pooled(looks, sources),
        lambda: _rejected(looks, sources),
        lambda: _same_server(shard, said, sources),
        lambda: _another_database(shard, said, sources),
        lambda: _two_primaries(shard, said),
        lambda: _no_primary(shard, looks, sources),
        lambda: _two_users(shard, said, sources),
        lambda: _taken(fleet, shard, said),
        lambda: _privileges(shard, said),
    )
    return next((found for rule in rules if (found := rule()) is not None), None)


def _pooled(looks: Mapping[NodeName, Look], sources: Mapping[NodeName, str]) -> PgfleetError | None:
    wrong = {name: one for name, one in looks.items() if isinstance(one, Silence) and one.state == _POOLED}
    if not wrong:
        return None
    return PooledEndpoint(
        f"{_names(wrong)}: a pooler answered instead of a server", seen=_seen(wrong, sources),
        hint="the DSN of the server itself (Neon: the host without -pooler)",
    )  # fmt: skip


def _rejected(looks: Mapping[NodeName, Look], sources: Mapping[NodeName, str]) -> PgfleetError | None:
    wrong = {name: one for name, one in looks.items() if isinstance(one, Silence) and _is_rejection(one)}
    if not wrong:
        return None
    hint = "mend the DSN"
    if any("certificate" in one.why.lower() for one in wrong.values()):
        hint = "sslrootcert=PATH names its authority; sslmode=require encrypts without asking who answers"
    elif any("encryption" in one.why or "SSL" in one.why for one in wrong.values()):
        hint = "sslmode=require (or verify-full) where it demands TLS, sslmode=disable where it has none"
    return DsnRejected(f"{_names(wrong)}: the server does not let us in", seen=_seen(wrong, sources), hint=hint)


def _is_rejection(silence: Silence) -> bool:
    state = silence.state or ""
    return state.startswith(_REJECTED) or "certificate" in silence.why.lower() or "SSL" in silence.why


def _same_server(shard: str, said: Mapping[NodeName, Answer], sources: Mapping[NodeName, str]) -> PgfleetError | None:
    first: dict[Hashable, NodeName] = {}
    for name, one in said.items():
        other = first.setdefault((one.system, one.started), name)
        if other != name:
            seen = [f"{sources[n]}: started at {said[n].started:%Y-%m-%d %H:%M:%S.%f}" for n in (other, name)]
            message = f"{other.member} and {name.member} of {shard} are one and the same server"
            return NotOneShard(message, seen=seen, hint="a DSN for each server; where a replica has none yet, leave it out")
    return None


def _another_database(shard: str, said: Mapping[NodeName, Answer], sources: Mapping[NodeName, str]) -> PgfleetError | None:
    systems = {one.system for one in said.values()}
    if len(systems) < 2:
        return None
    seen = [f"{sources[name]}: {name.member} has system identifier {one.system}" for name, one in said.items()]
    return NotOneShard(
        f"the servers of {shard} are not copies of one another", seen=seen, hint="mend the DSN that leads elsewhere"
    )


def _two_primaries(shard: str, said: Mapping[NodeName, Answer]) -> PgfleetError | None:
    claims = {name: one for name, one in said.items() if not one.recovering}
    if len(claims) < 2:
        return None
    oldest = min(claims, key=lambda name: claims[name].timeline)
    return TwoPrimaries(
        f"{_names(claims)} of {shard} both take writes",
        seen=[f"{name.member}: timeline {one.timeline}, since {one.started:%Y-%m-%d %H:%M:%S}" for name, one in claims.items()],
        hint=f"stop {oldest.member}, and make it a replica again (pg_rewind, or a new copy)",
    )  # fmt: skip


def _no_primary(shard: str, looks: Mapping[NodeName, Look], sources: Mapping[NodeName, str]) -> PgfleetError | None:
    said = answered(looks)
    if any(not one.recovering for one in said.values()):
        return None
    hint = "pgfleet status"
    if len(said) == len(looks):
        hint = "every DSN leads to a standby: name the primary's under `primary`, or promote one"
    seen = [f"{sources[name]}: {name.member}: {_word(one)}" for name, one in looks.items()]
    return NoSuchNode(f"no node of {shard} is its primary and answers", seen=seen, hint=hint)


def _two_users(shard: str, said: Mapping[NodeName, Answer], sources: Mapping[NodeName, str]) -> PgfleetError | None:
    if len({(one.user, one.database) for one in said.values()}) < 2:
        return None
    seen = [f"{sources[name]}: user {one.user}, database {one.database}" for name, one in said.items()]
    return NotOneShard(
        f"the DSNs of {shard} name different users or databases; after a promotion writes go to another of its servers",
        seen=seen, hint="one user and one database for all servers of a shard",
    )  # fmt: skip


def _taken(fleet: str, shard: str, said: Mapping[NodeName, Answer]) -> PgfleetError | None:
    for one in said.values():
        if one.shard is not None and one.shard[:2] != (fleet, shard):
            message = f"the database {one.database} is shard {one.shard[1]} of fleet {one.shard[0]} already"
            hint = "another database for this shard; or, where that fleet is gone, there: drop schema pgfleet cascade"
            return TakenAlready(message, seen=[f"this would be shard {shard} of fleet {fleet}"], hint=hint)
    return None


def _privileges(shard: str, said: Mapping[NodeName, Answer]) -> PgfleetError | None:
    one = next(one for one in said.values() if not one.recovering)
    if one.has_schema and not one.owns_schema:
        return PrivilegeMissing(
            f"the schema pgfleet on {shard} belongs to another user than {one.user}",
            hint=f"alter schema pgfleet owner to {quote_identifier(one.user)}; with everything in it",
        )
    if not one.has_schema and not one.may_create:
        return PrivilegeMissing(
            f"{one.user} may not create the schema pgfleet in database {one.database} of {shard}",
            hint=f"create schema pgfleet authorization {quote_identifier(one.user)};   (as the owner of the database)",
        )
    return None


def _word(one: Look) -> str:
    if isinstance(one, Silence):
        return one.why
    return "it is a standby" if one.recovering else "it takes writes"


def _seen(wrong: Mapping[NodeName, Silence], sources: Mapping[NodeName, str]) -> list[str]:
    return [f"{sources[name]}: {one.why}" for name, one in wrong.items()]


def _names(nodes: Mapping[NodeName, object]) -> str:
    return ", ".join(str(name) for name in nodes)
