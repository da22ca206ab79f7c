"""``pgfleet apply``: make the fleet what the file says."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgfleet.cli import view

if TYPE_CHECKING:
    from pgfleet.plan.plan import Plan


def apply(
    context: typer.Context,
    plan: Annotated[
        Path | None, typer.Argument(metavar="PLAN", help="A plan that `plan --out` wrote: this one or nothing.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to steps that delete data.")] = False,
) -> None:
    """Make the fleet what the file says. Safe to interrupt at any moment and to repeat."""
    from pgfleet.cli.commands.plan import show
    from pgfleet.control.apply import apply as perform
    from pgfleet.control.drivers import driver_of

    options = context.obj
    driver, fleet, folder = driver_of(options)
    agreed = _read(plan) if plan is not None else None

    def confirm(made: Plan) -> bool:
        if yes:
            return True
        if options.json:
            return False
        show(made)
        return view.confirm(f"{len(made.destructive)} of these steps delete data. Perform them?")

    began = time.monotonic()
    with view.Steps(silent=options.json) as steps:
        done = asyncio.run(perform(driver, folder, steps, confirm, agreed))
    took = time.monotonic() - began
    if options.json:
        view.document({"fleet": fleet.fleet, "steps": [s.to_json() for s in done.steps], "took_seconds": round(took, 3)})
        return
    what = f"{len(done.steps)} steps" if done.steps else "nothing to do"
    view.line(f"{fleet.fleet}: {what}, {took:.1f} s; the fleet is as the file says")


def _read(path: Path) -> dict[str, object]:
    from pgfleet.errors import FileUnreadable

    try:
        document = json.loads(path.read_text())
        if not isinstance(document, dict) or "steps" not in document:
            raise ValueError("no document that `plan --out` wrote")
    except (OSError, ValueError) as error:
        raise FileUnreadable(f"{path} is no plan", seen=[str(error)], hint=f"pgfleet plan --out {path}") from None
    return document
