"""What the keeper does about what it sees. Tables of rules; the first that holds is the answer. Nothing happens here.

Two invariants stand above all rules: a lease is revoked only after the node that held it has *ended* (all of it: see
``runtime.process.Held.ended``), and only when somebody else can be elected. ``leader`` is Patroni's word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from pgfleet.providers.local.units import Unit, Units

#: Seconds that a leading node may be stopped (SIGSTOP) before it is ended. What stops it for an instant is over well
#: before (Patroni itself, before it kills a postmaster: PostmasterProcess.signal_kill); the lease's ttl of 20 s, which
#: would otherwise decide, is far above.
STOPPED_TOO_LONG = 3.0

#: Seconds after which a stopped Patroni has lost whatever lease it held (its ttl), so that another node may have been
#: elected while the PostgreSQL beside it still believes to be the primary: nobody but us can end it.
LEASE_IS_OVER = 20.0


@dataclass(frozen=True, slots=True)
class LeadSeen:
    """Who leads a shard, as etcd says now.

    :param leader: the member whose name the leader key holds; None when the key is vacant.
    :param lease: the lease that key hangs on.
    :param candidates: other members that may be elected without losing a commit, and whose Patroni lives.
    """

    leader: str | None
    lease: int = 0
    candidates: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """One node on this host.

    :param ended: its namespace's first process has ended, and with it, as the kernel guarantees, every other one.
    :param patroni_stopped: seconds that Patroni has been stopped by a signal.
    :param postgres_stopped: the same of the postmaster.
    :param postgres_runs: there is a postmaster, and nobody stopped it.
    :param postgres_killed: the postmaster ended without removing its postmaster.pid, which every orderly end does.
    :param lead: None when etcd did not answer in time.
    """

    member: str
    ended: bool = False
    patroni_stopped: float = 0.0
    postgres_stopped: float = 0.0
    postgres_runs: bool = False
    postgres_killed: bool = False
    lead: LeadSeen | None = None

    @property
    def leads(self) -> bool:
        return self.lead is not None and self.lead.leader == self.member

    @property
    def replaceable(self) -> bool:
        return self.lead is not None and bool(self.lead.candidates - {self.member})

    @property
    def suspicious(self) -> bool:
        """Worth asking etcd about."""
        return self.postgres_killed or max(self.patroni_stopped, self.postgres_stopped) >= STOPPED_TOO_LONG


class Deed(Enum):
    LEAVE = "leave"  # alive, and Patroni's business
    FENCE = "fence"  # alive, and must not be: kill its namespace
    START = "start"  # ended: start it again
    REVOKE = "revoke"  # ended while leading: revoke its lease, then start it again


@dataclass(frozen=True, slots=True)
class Rule:
    """:param because: the sentence that the operator reads."""

    holds: Callable[[NodeSeen], bool]
    deed: Deed
    because: str


AFTER_THE_END: tuple[Rule, ...] = (
    Rule(lambda n: n.lead is None, Deed.START, "etcd did not answer; its lease, if it has one, runs out by itself"),
    Rule(lambda n: not n.leads, Deed.START, "it does not lead its shard"),
    Rule(lambda n: not n.replaceable, Deed.START, "it leads, but nobody else could be elected: it is back soonest"),
    Rule(lambda n: True, Deed.REVOKE, "it led its shard, all of it has ended, and others can be elected"),
)

WHILE_IT_LIVES: tuple[Rule, ...] = (
    Rule(lambda n: not n.suspicious, Deed.LEAVE, "nothing is wrong that Patroni would not mend"),
    Rule(
        lambda n: n.patroni_stopped >= LEASE_IS_OVER and n.postgres_runs and not n.leads,
        Deed.FENCE,
        "its Patroni was stopped for longer than a lease lasts while its PostgreSQL runs: nobody else can demote it",
    ),
    Rule(lambda n: n.lead is None, Deed.LEAVE, "etcd did not answer, so it is unknown who leads"),
    Rule(lambda n: not n.leads, Deed.LEAVE, "a replica: its shard does not wait for it"),
    Rule(lambda n: not n.replaceable, Deed.LEAVE, "nobody else could be elected"),
    Rule(lambda n: n.postgres_killed, Deed.FENCE, "its PostgreSQL was killed while it led, and others can be elected"),
    Rule(lambda n: True, Deed.FENCE, f"it leads, was stopped for {STOPPED_TOO_LONG:g} s, and others can be elected"),
)  # fmt: skip


def decide(node: NodeSeen) -> Rule:
    """The rule that holds."""
    return next(rule for rule in (AFTER_THE_END if node.ended else WHILE_IT_LIVES) if rule.holds(node))


#: Crash loops: the first pause, the longest, and the life after which the next death is a new story (seconds).
FIRST_PAUSE, LONGEST_PAUSE, LONG_LIFE = 0.2, 10.0, 30.0


def pause_before_start(short_lives: int) -> float:
    """Seconds to wait after so many lives in a row that were shorter than ``LONG_LIFE``; doubles each time."""
    if short_lives <= 0:
        return 0.0
    return float(min(FIRST_PAUSE * 2 ** min(short_lives - 1, 10), LONGEST_PAUSE))


class Act(Enum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    RELOAD = "reload"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do so that what runs is what shall run."""

    unit: str
    act: Act
    because: str


def changes(wanted: Units, running: Mapping[str, str]) -> tuple[Change, ...]:
    """What differs; stops first, then in the order of ``wanted``.

    :param running: by unit's name, the digest it was started (or last reloaded) with.
    """
    names = {unit.name for unit in wanted}
    gone = [Change(name, Act.STOP, "it is no longer in units.json") for name in running if name not in names]
    return (*gone, *(change for unit in wanted if (change := _change(unit, running.get(unit.name))) is not None))


def _change(unit: Unit, digest: str | None) -> Change | None:
    if digest is None:
        return Change(unit.name, Act.START, "it is in units.json and does not run")
    if digest == unit.digest or unit.on_change == "none":
        return None
    return Change(unit.name, Act(unit.on_change), "its configuration changed")
