"""Lookups without servers: a world in which a test decides what happens next, what is lost, and what arrives late.

The code under test is the real one; only PostgreSQL is played. Every statement that a process sends waits here until the test
picks it: it is done and answered; or done, and the answer lost; or lost on its way, to arrive later, when nobody waits for
it any more; or its process dies. What real servers cannot be made to do at will.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from pgfleet.client import lookup_entry as sql_of
from pgfleet.client.lookups import Lookups
from pgfleet.errors import AlreadyClaimed, ClaimVoided, DeadlineExceeded, NotTheirs, OutcomeUnknown
from pgfleet.routing.placement import Placement
from pgfleet.runtime.clock import Deadline
from pgfleet.spec.load import load

PLACEMENT = Placement.of(
    load(
        "f",
        """\
fleet: f
regions: {r: {}}
shards: {a: {}, b: {}, c: {}}
tables: {users: {key: region, place: {a: [us], b: [eu]}, lookups: {email: {columns: [email], over: [c]}}}}
""",
    )
)
OWNERS = {"us": "a", "eu": "b"}


class Died(BaseException):
    """This process is gone."""


class Overtaken(Exception):
    """The application's statement changed no row."""


class Blocked(Exception):
    """A statement waits for another one's transaction."""


@dataclass
class Transaction:
    shard: str
    write: UUID | None = None
    row: tuple[str, str | None, str | None] | None = None


@dataclass
class Sent:
    """One statement on its way. :param act: what it does, and answers. :raises Blocked: not yet."""

    who: str
    what: str
    act: Callable[[], Any]
    answer: asyncio.Future[Any]
    transaction: Transaction | None = None


@dataclass
class Late:
    """What nobody waits for any more.

    :param transaction: whose connection is gone: it is rolled back afterwards.
    :param sure: it cannot be lost.
    """

    act: Callable[[], Any]
    transaction: Transaction | None = None
    sure: bool = False


@dataclass
class World:
    """:param now: grows by one with every event; the age of entries is counted by it, in seconds."""

    entries: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[tuple[str, UUID], bool] = field(default_factory=dict)
    rows: list[tuple[str, str]] = field(default_factory=list)
    open: list[Transaction] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    now: int = 0

    # -- what processes do -----------------------------------------------------------------------------------------------

    async def send(self, who: str, what: str, act: Callable[[], Any], transaction: Transaction | None = None) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.sent.append(Sent(who, what, act, answer, transaction))
        return await answer

    def lookups(self, who: str, grace: float) -> Lookups:
        async def on(shard: str, sql: str, *args: Any, deadline: Deadline) -> Sequence[Any]:
            rows: Sequence[Any] = await self.send(who, sql.split()[0], lambda: self.run(shard, sql, args))
            return rows

        return Lookups(lambda: PLACEMENT, on, grace=grace, pause=0.0)

    async def write(self, who: str, region: str, old: str | None, new: str | None, grace: float) -> bool:
        """A whole write, as an application makes it; whether it was told that it is committed."""
        claiming = self.lookups(who, grace).claiming(
            "users", key=region, owner=OWNERS[region], claims={"email": new}, releases={"email": old}
        )
        try:
            async with claiming.held(Deadline.after(3600)) as id_:
                doing = Transaction(OWNERS[region])
                try:
                    await self.send(who, "outcome", lambda: self.begin(doing, id_), doing)
                    await self.send(who, "row", lambda: self.change(doing, (region, old, new)), doing)
                except OutcomeUnknown as error:
                    raise ConnectionResetError("COMMIT was never sent") from error
                except Exception:
                    self.abort(doing)
                    raise
                await self.send(who, "commit", lambda: self.commit(doing), doing)
        except (AlreadyClaimed, NotTheirs, ClaimVoided, Overtaken, ConnectionResetError, OutcomeUnknown, DeadlineExceeded):
            return False
        return True

    # -- what PostgreSQL does --------------------------------------------------------------------------------------------

    def begin(self, doing: Transaction, write: UUID) -> None:
        self._wait_for(lambda other: other.shard == doing.shard and other.write == write, doing)
        self.open.append(doing)
        if (doing.shard, write) in self.outcomes:
            raise ClaimVoided("void")
        doing.write = write

    def change(self, doing: Transaction, row: tuple[str, str | None, str | None]) -> None:
        region, old, _ = row
        if old is not None:
            self._wait_for(lambda other: other.row is not None and other.row[:2] == (region, old), doing)
            if (region, old) not in self.rows:
                raise Overtaken
        doing.row = row

    def commit(self, doing: Transaction) -> None:
        if doing not in self.open:
            return  # it was rolled back, when its connection went
        self.open.remove(doing)
        assert doing.write is not None
        assert doing.row is not None
        self.outcomes[doing.shard, doing.write] = True
        region, old, new = doing.row
        if old is not None:
            self.rows.remove((region, old))
        if new is not None:
            self.rows.append((region, new))
        emails = [email for _, email in self.rows]
        assert len(set(emails)) == len(emails), f"two owners: {self.rows}"

    def abort(self, doing: Transaction) -> None:
        if doing in self.open:
            self.open.remove(doing)

    def _wait_for(self, blocks: Callable[[Transaction], bool], doing: Transaction | None) -> None:
        if any(other is not doing and blocks(other) for other in self.open):
            raise Blocked

    def run(self, shard: str, sql: str, args: tuple[Any, ...]) -> list[list[Any]]:
        """The statements of ``client/lookup_entry.py``, by what they are."""
        if sql == sql_of._PEEK:
            known = self.outcomes.get((shard, args[0]))
            return [] if known is None else [[known]]
        if sql == sql_of._DECIDE:
            write, patience = args
            try:
                self._wait_for(lambda other: other.shard == shard and other.write == write, None)
            except Blocked:
                if int(patience.removesuffix("ms")) < 1000:
                    raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout") from None
                raise
            return [[self.outcomes.setdefault((shard, write), False)]]
        if sql == sql_of._OLD:
            undecided = [(at, entry) for at, entry in self.entries.items() if not entry["confirmed"] or entry["releasing"]]
            return [[*at, *self._columns(entry)] for at, entry in undecided]
        return self._entry(sql, args)

    def _entry(self, sql: str, args: tuple[Any, ...]) -> list[list[Any]]:
        at, more = args[:3], args[3:]
        entry = self.entries.get(at)
        if sql in (sql_of._CLAIM, sql_of._VACATE) and entry is None:
            key, second, owner, reservation = more
            vacant = sql == sql_of._VACATE
            entry = self.entries[at] = {
                "key": key, "second": second, "owner": owner, "reservation": reservation, "confirmed": False,
                "releasing": reservation if vacant else None, "releasing_on": owner if vacant else None, "at": self.now,
            }  # fmt: skip
        if entry is None:
            return []
        if sql in (sql_of._CLAIM, sql_of._VACATE, sql_of._READ):
            return [self._columns(entry)]
        if sql == sql_of._RELEASE:
            write, shard, seen = more
            if entry["reservation"] != seen or not entry["confirmed"] or entry["releasing"]:
                return []
            entry |= {"releasing": write, "releasing_on": shard, "at": self.now}
            return [[True]]
        (write,) = more
        claimed_by = entry["reservation"] == write and not entry["confirmed"]
        released_by = entry["releasing"] == write
        if sql == sql_of._CONFIRM and claimed_by and not entry["releasing"]:
            entry["confirmed"] = True
        elif sql == sql_of._KEEP and released_by and entry["confirmed"]:
            entry |= {"releasing": None, "releasing_on": None}
        elif (sql == sql_of._WITHDRAW and claimed_by) or (sql in (sql_of._VACANT, sql_of._KEEP) and released_by):
            del self.entries[at]
        return []

    def _columns(self, entry: dict[str, Any]) -> list[Any]:
        return [*(value for name, value in entry.items() if name != "at"), float(self.now - entry["at"])]

    # -- what the test does ----------------------------------------------------------------------------------------------

    def deliver(self, sent: Sent, *, answered: bool = True) -> bool:
        """Do a statement, and answer it or lose the answer; false: it is blocked."""
        try:
            result: Any = sent.act()
        except Blocked:
            return False
        except (ClaimVoided, Overtaken, asyncpg.PostgresError) as error:
            result = error
        self.sent.remove(sent)
        if not answered:
            self._cut_off(sent.transaction)
            result = OutcomeUnknown("no answer")
        if isinstance(result, Exception):
            sent.answer.set_exception(result)
        else:
            sent.answer.set_result(result)
        return True

    def lose(self, sent: Sent) -> None:
        """Its process hears nothing; it arrives later, or never."""
        self.sent.remove(sent)
        self.late.append(Late(sent.act, sent.transaction))
        sent.answer.set_exception(OutcomeUnknown("no answer"))

    def die(self, who: str) -> None:
        """A process ends; what it has sent may still arrive."""
        for sent in [each for each in self.sent if each.who == who]:
            self.sent.remove(sent)
            self.late.append(Late(sent.act, sent.transaction))
            sent.answer.set_exception(Died())

    def arrive(self, which: int, *, at_all: bool = True) -> None:
        """A statement whose process does not wait for it; or the connection just ends."""
        late = self.late.pop(which)
        if at_all or late.sure:
            try:
                late.act()
            except Blocked:
                self.late.append(late)
                return
            except (ClaimVoided, Overtaken, asyncpg.PostgresError):
                pass  # told to nobody
        self._cut_off(late.transaction)

    def _cut_off(self, doing: Transaction | None) -> None:
        if doing is not None:
            # The server rolls back when it notices, which takes a while.
            self.late.append(Late(lambda: self.abort(doing), sure=True))
