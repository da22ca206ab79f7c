"""``pgfleet log``: the journal, as lines or as JSON."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgfleet.cli import view

if TYPE_CHECKING:
    from pgfleet.control.journal import Journal
    from pgfleet.events import Event

#: How often the journal's files are looked at with ``--follow``; a look is three stat(2), and only a change is read.
LOOK_SECONDS = 0.5


def log(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what happens, until interrupted.")] = False,
    since: Annotated[int, typer.Option(metavar="N", min=0, help="Only events numbered above N.")] = 0,
    last: Annotated[int | None, typer.Option("-n", "--last", metavar="N", min=0, help="Only the last N events.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Only check that no row was changed or removed.")] = False,
) -> None:
    """What was done and seen, and because of what.

    Times are UTC. With --follow, --json writes one document per line and event instead of one in all."""
    from pgfleet.control.journal import Journal
    from pgfleet.errors import NotApplied

    fleet = context.obj.fleet().fleet
    path = context.obj.folder(fleet) / "journal.db"
    if not path.exists():
        raise NotApplied(f"fleet {fleet!r} was never applied here", seen=[f"no {path}"], hint="pgfleet apply")
    with Journal(path) as journal:
        if verify:
            _verify(journal, as_json=context.obj.json)
            return
        if last is not None:
            journal.read(limit=0)  # takes over what the keeper wrote, so that the last rows are the last
            since = max(since, journal.head()[0] - last)
        events = journal.read(since)
        if follow:
            try:
                _follow(journal, path, events, as_json=context.obj.json)
            except KeyboardInterrupt:
                raise typer.Exit(130) from None  # nothing was under way that could be said to be stopped
        elif context.obj.json:
            view.document({"fleet": fleet, "events": events})
        else:
            for event in events:
                view.line(line_of(event, today()))


def _follow(journal: Journal, path: Path, events: list[Event], *, as_json: bool) -> None:
    watched = [path, path.with_name(path.name + "-wal"), path.parent / "keeper-events.jsonl"]
    shown = events[-1].number if events else journal.head()[0]
    seen: object = None
    while True:
        for event in events:
            view.line(json.dumps(event.to_json(), ensure_ascii=False) if as_json else line_of(event, today()))
            shown = event.number
        while (looked := [_stamp(file) for file in watched]) == seen:
            time.sleep(LOOK_SECONDS)
        seen = looked
        events = journal.read(shown)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def _verify(journal: Journal, *, as_json: bool) -> None:
    from pgfleet.errors import JournalBroken

    journal.read(limit=0)
    broken = journal.verify()
    number, head = journal.head()
    if broken is not None:
        raise JournalBroken(f"the journal's chain is broken at #{broken} of {number}", seen=[str(journal.path)])
    if as_json:
        view.document({"events": number, "head": head, "kept": True})
    else:
        view.line(f"{number} events, each follows from the one before; head {head}")


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def line_of(event: Event, day: str) -> str:
    """The event's line; its date stands before it unless that is ``day``."""
    return str(event) if event.at.startswith(day) else f"{event.at[:10]} {event}"
