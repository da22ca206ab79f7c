"""What a provider can do: the interface that control uses, and nothing of how."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pgfleet.facts.fleet import FleetSeen
from pgfleet.names import NodeName
from pgfleet.plan.plan import Plan
from pgfleet.plan.steps import Step
from pgfleet.plan.wanted import Wanted

#: Tells that a step begins; the mapping it gives is filled with what is worth telling (``told``) when it ends.
Doing = Callable[[Step], AbstractContextManager[dict[str, Any]]]


class Driver(Protocol):
    """A place where a fleet lives."""

    async def observe(self) -> FleetSeen:
        """What there is; never raises because something is down."""
        ...

    def wanted(self, seen: FleetSeen) -> Wanted:
        """What the file wants, as values that can be compared with ``seen``."""
        ...

    async def guard(self, wanted: Wanted, seen: FleetSeen) -> None:
        """:raises Refused: performing this would lose something that no plan shows.
        :raises Unreachable: it could not be performed at all."""
        ...

    async def perform(self, plan: Plan, wanted: Wanted, seen: FleetSeen, doing: Doing) -> None:
        """Perform the steps, those that do not depend on one another side by side."""
        ...

    async def switch_over(self, shard: str, to: NodeName | None) -> NodeName:
        """A planned change of the primary; the new one.

        :raises ProviderCannot: it has no means for that.
        """
        ...

    async def destroy(self, told: Callable[[str], None], *, schema: bool) -> None:
        """Take down and delete everything that it made.

        :param schema: on servers that were given, the fleet's own schema too.
        """
        ...
