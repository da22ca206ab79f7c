"""``pgfleet plan``: what apply would do, because of what, at which risk, and how to undo it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgfleet.cli import view

if TYPE_CHECKING:
    from pgfleet.plan.plan import Plan


def plan(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Also write the plan as JSON.")] = None,
) -> None:
    """Show what `apply` would do now. Changes nothing."""
    from pgfleet.control.apply import look
    from pgfleet.control.drivers import driver_of

    driver, _, _ = driver_of(context.obj)
    made, _, _ = asyncio.run(look(driver))
    if out is not None:
        _write(made, out)
    if context.obj.json:
        view.document(made.to_json())
    else:
        show(made)


def _write(made: Plan, out: Path) -> None:
    from json import dumps

    from pgfleet.errors import FileUnreadable

    try:
        out.write_text(dumps(made.to_json(), indent=1) + "\n")
    except OSError as error:
        raise FileUnreadable(f"{out} cannot be written", seen=[str(error)], hint="pgfleet plan --out plan.json") from None


def show(made: Plan) -> None:
    """Steps with because, risk and undo; one line when there is nothing to do."""
    for note in made.notes:
        view.note(f"note: {note}")
    if not made.steps:
        view.line(f"{made.fleet}: nothing to do" + ("" if made.notes else "; the fleet is as the file says"))
        return
    for step in made.steps:
        view.line(f"{_mark(step.act.value)} {view.paint(step.title, 'bold')}")
        view.line(f"    because  {step.because}")
        view.line(f"    risk     {view.paint(step.risk, 'red') if step.destroys else step.risk}")
        view.line(f"    undo     {step.undo}")
    view.line(f"{made.fleet}: {made.summary()}")


def _mark(act: str) -> str:
    if act.startswith("remove"):
        return view.paint("-", "red")
    return view.paint("~", "yellow") if act.startswith(("change", "start")) else view.paint("+", "green")
