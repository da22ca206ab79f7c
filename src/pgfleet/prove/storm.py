"""Fault after fault on a fleet that several processes read and write, and what they and the database say of it afterwards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from pgfleet.errors import PgfleetError
from pgfleet.names import NodeName
from pgfleet.prove import faults, machine
from pgfleet.prove.callers import Callers, Heard, everyone
from pgfleet.prove.evidence import Reign, late, reigns, writers_at_once
from pgfleet.prove.ledger import Entry, Reckoning, reckon
from pgfleet.prove.show import Show
from pgfleet.prove.stage import Stage
from pgfleet.prove.strikes import Strike, gap_around
from pgfleet.prove.writing import applied
from pgfleet.providers.local.access import connect_as

#: Seconds of load before the first fault, and between a shard that is whole again and the next fault.
BEFORE, BETWEEN = 3.0, 1.0
#: Seconds after a fault in which a primary is replaced.
ELECTION = 0.6
#: Seconds that are watched after a fault, at least.
AFTER = 3.0
#: Seconds for one statement that reads rows back.
READ_BACK_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Blow:
    """A strike that was made.

    :param at: before its first signal. :param until: when the shard was whole again.
    :param busy: cores that were busy in the :data:`ELECTION` seconds that followed. :param alone: no other shard was struck.
    """

    strike: Strike
    at: float
    until: float
    told: str
    busy: float = 0.0
    alone: bool = True


@dataclass(frozen=True, slots=True)
class Stormed:
    """:param heard: a process each. :param broken: what ended the storm before its time, as sentences.
    :param calm: cores that were busy in the :data:`BETWEEN` seconds before a fault."""

    blows: tuple[Blow, ...]
    heard: tuple[Heard, ...]
    entries: tuple[Entry, ...]
    reckoning: Reckoning
    timelines: dict[str, list[tuple[float, int]]]
    broken: tuple[str, ...] = ()
    calm: tuple[float, ...] = ()
    _times: dict[tuple[str, int | None], list[float]] = field(default_factory=dict)

    def gap(self, blow: Blow) -> float:
        """The longest time around ``blow`` in which no process' write was acknowledged."""
        return gap_around(self._acknowledged(blow.strike.shard, None), blow.at, blow.until)

    def slowest(self, blow: Blow) -> float:
        """The same for the one process that had to wait longest."""
        shard = blow.strike.shard
        return max(gap_around(self._acknowledged(shard, n), blow.at, blow.until) for n in range(len(self.heard)))

    def reigns(self, shard: str) -> tuple[Reign, ...]:
        return reigns(self.timelines.get(shard, ()))

    @property
    def writers_at_once(self) -> int:
        return max((writers_at_once(self.reigns(shard)) for shard in self.timelines), default=0)

    @property
    def late(self) -> int:
        return sum(late(rows) for rows in self.timelines.values())

    @property
    def behind(self) -> list[str]:
        return [told for one in self.heard for told in one.summary.behind]

    @property
    def told_lost(self) -> list[str]:
        return [told for one in self.heard for told in one.summary.told_lost]

    @property
    def errors(self) -> dict[str, int]:
        """What calls ended with, all processes together: writes by kind of call, reads."""
        found = Counter(self.reckoning.errors)
        for one in self.heard:
            found.update({name if name.startswith("read") else f"read: {name}": n for name, n in one.summary.read_errors.items()})
        return dict(sorted(found.items()))

    def _acknowledged(self, shard: str, number: int | None) -> list[float]:
        times = self._times.get((shard, number))
        if times is None:
            entries = self.entries if number is None else self.heard[number].entries
            times = sorted(entry.at for entry in entries if entry.shard == shard and entry.said == "acknowledged")
            self._times[shard, number] = times
        return times


async def storm(
    stage: Stage, strikes: Sequence[Sequence[Strike]], readable: dict[str, list[str]], folder: Path, show: Show,
    *, callers: int, seed: int, every: float,
) -> Stormed:  # fmt: skip
    """Run ``callers`` processes, strike, and reckon.

    :param readable: subjects by shard; the first of each is written to. :param folder: for ledgers; it must be there.
    :param every: seconds between two writes of one process on one shard.
    """
    blows: list[Blow] = []
    broken: list[str] = []
    calm: list[float] = []
    async with Callers(stage, callers, folder, readable, seed, every) as running:
        await asyncio.sleep(BEFORE)
        for number, group in enumerate(strikes, 1):
            told = ", ".join(f"{one.kind} {one.shard}" for one in group)
            try:
                with show.step(f"{number} of {len(strikes)}: {told}") as words:
                    made = await _strike_all(stage, group)
                    blows += made
                    words.append("; ".join(f"whole after {blow.until - blow.at:.1f} s" for blow in made))
            except (PgfleetError, TimeoutError) as error:
                broken.append(f"the storm ended with fault {number} ({told}): {str(error).splitlines()[0]}")
                break
            if running.alive() < callers:
                break  # stop() has its last words
            calm.append(await _busy(BETWEEN))
        with show.step("the callers end, and ask what became of what is unknown"):
            heard = await running.stop()
    with show.step("every row is read back") as words:
        held = await _read_back(stage, {shard: subjects[0] for shard, subjects in readable.items()})
        words.append(f"{len(held)} rows")
    entries = everyone(heard)
    timelines: dict[str, list[tuple[float, int]]] = {}
    for entry in entries:
        # Of a transact an unknown COMMIT may have been asked about: its acknowledgement is then later than its timeline.
        if entry.said == "acknowledged" and entry.how != "transact" and len(held.get(entry.id, ())) == 1:
            timelines.setdefault(entry.shard, []).append((entry.at, held[entry.id][0]))
    return Stormed(tuple(blows), tuple(heard), entries, reckon(entries, held), timelines, tuple(broken), tuple(calm))


async def _strike_all(stage: Stage, group: Sequence[Strike]) -> list[Blow]:
    shards = [strike.shard for strike in group]
    topologies = await stage.whole(shards)
    primaries = [topologies[shard].primary for shard in shards]
    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(_strike(stage, one, who)) for one, who in zip(group, primaries, strict=True) if who is not None]
    return [replace(task.result(), alone=len(made) == 1) for task in made]


async def _strike(stage: Stage, strike: Strike, primary: NodeName) -> Blow:
    await asyncio.sleep(strike.after)
    (at, told), busy = await asyncio.gather(_made(stage, strike, primary), _busy(ELECTION))
    await asyncio.sleep(max(0.0, at + AFTER - time.monotonic()))
    await stage.whole([strike.shard])
    return Blow(strike, at, time.monotonic(), told, busy)


async def _busy(seconds: float) -> float:
    """Cores that are busy in the next ``seconds``."""
    began, before = time.monotonic(), machine.busy()
    await asyncio.sleep(seconds)
    return (machine.busy() - before) / (time.monotonic() - began)


async def _made(stage: Stage, strike: Strike, primary: NodeName) -> tuple[float, str]:
    match strike.kind:
        case "switchover":
            at = time.monotonic()
            return at, f"{(await stage.driver.switch_over(strike.shard, None)).member} is primary"
        case "stop":
            struck = await faults.stop(stage.folder, primary, ())
            try:
                await asyncio.sleep(strike.seconds)
            finally:
                went_on = struck.resume()
            return struck.at, f"{struck.told} for {strike.seconds:g} s; {went_on} went on"
        case _:
            struck = await faults.KILLS[strike.kind](stage.folder, primary, ())
            return struck.at, struck.told


async def _read_back(stage: Stage, subjects: dict[str, str]) -> dict[UUID, tuple[int, ...]]:
    """What each shard's primary holds of its subject."""
    held: dict[UUID, tuple[int, ...]] = {}
    for shard, subject in subjects.items():
        node = stage.book.node(await stage.primary(shard))
        assert node is not None  # noqa: S101 - it is of this fleet
        connection = await connect_as(stage.folder, node, "pgfleet_app", stage.book.database, timeout=READ_BACK_WITHIN)
        try:
            held |= await applied(connection, [subject])
        finally:
            await connection.close()
    return held
