"""Apply: look, plan, ask, perform, look again. It remembers nothing, so whoever comes after a kill goes on by
looking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pgfleet.control.journal import Journal
from pgfleet.control.lock import acting
from pgfleet.errors import EtcdUnreachable, NotConfirmed, PgfleetError, PlanOutdated, StillDifferent
from pgfleet.facts.fleet import FleetSeen
from pgfleet.plan.make import known, make_plan
from pgfleet.plan.plan import Plan
from pgfleet.plan.steps import Step
from pgfleet.plan.wanted import Wanted
from pgfleet.providers.driver import Driver

#: Looks after the first: what one plan made possible (settings of a shard that was just started) is another's to do.
ROUNDS = 4
#: Seconds until the next look when etcd did not answer and nothing else is to be done.
LOOK_AGAIN = 1.0


class Teller(Protocol):
    """Who watches: the progress lines of a terminal, or nobody."""

    def began(self, name: str) -> None: ...
    def ended(self, name: str, result: str = "") -> None: ...
    def failed(self, name: str, why: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Applied:
    """:param steps: what was done, in order. :param seen: what there is now."""

    steps: tuple[Step, ...]
    seen: FleetSeen


async def look(driver: Driver) -> tuple[Plan, Wanted, FleetSeen]:
    """What would be done now."""
    seen = await driver.observe()
    wanted = driver.wanted(seen)
    return make_plan(wanted, seen), wanted, seen


async def apply(
    driver: Driver,
    folder: Path,
    teller: Teller,
    confirm: Callable[[Plan], bool],
    agreed: Mapping[str, object] | None = None,
) -> Applied:
    """Make the fleet what the file says.

    :param confirm: asked when a plan deletes data; false refuses all of it.
    :param agreed: the plan that somebody has read (``Plan.to_json``); any other is refused.
    :raises PlanOutdated: what would be done is not what was agreed to.
    :raises FleetBusy: somebody else is at it.
    :raises EtcdUnreachable: nothing is to be done that can be seen without it.
    :raises NotConfirmed: data would be deleted and nobody agreed.
    :raises PgfleetError: a step failed; what was done stays, and the next apply goes on.
    """
    with acting(folder, "apply"):
        done: list[Step] = []
        left: tuple[Step, ...] = ()
        for _ in range(ROUNDS):
            plan, wanted, seen = await look(driver)
            if agreed is not None and not done and plan.to_json() != agreed:
                raise PlanOutdated("the fleet or the file has changed since this plan was made", hint="pgfleet plan")
            left = plan.steps
            if not plan.steps and known(seen):
                return Applied(tuple(done), seen)
            if not plan.steps:  # what is recorded in etcd was not compared
                await asyncio.sleep(LOOK_AGAIN)
                continue
            if plan.destructive and not confirm(plan):
                raise NotConfirmed(
                    "the plan deletes data, and nobody agreed to it",
                    seen=[f"{step.title}: {step.risk}" for step in plan.destructive],
                    hint="pgfleet apply --yes",
                )
            await driver.guard(wanted, seen)
            with Journal(folder / "journal.db") as journal:
                await _perform(driver, plan, wanted, seen, journal, teller)
            done += plan.steps
        if not left:
            raise EtcdUnreachable(
                "etcd does not answer: nobody knows whether the fleet is as the file says", hint="pgfleet status"
            )
        raise StillDifferent(
            f"after {ROUNDS} rounds something still differs", seen=[f"{s.title}: {s.because}" for s in left],
            hint="pgfleet plan",
        )  # fmt: skip


async def _perform(driver: Driver, plan: Plan, wanted: Wanted, seen: FleetSeen, journal: Journal, teller: Teller) -> None:
    @contextmanager
    def doing(step: Step) -> Iterator[dict[str, Any]]:
        teller.began(step.title)
        try:
            with journal.act(actor="apply", what=step.act.value, subject=step.subject, because=step.because) as told:
                yield told
        except BaseException as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            teller.failed(step.title, first_line)
            raise
        teller.ended(step.title, str(told.get("told", "")))

    try:
        await driver.perform(plan, wanted, seen, doing)
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """One of the errors of steps side by side: an error of ours before any other."""
    flat: list[BaseException] = []

    def walk(error: BaseException) -> None:
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                walk(inner)
        else:
            flat.append(error)

    walk(group)
    return next((error for error in flat if isinstance(error, PgfleetError)), flat[0])
