"""Steps: what a plan is made of. Each says because of what, at which risk, and how to undo it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pgfleet.names import NodeName


class Act(StrEnum):
    """What a step does; the order here is the order in which kinds of steps begin."""

    PREPARE = "prepare"  # state folder, certificates, passwords, address book
    START_KEEPER = "start keeper"
    CREATE_ETCD = "create etcd"
    SECURE_ETCD = "secure etcd"
    CREATE_NODE = "create node"
    START = "start"  # a process that should run and does not
    CHANGE = "change"  # a process whose configuration differs
    CREATE_POOLER = "create pooler"
    PREPARE_SHARD = "prepare shard"  # roles, database, schema on its primary
    CHANGE_SETTINGS = "change settings"
    REMOVE_NODE = "remove node"
    REMOVE_SHARD = "remove shard"
    REMOVE_POOLER = "remove pooler"
    RECORD_PLACEMENT = "record placement"  # every shard owns what the map says, guarded tables refuse the rest, etcd tells it
    GUARD_TABLES = "guard tables"  # tables that were made since


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    :param subject: a node, shard, region, unit, or the fleet itself.
    :param destroys: data is gone afterwards: apply asks first.
    :param shard: the shard it belongs to; empty for none.
    """

    act: Act
    subject: str
    because: str
    risk: str
    undo: str
    shard: str = ""
    destroys: bool = False

    @property
    def title(self) -> str:
        return f"{self.act.value} {self.subject}"

    @property
    def node(self) -> NodeName:
        """:raises ValueError: the subject is no node."""
        return NodeName.parse(self.subject)

    def to_json(self) -> dict[str, object]:
        return {
            "act": self.act.value, "subject": self.subject, "shard": self.shard or None, "because": self.because,
            "risk": self.risk, "undo": self.undo, "destroys": self.destroys,
        }  # fmt: skip
