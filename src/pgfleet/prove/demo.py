"""``script/demo``: a fleet from one file, questions in it, an application on it, and its primary killed under it."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgfleet.errors import AlreadyThere, Unproven
from pgfleet.prove.experiment import Observed, Timing, observe
from pgfleet.prove.faults import Struck, crash
from pgfleet.prove.fleets import CLONE, SCHEMA, balanced, listing
from pgfleet.prove.live import tell_every_second
from pgfleet.prove.load import Application
from pgfleet.prove.loading import Loaded, load_questions
from pgfleet.prove.outcome import judged, summary
from pgfleet.prove.questions import Question, by_subject, generate, read_questions, subjects
from pgfleet.prove.run import run_to_exit
from pgfleet.prove.show import Show
from pgfleet.prove.stage import Stage, fresh_root, open_stage

EXAMPLE = CLONE / "examples" / "question-bank-demo.yaml"
#: Where the application stands.
REGION = "us-east"
#: Of the load's seconds: when the primary is killed.
STRIKE_AT = 0.35
#: Seconds in which the counts of all shards must agree with what was acknowledged (replicas may be behind by a moment).
COUNTS_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """:param state: the state root; None: a fresh folder, removed at the end unless ``keep``."""

    questions: Path | None
    keep: bool
    state: Path | None
    seconds: float
    per_subject: int
    json: bool


def options(argv: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__)
    parser.add_argument("--questions", type=Path, metavar="FILE", help="load these (.jsonl or .jsonl.gz) instead of generating")
    parser.add_argument("--keep", action="store_true", help="leave the fleet up and say how to look at it")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where its state goes (default: a temporary folder)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="N", help="how long the application runs (default 20)")
    parser.add_argument("--per-subject", type=int, default=2000, metavar="N", help="questions to generate (default 2000)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, everything else on stderr")
    given = parser.parse_args(argv)
    if given.seconds < 5:
        parser.error("--seconds: an application needs 5 s or more to notice anything")
    return Options(given.questions, given.keep, given.state, given.seconds, given.per_subject, given.json)


async def demo(asked: Options, show: Show) -> None:
    """:raises Unproven: a promise was not kept."""
    root = asked.state.absolute() if asked.state else await asyncio.to_thread(fresh_root, "pgfleet-demo-")
    questions = await asyncio.to_thread(_questions, asked)
    file = _file(asked, root, questions)
    stage = open_stage(file, root)
    if stage.folder.exists():
        raise AlreadyThere(f"there is a fleet {stage.fleet.fleet} in {root} already", hint=f"{_command(stage)} destroy")
    done = False
    try:
        document = await _show_it(asked, stage, questions, show)
        done = True
    finally:
        if not (done and asked.keep):
            with show.step("the fleet is taken down"):
                await stage.destroy()
            if asked.state is None:
                await asyncio.to_thread(shutil.rmtree, root)
    if asked.keep:
        _say_how_to_look(stage, show, temporary=asked.state is None)
    if asked.json:
        show.document(document)
    if not document["kept"]:
        raise Unproven("the promise was not kept", seen=[f"{name}: {value}" for name, value in document["verdict"].items()])


def _questions(asked: Options) -> dict[str, list[Question]]:
    if asked.questions is not None:
        return by_subject(read_questions(asked.questions))
    return {subject: list(generate(subject, asked.per_subject)) for subject in subjects()}


def _file(asked: Options, root: Path, questions: Mapping[str, Sequence[Question]]) -> Path:
    """The example; for a file of other subjects a copy that lists each of them on one of the shards."""
    if asked.questions is None:
        return EXAMPLE
    shards = ["certification", "stem", "humanities", "test-prep"]
    placed = balanced({subject: len(rows) for subject, rows in questions.items()}, shards)
    root.mkdir(parents=True, exist_ok=True)
    file = root / "question-bank-demo.yaml"
    file.write_text(listing(placed), encoding="utf-8")
    return file


async def _show_it(asked: Options, stage: Stage, questions: Mapping[str, list[Question]], show: Show) -> dict[str, Any]:
    shards = list(stage.fleet.shards)
    nodes = sum(len(stage.nodes(shard)) for shard in shards)
    show.heading(f"1 · {_name(stage.file)} → {nodes} PostgreSQL nodes in {len(shards)} shards")
    if asked.questions is not None:
        show.say(f"  the example's fleet, each of the {len(questions)} subjects of {asked.questions} listed on a shard")
    applied, _ = await stage.apply(show)
    await stage.whole(shards)
    show.say(f"  all streaming, reachable through every endpoint: {applied:.1f} s", "bold")
    with show.step("schema") as told:
        told.append(f"{await stage.migrate(SCHEMA)} files applied")

    async with stage.client(REGION) as client:
        show.heading(f"2 · {sum(map(len, questions.values())):,} questions in {len(questions)} subjects")
        loaded = await _load(client, stage, questions, show)
        counts = await _count(client)
        _tell_counts(stage, counts, show)
        if counts != loaded.by_subject:
            raise Unproven("what was loaded is not what everywhere() counts", seen=_differences(loaded.by_subject, counts))

        shard = _largest(stage, counts)
        show.heading(f"3 · an application for {asked.seconds:g} s; the primary of {shard} is killed under it")
        observed = await _run(asked, client, stage, shard, loaded, show)
        show.heading("4 · what the application saw")
        show.table(("", ""), summary(observed))
        await stage.whole(shards)
        show.say("  the killed node is back as a replica; every node streams")
        written = await _count_again(client, loaded, observed)
        show.say(f"  everywhere() counts {sum(written.values()):,} questions: all that were acknowledged are there")
    return judged(observed) | {
        "fleet": stage.fleet.fleet, "nodes": nodes, "applied_seconds": round(applied, 2), "loaded_rows": loaded.rows,
        "placed": {subject: stage.placement.shard("questions", subject).shard for subject in counts},
        "questions_before": counts,
        "loaded_rows_per_second": round(loaded.rows_per_second), "questions": written,
    }  # fmt: skip


async def _load(client: Any, stage: Stage, questions: Mapping[str, list[Question]], show: Show) -> Loaded:
    with show.step("loaded with COPY, all shards at once") as told:
        with show.bar("questions", sum(map(len, questions.values()))) as advance:
            loaded = await load_questions(client, stage.placement, questions, advance)
        told.append(f"{loaded.rows_per_second:,.0f} rows/s")
    return loaded


async def _count(client: Any) -> dict[str, int]:
    rows = await client.everywhere(
        "questions", "select subject, count(*) as n from questions group by subject", order_by="subject"
    )
    return {row["subject"]: row["n"] for row in rows}


async def _count_again(client: Any, loaded: Loaded, observed: Observed) -> dict[str, int]:
    """Count until every acknowledged row is counted.

    :raises Unproven: some are not, or there are more than anybody wrote.
    """
    least = loaded.rows + len(observed.acks)
    until = time.monotonic() + COUNTS_WITHIN
    while True:
        counts = await _count(client)
        if least <= sum(counts.values()) <= least + observed.uncertain:
            return counts
        if time.monotonic() > until:
            raise Unproven(
                f"everywhere() counts {sum(counts.values())} questions",
                seen=[f"{loaded.rows} loaded, {len(observed.acks)} acknowledged, {observed.uncertain} uncertain"],
            )
        await asyncio.sleep(0.2)


def _differences(wanted: Mapping[str, int], counted: Mapping[str, int]) -> list[str]:
    names = sorted({*wanted, *counted})
    return [f"{n}: {wanted.get(n, 0)} loaded, {counted.get(n, 0)} counted" for n in names if wanted.get(n) != counted.get(n)]


def _tell_counts(stage: Stage, counts: Mapping[str, int], show: Show) -> None:
    placed = {subject: stage.placement.shard("questions", subject) for subject in counts}
    order = sorted(counts, key=lambda s: (list(stage.fleet.shards).index(placed[s].shard), s))
    rows = [(placed[s].shard, s, f"{counts[s]:>7,}", placed[s].because) for s in order]
    show.table(("shard", "subject", "questions", "because"), rows)
    by_shard: dict[str, int] = {}
    for subject, count in counts.items():
        by_shard[placed[subject].shard] = by_shard.get(placed[subject].shard, 0) + count
    show.say(f"  in all {sum(counts.values()):,}: " + ", ".join(f"{s} {n:,}" for s, n in sorted(by_shard.items())))


def _largest(stage: Stage, counts: Mapping[str, int]) -> str:
    """The shard to hit: the one that holds most."""
    held: dict[str, int] = {}
    for subject, count in counts.items():
        shard = stage.placement.shard("questions", subject).shard
        held[shard] = held.get(shard, 0) + count
    return max(held, key=lambda shard: held[shard])


async def _run(asked: Options, client: Any, stage: Stage, shard: str, loaded: Loaded, show: Show) -> Observed:
    placed: dict[str, list[str]] = {}
    for subject in loaded.by_subject:
        placed.setdefault(stage.placement.shard("questions", subject).shard, []).append(subject)
    application = Application(client, placed, focus=shard)
    before = asked.seconds * STRIKE_AT

    async def strike() -> Struck:
        primary = await stage.primary(shard)
        struck = await crash(stage.folder, primary, ())
        show.say(f"  ⚡ {primary}, the primary: {struck.told} (SIGKILL)", "bold red")
        return struck

    crash_promise = stage.fleet.promises_of(shard).crash
    return await observe(
        stage, application, shard, "crash", strike,
        promise=crash_promise.rto if crash_promise else None,
        timing=Timing(before, asked.seconds - before),
        live=lambda running, began: tell_every_second(running, began, shard, show),
    )  # fmt: skip


def _name(file: Path) -> str:
    return str(file.relative_to(CLONE)) if file.is_relative_to(CLONE) else str(file)


def _command(stage: Stage) -> str:
    return f".venv/bin/pgfleet -f {_name(stage.file)} --state {stage.root}"


def _say_how_to_look(stage: Stage, show: Show, *, temporary: bool) -> None:
    shard = next(iter(stage.fleet.shards))
    pooler = stage.book.poolers[0]
    command = _command(stage)
    password = stage.folder / "secrets" / "pgfleet_app"
    psql = f'psql "host={pooler.host} port={pooler.port} dbname={shard}_rw user=pgfleet_app"'
    show.heading("The fleet stays up. To look at it:")
    for line in (
        f"{command} status",
        f"{command} sql --shard {shard} -c 'select subject, count(*) from questions group by 1'",
        f'PGPASSWORD="$(cat {password})" {psql}',
        f"{command} switchover {shard}",
        f"{command} log",
        f"{command} destroy --yes" + (f" && rm -r {stage.root}" if temporary else ""),
    ):
        show.say(f"  {line}")


def main() -> int:
    asked = options()
    show = Show(as_json=asked.json)
    return run_to_exit(demo(asked, show), show, as_json=asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
