"""What was seen of a shard: who holds its lock, who follows, how far each has come.

Read from Patroni's keys in etcd (``/service/SCOPE/...``, Patroni 4.1: ``leader`` holds a member's name, ``initialize`` the
system identifier; ``members/*``, ``sync``, ``status``, ``failover`` and ``history`` hold JSON), or from its REST answer
``GET /cluster``. Everything here is a value: one changed key makes a new ``ShardTopology`` out of the old one, and a key
that cannot be read is as good as absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pgfleet.names import NodeName

#: Below it every shard has a folder of its name (Patroni's ``namespace``).
NAMESPACE = "/service/"

Role = Literal["primary", "replica", "unknown"]

# Patroni's words for who takes writes, through its versions ("master" before 4) and in its REST answers ("leader"). A
# standby leader is in recovery: for writes it is a replica.
_PRIMARY = frozenset({"primary", "master", "leader"})
_REPLICA = frozenset({"replica", "standby_leader", "sync_standby", "quorum_standby"})


@dataclass(frozen=True, slots=True)
class MemberSeen:
    """One node, as its Patroni last described it.

    :param state: Patroni's word: ``running``, ``streaming``, ``in archive recovery``, ``starting``, ``stopped``, ...
    :param position: bytes of WAL it has (a replica: has replayed, where Patroni says so), None = not said.
    :param timeline: PostgreSQL's timeline, None = not said.
    :param balanced: false when its tags ask that no reads are sent there (``noloadbalance``).
    """

    name: NodeName
    role: Role = "unknown"
    state: str = "unknown"
    position: int | None = None
    timeline: int | None = None
    balanced: bool = True

    @property
    def serves(self) -> bool:
        """Whether it answers queries, as far as was seen."""
        return self.state in ("running", "streaming", "in archive recovery")


@dataclass(frozen=True, slots=True)
class SyncSeen:
    """Who takes part in synchronous replication: ``quorum`` of ``voters`` have every acknowledged commit."""

    leader: NodeName | None = None
    voters: tuple[NodeName, ...] = ()
    quorum: int = 0


@dataclass(frozen=True, slots=True)
class ShardTopology:
    """One shard.

    :param primary: the holder of Patroni's lock. It may not take writes yet: the lock precedes the promotion.
    :param position: the primary's WAL position, written by Patroni about once a second; None = not said.
    :param switching: a switchover (or manual failover) was asked for and is not done: the primary is about to stop.
    :param revision: etcd's revision of the newest key that is in here; 0 = not from etcd.
    :param system: PostgreSQL's system identifier; 0 = not said.
    :param ends: timeline -> the LSN at which it ended, as Patroni noted it after each promotion.
    """

    shard: str
    primary: NodeName | None = None
    members: Mapping[NodeName, MemberSeen] = field(default_factory=dict)
    sync: SyncSeen = SyncSeen()
    position: int | None = None
    switching: bool = False
    revision: int = 0
    system: int = 0
    ends: Mapping[int, int] = field(default_factory=dict)

    @property
    def announced(self) -> bool:
        """Whether the lock's holder itself says that it takes writes (so that nobody needs to ask it)."""
        member = self.members.get(self.primary) if self.primary is not None else None
        return member is not None and member.role == "primary" and member.state == "running"

    def lag(self, node: NodeName) -> int | None:
        """Bytes of WAL that ``node`` is behind the primary; None = not known. Both positions are up to a second old."""
        member = self.members.get(node)
        if member is None or member.position is None or self.position is None:
            return None
        return max(0, self.position - member.position)

    def with_key(self, key: str, value: str | None, revision: int = 0) -> ShardTopology:
        """This, after ``key`` was set, or deleted (None).

        :param key: below the shard's folder: ``leader``, ``members/us-east-1``.
        """
        changed = self if revision <= self.revision else replace(self, revision=revision)
        folder, slash, member = key.partition("/")
        if slash:
            name = _member_name(self.shard, member) if folder == "members" else None
            if name is None:
                return changed
            others = {n: m for n, m in self.members.items() if n != name}
            seen = _member(name, value) if value is not None else None
            return replace(changed, members=others | ({name: seen} if seen is not None else {}))
        match key:
            case "leader":
                return replace(changed, primary=_member_name(self.shard, value) if value else None)
            case "sync":
                return replace(changed, sync=_sync(self.shard, value))
            case "status":
                return replace(changed, position=_integer(_object(value).get("optime")))
            case "failover":
                raw = _object(value)
                return replace(changed, switching=bool(raw) and not raw.get("scheduled_at"))
            case "initialize":
                return replace(changed, system=int(value) if value and value.isdecimal() else 0)
            case "history":
                return replace(changed, ends=_ends(value))
            case _:
                return changed


def split_key(key: str) -> tuple[str, str] | None:
    """``/service/stem/members/us-east-1`` -> ``("stem", "members/us-east-1")``; None: not a shard's key."""
    shard, slash, rest = key.removeprefix(NAMESPACE).partition("/")
    return (shard, rest) if key.startswith(NAMESPACE) and shard and slash and rest else None


def read_shards(keys: Iterable[tuple[str, str, int]], shards: Iterable[str]) -> dict[str, ShardTopology]:
    """The shards, from etcd's (key, value, revision) below ``NAMESPACE``; a shard without keys is there, and empty."""
    seen = {shard: ShardTopology(shard) for shard in shards}
    for key, value, revision in keys:
        place = split_key(key)
        if place is not None and place[0] in seen:
            seen[place[0]] = seen[place[0]].with_key(place[1], value, revision)
    return seen


def read_cluster(shard: str, answer: object) -> ShardTopology:
    """The shard, from the JSON of Patroni's ``GET /cluster`` (it says ``lag`` in bytes instead of positions)."""
    raw = answer.get("members") if isinstance(answer, dict) else None
    members: dict[NodeName, MemberSeen] = {}
    primary: NodeName | None = None
    lags: dict[NodeName, int | None] = {}
    for one in raw if isinstance(raw, list) else ():
        name = _member_name(shard, one.get("name")) if isinstance(one, dict) else None
        if name is None:
            continue
        members[name] = _member_of(name, one)
        lags[name] = _integer(one.get("lag"))
        if one.get("role") in _PRIMARY:
            primary = name
    if primary is not None:  # positions relative to the primary's: the differences are all that is asked for
        base = max((lag for lag in lags.values() if lag is not None), default=0)
        lags[primary] = 0
        members = {n: replace(m, position=None if (lag := lags[n]) is None else base - lag) for n, m in members.items()}
        return ShardTopology(shard, primary, members, position=base)
    return ShardTopology(shard, None, members)


def _member(name: NodeName, value: str) -> MemberSeen | None:
    raw = _object(value)
    return _member_of(name, raw) if raw else None


def _member_of(name: NodeName, raw: Mapping[str, Any]) -> MemberSeen:
    word, state, tags = raw.get("role"), raw.get("state"), raw.get("tags")
    role: Role = "primary" if word in _PRIMARY else "replica" if word in _REPLICA else "unknown"
    position = _integer(raw.get("replay_lsn")) if role == "replica" else None
    # In etcd a replica is "running" and says beside it how it follows; in REST's answers its state says it at once.
    follows = raw.get("replication_state")
    if role == "replica" and state == "running" and isinstance(follows, str):
        state = follows
    return MemberSeen(
        name,
        role,
        state if isinstance(state, str) else "unknown",
        position if position is not None else _integer(raw.get("xlog_location")),
        _integer(raw.get("timeline")),
        balanced=not (isinstance(tags, dict) and tags.get("noloadbalance")),
    )


def _sync(shard: str, value: str | None) -> SyncSeen:
    raw = _object(value)
    standbys = raw.get("sync_standby")
    names = (_member_name(shard, n.strip()) for n in standbys.split(",")) if isinstance(standbys, str) else ()
    voters = tuple(n for n in names if n is not None)
    return SyncSeen(_member_name(shard, raw.get("leader")), voters, _integer(raw.get("quorum")) or 0)


def _ends(value: str | None) -> dict[int, int]:
    """Patroni's ``history``: a list of [timeline, LSN at which it ended, reason, …]."""
    try:
        raw = json.loads(value) if value else []
    except (ValueError, RecursionError):
        return {}
    lines = [line for line in raw if isinstance(line, list) and len(line) >= 2] if isinstance(raw, list) else []
    return {t: lsn for t, lsn, *_ in lines if _integer(t) is not None and _integer(lsn) is not None}


def _member_name(shard: str, member: object) -> NodeName | None:
    try:
        return NodeName.parse(f"{shard}/{member}") if isinstance(member, str) else None
    except ValueError:
        return None


def _object(text: str | None) -> dict[str, Any]:
    try:
        raw = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
