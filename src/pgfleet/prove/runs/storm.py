"""Two hundred kills, stops and switchovers under eight processes that read and write: what is lost, doubled, or said wrongly?"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pgfleet.prove.evidence import quantile
from pgfleet.prove.fleets import example
from pgfleet.prove.machine import STEPS, cores, yardstick
from pgfleet.prove.measured import Limit, Page, Part
from pgfleet.prove.questions import subjects
from pgfleet.prove.runs.ground import filled
from pgfleet.prove.show import Show
from pgfleet.prove.stage import Stage
from pgfleet.prove.storm import ELECTION, Blow, Stormed, storm
from pgfleet.prove.strikes import DEATHS, KINDS, draw

FAULTS, CALLERS, EVERY = 200, 8, 0.5
#: The environment's variable that repeats a storm.
SEED = "PGFLEET_PROVE_SEED"
WITHIN = 0.6
TEXT = (
    f"The fleet of question-bank-demo (4 shards of 3 PostgreSQL nodes) under {CALLERS} processes, spread over its"
    " regions. The processes run on uvloop and at niceness 5, behind the engines that they share the machine with."
    f" Each writes to every shard every {EVERY * 1000:.0f} ms, by `execute`, by resolvable `write` blocks and by"
    " `transact`, reads a third of that back at once, and reads a question or a page of them every 400 ms besides."
    " One shard at a time, every fourth time two up to 4 s apart, loses or changes its primary: SIGKILL of its"
    " postmaster and Patroni (*crash*), of its Patroni,"
    " of its postmaster; SIGSTOP of all its processes for 1 to 5 s (*stop*: up to 3 s the keeper waits for a stopped"
    " primary, then it ends it); a switchover. Kinds, shards and lengths are drawn from a seed. Each process puts down what was"
    " said of each of its writes; afterwards every row is read back from the primaries. A row tells how often it was"
    " written, and on which timelines. A *gap* is the longest time in which no process' write on the shard was"
    " acknowledged, from just before the fault until the shard is whole; *slowest* is that of the one process that"
    " waited longest. The whole run takes about 30 minutes."
)
#: What is told of several kinds together.
AMONG: dict[str, Callable[[Blow], bool]] = {
    "all deaths": lambda blow: blow.strike.kind in DEATHS,
    "deaths, one at a time": lambda blow: blow.strike.kind in DEATHS and blow.alone,
    "deaths, two at a time": lambda blow: blow.strike.kind in DEATHS and not blow.alone,
}
GAPS = ("fault", "n", "gap: median s", "p95 s", "max s", "slowest: median s", "max s", "whole again: median s", "max s")
BLOWS = ("fault", "shard", "what", "gap s", "slowest s", "whole again s", "told")


async def run(show: Show, rounds: int | None) -> Page:
    seed = int(os.environ.get(SEED) or time.time())
    show.say(f"seed {seed} ({SEED}={seed} repeats it)")
    speed = [await asyncio.to_thread(yardstick)]
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="pgfleet-storm-"))
    try:
        async with filled(example("question-bank-demo"), show) as stage:
            strikes = draw(seed, rounds or FAULTS, list(stage.fleet.shards))
            found = await storm(stage, strikes, placed(stage), folder, show, callers=CALLERS, seed=seed, every=EVERY)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)
    speed.append(await asyncio.to_thread(yardstick))
    return page(found, seed, speed)


def placed(stage: Stage) -> dict[str, list[str]]:
    """The subjects on each shard."""
    found: dict[str, list[str]] = {}
    for subject in subjects():
        found.setdefault(stage.placement.shard("questions", subject).shard, []).append(subject)
    return found


def page(found: Stormed, seed: int, speed: Sequence[float] = ()) -> Page:
    """:param speed: of the machine, before and after: seconds of the yardstick."""
    reckoning = found.reckoning
    deaths = [found.gap(blow) for blow in found.blows if blow.strike.kind in DEATHS]
    limits = [Limit("confirmed deaths: gap, median", quantile(deaths, 0.5), WITHIN)] if deaths else []
    counted = {
        "acknowledged writes that are lost": len(reckoning.lost), "writes done twice": len(reckoning.twice),
        "unknown outcomes that were resolved wrongly": len(reckoning.wrong),
        "writes that an error denied, and that happened": len(reckoning.denied),
        "calls of `execute` and `transact` that failed for another reason than their deadline": len(reckoning.given_up),
        "rows that nobody wrote": len(reckoning.strangers), "reads behind their caller's own writes": len(found.behind),
        "reads that were told that an own write is lost": len(found.told_lost),
        "acknowledgements on an older timeline after a newer one's first": found.late,
    }  # fmt: skip
    limits += [Limit(what, number, 0, "") for what, number in counted.items()]
    limits += [Limit("writers at once", found.writers_at_once, 1, "")]
    return Page(
        "storm", f"{len(found.blows)} faults under {len(found.heard)} processes", f"{TEXT} Seed: {seed}.", len(found.blows),
        (
            Part(GAPS, tuple(_gaps(found, kind) for kind in (*AMONG, *KINDS))),
            Part(("what", "how much"), tuple(_machine(found, speed)), "What the machine had to do, and how quick it was:"),
            Part(("what", "how many"), tuple(_totals(found)), "What was said of the writes, and what the database holds:"),
            Part(("call and error", "how many"), tuple(found.errors.items()), "What calls ended with:"),
            Part(BLOWS, tuple(_blow(found, number, blow) for number, blow in enumerate(found.blows, 1)), "Fault by fault:"),
        ),
        tuple(limits),
        (*found.broken, *_examples(found)),
    )  # fmt: skip


def _gaps(found: Stormed, kind: str) -> tuple[Any, ...]:
    among = AMONG.get(kind)
    blows = [blow for blow in found.blows if (among(blow) if among is not None else blow.strike.kind == kind)]
    gaps, slowest = [found.gap(blow) for blow in blows], [found.slowest(blow) for blow in blows]
    whole = [blow.until - blow.at for blow in blows]
    if not blows:
        return (kind, 0, *(None,) * 7)
    return (
        kind, len(blows), quantile(gaps, 0.5), quantile(gaps, 0.95), max(gaps), quantile(slowest, 0.5), max(slowest),
        quantile(whole, 0.5), max(whole),
    )  # fmt: skip


def _machine(found: Stormed, speed: Sequence[float]) -> list[tuple[str, str]]:
    told = []
    if found.calm:
        told.append((f"busy in the second before a fault, of {cores()} cores: median", f"{quantile(found.calm, 0.5):.2f}"))
    if deaths := [blow.busy for blow in found.blows if blow.strike.kind in DEATHS]:
        told.append((f"busy in the {ELECTION:g} s after a death: median", f"{quantile(deaths, 0.5):.2f}"))
    told += [
        (f"{STEPS // 10**6} million additions in Python, {when}", f"{took:.2f} s")
        for when, took in zip(("before", "after"), speed, strict=False)
    ]
    return told


def _blow(found: Stormed, number: int, blow: Blow) -> tuple[Any, ...]:
    strike = blow.strike
    return number, strike.shard, strike.kind, found.gap(blow), found.slowest(blow), blow.until - blow.at, blow.told


def _totals(found: Stormed) -> list[tuple[str, int]]:
    reckoning, heard = found.reckoning, found.heard
    said = [(f"writes: {word}", count) for word, count in reckoning.said.items()]
    return [
        *said,
        ("  of the unknown, there", reckoning.unknown_there),
        ("unknown outcomes that were resolved", reckoning.resolved),
        ("timelines, all shards", sum(len(found.reigns(shard)) for shard in found.timelines)),
        ("reads", sum(one.summary.reads for one in heard)),
        ("  by replicas", sum(one.summary.on_replicas for one in heard)),
        ("  of an own write, at once", sum(one.summary.read_back for one in heard)),
    ]


def _examples(found: Stormed) -> list[str]:
    """The first few of what must not be, so that the page says where to look."""
    reckoning = found.reckoning
    listed = {
        "lost": reckoning.lost, "done twice": reckoning.twice, "resolved wrongly": reckoning.wrong, "denied": reckoning.denied,
        "given up": reckoning.given_up,
    }  # fmt: skip
    told = [f"{what}: {entry.to_line()}" for what, entries in listed.items() for entry in entries[:5]]
    return [*told, *(f"behind: {t}" for t in found.behind[:5]), *(f"said to be lost: {t}" for t in found.told_lost[:5])]
