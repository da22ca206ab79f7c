"""SQLAlchemy 2 by route: asynchronous sessions whose binds are a near replica to read and the primary to write.

async with pgfleet.connect("fleet.yaml") as fleet, FleetSessions(fleet) as sessions:
    async with sessions.using("questions", key="PMP", write=True) as session:
        session.add(Question(subject="PMP", stem="..."))
        await session.commit()
"""

from __future__ import annotations

from pgfleet.adapters.sqlalchemy.session import FleetSession, FleetSessions

__all__ = ["FleetSession", "FleetSessions"]
