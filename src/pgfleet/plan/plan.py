"""A plan is a value: it can be printed, saved, compared and refused."""

from __future__ import annotations

from dataclasses import dataclass

from pgfleet.plan.steps import Act, Step


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they begin."""

    fleet: str
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def destructive(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.destroys)

    def of(self, *acts: Act) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.act in acts)

    def summary(self) -> str:
        """``3 to create, 1 to change or start, 0 to remove``."""
        creates = sum(1 for s in self.steps if s.act.value.split()[0] in ("create", "prepare", "secure"))
        removes = sum(1 for s in self.steps if s.act.value.startswith("remove"))
        return f"{creates} to create, {len(self.steps) - creates - removes} to change or start, {removes} to remove"

    def to_json(self) -> dict[str, object]:
        return {"fleet": self.fleet, "steps": [s.to_json() for s in self.steps], "notes": list(self.notes)}
