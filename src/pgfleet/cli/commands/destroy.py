"""``pgfleet destroy``: take the fleet down and delete it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from pgfleet.cli import view


def destroy(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Provider existing: also drop the schema pgfleet from every shard.")
    ] = False,
) -> None:
    """Stop every process of the fleet and delete all of its data. Asks first.

    Servers of provider existing stay as they are, with every row: only what pgfleet keeps about them is deleted."""
    from pgfleet.control.destroy import destroy as perform
    from pgfleet.control.drivers import driver_of
    from pgfleet.control.lock import refuse_others
    from pgfleet.errors import NotConfirmed, WrongUsage

    driver, fleet, folder = driver_of(context.obj)
    if schema and fleet.traits.provisions:
        raise WrongUsage(f"--schema is for servers that stay; those of provider {fleet.provider} are deleted whole")
    if folder.exists():
        refuse_others(folder)  # before anybody is asked
    question = f"Delete fleet {fleet.fleet} and all of its data in {folder}?"
    if not fleet.traits.provisions:
        what = "the schema pgfleet on its servers" if schema else "nothing on its servers"
        question = f"Forget fleet {fleet.fleet}: delete {folder}, and {what}? The application's rows stay."
    if folder.exists() and not yes and (context.obj.json or not view.confirm(question)):
        raise NotConfirmed(f"nobody agreed to delete {fleet.fleet}", hint="pgfleet destroy --yes")
    there = asyncio.run(perform(driver, folder, (lambda text: None) if context.obj.json else view.note, schema=schema))
    if context.obj.json:
        view.document({"fleet": fleet.fleet, "destroyed": there})
    else:
        view.line(f"{fleet.fleet}: {'gone' if there else 'there was nothing to destroy'}")
