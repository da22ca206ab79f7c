"""``script/prove``: one measurement; its tables are printed and written under docs/measured. No"
" name: a list of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

from pgfleet.errors import Unproven
from pgfleet.prove.fleets import CLONE
from pgfleet.prove.machine import machine, versions
from pgfleet.prove.measured import Page, write
from pgfleet.prove.run import run_to_exit
from pgfleet.prove.show import Show

RUNS = {
    "bring-up": "12 nodes from nothing, nothing to do, and back after everything was killed",
    "full": "the whole question bank: time, memory, idle CPU",
    "kills": "killing what a shard's writes depend on, round after round",
    "stop": "a primary that hangs, and comes back",
    "switchover": "a planned change of the primary under load, and where each second goes",
    "reads": "a read-mostly load: who answers, how fast",
    "read-your-writes": "100,000 writes, each read back at once from replicas that lag; and through faults",
    "storm": "200 kills, stops and switchovers under eight processes: nothing lost, doubled, or said wrongly",
    "tasks": "what 5,000 idle and 500 busy tasks cost, and ten minutes of churn leave behind",
    "startup": "how long the command line takes to say something",
}
Run = Callable[[Show, int | None], Coroutine[Any, Any, Page]]


async def measure(name: str, rounds: int | None, show: Show) -> None:
    """:raises Unproven: a limit or a promise was not kept; the page is written all the same."""
    run: Run = import_module(f"pgfleet.prove.runs.{name.replace('-', '_')}").run
    circumstances = machine() | versions()
    show.heading(f"{name}: {RUNS[name]}")
    page = await run(show, rounds)
    for part in page.parts:
        show.say()
        if part.text:
            show.say(part.text)
        show.table(part.columns, part.rows)
    show.say()
    for limit in page.limits:
        show.say(f"{limit}", "" if limit.kept else "bold red")
    for text in page.broken:
        show.say(f"NOT KEPT: {text}", "bold red")
    path = write(page, circumstances, CLONE / "docs" / "measured")
    show.say(f"written to {path.relative_to(CLONE)}")
    if not page.kept:
        wrong = [str(limit) for limit in page.limits if not limit.kept]
        raise Unproven(f"{name}: not everything was kept", seen=[*wrong, *page.broken])


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/prove", description=__doc__)
    parser.add_argument("name", nargs="?", choices=RUNS, metavar="NAME", help="which measurement; without it, a list of them")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often (default: what the page needs)")
    given = parser.parse_args()
    show = Show()
    if given.name is None:
        show.table(("name", "what"), list(RUNS.items()))
        return 0
    return run_to_exit(measure(given.name, given.rounds, show), show)


if __name__ == "__main__":
    raise SystemExit(main())
