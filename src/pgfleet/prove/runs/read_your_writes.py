"""A hundred thousand writes, each read back at once from replicas that lag: is the reader ever behind itself?"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from pgfleet.names import NodeName
from pgfleet.prove.faults import crash
from pgfleet.prove.fleets import example
from pgfleet.prove.lagging import Lag, Lagging
from pgfleet.prove.measured import Limit, Page, Part
from pgfleet.prove.pairs import WAYS, Callers, Seen, by_shard
from pgfleet.prove.questions import subjects
from pgfleet.prove.runs.ground import ground
from pgfleet.prove.show import Show
from pgfleet.prove.stage import Stage
from pgfleet.providers.local.access import rest_of
from pgfleet.providers.local.keeper.control import KeeperClient

PAIRS, TASKS = 100_000, 48
#: Of the pairs with tokens: those through each of the three events; the others have nothing but lag.
SHARE = 0.1
#: Pairs without tokens, for a pair with one.
WITHOUT = 0.1
#: Seconds for a node to be started again, or to be thrown away and copied.
EVENT_WITHIN = 60.0
#: Where the callers are, and where the client is that is only given the text of a token.
HERE, THERE = "us-east", "us-west"
#: How each shard's replicas lag: all of them, or only the first.
LAGS: dict[str, tuple[Lag, bool]] = {
    "stem": (Lag(paused=(0.005, 0.03), running=(0.002, 0.02)), True),
    "humanities": (Lag(paused=(0.1, 1.5), running=(0.1, 0.5)), False),
    "test-prep": (Lag(paused=(0.05, 0.4), running=(0.05, 0.2)), True),
}
TEXT = (
    f"The fleet of question-bank-demo, {TASKS} callers at a time. A pair is a write that was acknowledged and a read of the same"
    " row by the same caller right after it: by `execute` (an insert, or an update of the caller's own row), by a `write` block"
    " and a `read` block, by `transact`, by a block of five rows of which each is read, and by a read of another client in"
    " another region that is given the token's text (*elsewhere*). A read is *behind* when it does not see what was written."
    " Replay of some replicas is paused and resumed at random meanwhile. Without tokens the same is done with each write in a"
    " context that ends with it: so it is shown that reads would be behind. Then the primary of `stem` and of"
    " `test-prep` is killed, a replica is restarted, and a replica's data is thrown away and cloned again, each under the same"
    " load. The whole run takes about 7 minutes."
)
PHASES = (
    "phase", "tokens", "pairs", "behind", "on replicas", "read: median ms", "p99 ms", "max ms", "pairs/s", "writes failed",
    "reads failed", "told lost",
)  # fmt: skip

Event = Callable[[Stage], Awaitable[None]]


async def run(show: Show, rounds: int | None) -> Page:
    total = rounds or PAIRS
    found: dict[str, Seen] = {}
    through = max(1, int(total * SHARE))
    async with ground(example("question-bank-demo"), show) as (stage, client), stage.client(THERE) as elsewhere:
        written = _written(stage)

        async def phase(name: str, pairs: int, event: Event | None = None, *, carry: bool = True) -> None:
            lags = await _lags(stage)
            with show.step(name) as told:
                async with Lagging(stage.folder, stage.book, lags, len(found)) as lagging:
                    callers = Callers(client, elsewhere, written, carry=carry, seed=len(found))
                    found[name] = await _through(callers, pairs, stage, event)
                told.append(f"{found[name].behind} of {len(found[name].pairs)} behind, {lagging.pauses} pauses;")
            await stage.whole(list(stage.fleet.shards))

        await phase(LAG, total - 3 * through)
        await phase(WITHOUT_TOKENS, max(100, int(total * WITHOUT)), carry=False)
        await phase("two failovers", through, _failovers)
        await phase("a restarted replica", through, _restarted)
        await phase("a replica cloned anew", through, _cloned)
    return page(found, total)


LAG, WITHOUT_TOKENS = "replicas that lag", "replicas that lag, without tokens"


def page(found: dict[str, Seen], total: int) -> Page:
    carried = [seen for name, seen in found.items() if name != WITHOUT_TOKENS]
    without = found[WITHOUT_TOKENS]
    ways = [(way, Seen([p for seen in carried for p in seen.where(way=way).pairs]), without.where(way=way)) for way in WAYS]
    shards = sorted({pair.shard for pair in without.pairs})
    lags = [(f"{name}: {_lag(name)}", by_shard(carried, name), without.where(shard=name)) for name in shards]
    failed = sum((seen.failed for seen in found.values()), start=type(without.failed)())
    columns = ("pairs", "behind", "on replicas", "read: median ms", "p99 ms", "without tokens", "behind")
    return Page(
        "read-your-writes", "Reads that are never behind their caller's writes", TEXT, sum(len(seen.pairs) for seen in carried),
        (
            Part(PHASES, tuple(_row(name, seen) for name, seen in found.items())),
            Part(("by", *columns), tuple(_with_and_without(*one) for one in ways)),
            Part(("shard", *columns), tuple(_with_and_without(*one) for one in lags)),
            Part(("instead of an answer", "how many"), tuple(sorted(failed.items())), "What calls ended with, all phases:"),
        ),
        (
            Limit("reads with a token that were behind", sum(seen.behind for seen in carried), 0, ""),
            Limit("reads that were told that a write is lost", sum(len(seen.told_lost) for seen in carried), 0, ""),
            Limit("reads without a token that were behind", without.behind, 1, "", least=True),
            Limit("pairs with a token", sum(len(seen.pairs) for seen in carried), total, "", least=True),
        ),
        tuple(text for seen in carried for text in (*seen.examples[:3], *seen.told_lost[:3])),
    )  # fmt: skip


def _row(name: str, seen: Seen) -> tuple[Any, ...]:
    writes = sum(n for kind, n in seen.failed.items() if kind.startswith("write"))
    return (
        name, name != WITHOUT_TOKENS, len(seen.pairs), seen.behind, f"{seen.replica_share:.1%}",
        *(round(seen.read_ms(part), 2) for part in (0.5, 0.99, 1.0)), round(len(seen.pairs) / max(seen.seconds, 0.001)),
        writes, sum(seen.failed.values()) - writes, len(seen.told_lost),
    )  # fmt: skip


def _with_and_without(name: str, carried: Seen, without: Seen) -> tuple[Any, ...]:
    times = (round(carried.read_ms(part), 2) for part in (0.5, 0.99))
    share = f"{without.behind / len(without.pairs):.1%}" if without.pairs else ""
    return name, len(carried.pairs), carried.behind, f"{carried.replica_share:.1%}", *times, len(without.pairs), share


def _lag(shard: str) -> str:
    if shard not in LAGS:
        return "as they are"
    lag, everyone = LAGS[shard]
    return f"{'all replicas' if everyone else 'one replica'} {lag}"


def _written(stage: Stage) -> dict[str, str]:
    found: dict[str, str] = {}
    for subject in subjects():
        found.setdefault(stage.placement.shard("questions", subject).shard, subject)
    return found


async def _lags(stage: Stage) -> dict[NodeName, Lag]:
    """Who lags now: never a primary."""
    found: dict[NodeName, Lag] = {}
    for shard, (lag, everyone) in LAGS.items():
        replicas = await _replicas(stage, shard)
        found |= dict.fromkeys(replicas if everyone else replicas[:1], lag)
    return found


async def _replicas(stage: Stage, shard: str) -> list[NodeName]:
    primary = await stage.primary(shard)
    return [name for name in stage.nodes(shard) if name != primary]


async def _through(callers: Callers, pairs: int, stage: Stage, event: Event | None) -> Seen:
    """Until there are ``pairs``, and what happens meanwhile is over."""
    if event is None:
        return await callers.run(TASKS, lambda seen: len(seen.pairs) >= pairs)
    async with asyncio.TaskGroup() as group:
        happening = group.create_task(_during(stage, event))
        return await callers.run(TASKS, lambda seen: len(seen.pairs) >= pairs and happening.done())


async def _during(stage: Stage, event: Event) -> None:
    await asyncio.sleep(1.0)
    await event(stage)
    await asyncio.sleep(1.0)


async def _failovers(stage: Stage) -> None:
    for shard in ("stem", "test-prep"):
        await crash(stage.folder, await stage.primary(shard), ())
        await asyncio.sleep(0.5)
        await stage.whole([shard])


async def _restarted(stage: Stage) -> None:
    replica = random.choice(await _replicas(stage, "stem"))
    keeper, unit = KeeperClient(stage.folder), f"node/{replica}"

    async def started() -> float | None:
        seen = (await keeper.status()).unit(unit)
        return seen.started if seen is not None else None

    before = await started()
    await keeper.restart(unit, "it is measured what readers notice")
    async with asyncio.timeout(EVENT_WITHIN):
        while await started() in (None, before):
            await asyncio.sleep(0.1)
    await stage.whole(["stem"])


async def _cloned(stage: Stage) -> None:
    replica = random.choice(await _replicas(stage, "test-prep"))
    node = stage.book.node(replica)
    assert node is not None  # noqa: S101 - of this fleet
    made = stage.folder / "nodes" / replica.shard / replica.member / "data" / "PG_VERSION"  # it comes with the copy
    before = made.stat().st_mtime_ns
    await rest_of(stage.folder, node).change("POST", "/reinitialize", {"force": True})
    async with asyncio.timeout(EVENT_WITHIN):
        while not made.exists() or made.stat().st_mtime_ns == before:
            await asyncio.sleep(0.1)
    await stage.whole(["test-prep"])
