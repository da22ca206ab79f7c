"""One unit's life: started or adopted, watched, judged when it ends, started again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from pgfleet.providers.local.keeper.adopt import Found, find_units
from pgfleet.providers.local.keeper.decide import (
    LONG_LIFE,
    Deed,
    LeadSeen,
    NodeSeen,
    decide,
    pause_before_start,
)
from pgfleet.providers.local.keeper.fence import Leads
from pgfleet.providers.local.keeper.launch import Launcher, LaunchFailed, LockHeld
from pgfleet.providers.local.keeper.node import NodeLook
from pgfleet.providers.local.keeper.telling import Told
from pgfleet.providers.local.units import NodeUnit, Unit
from pgfleet.runtime.process import Held, descendants, look_at

State = Literal["starting", "running", "backoff", "stopped"]

#: Seconds for asking etcd and revoking while a node waits to be started. etcd answers in milliseconds or is away.
LEAD_DEADLINE = 2.0
#: Seconds that a node which gave up its lead waits before it is started again: the others elect and promote in half a
#: second, and a Python that starts would take one of a small host's cores from them meanwhile.
ELECTION = 1.0
#: Seconds from SIGTERM to SIGKILL: PostgreSQL's fast shutdown writes a checkpoint.
STOP_LIMIT = 10.0
#: Seconds for the kernel to empty a killed namespace (0.17 measured) or end a process; above, it hangs in the kernel.
KILL_LIMIT = 10.0


@dataclass(slots=True)
class Around:
    """What every unit of a keeper shares.

    :param down: members of a shard on this host that do not run.
    """

    launcher: Launcher
    leads: Leads
    told: Told
    down: Callable[[str], frozenset[str]] = field(default=lambda shard: frozenset())


class Watchover:
    """Keeps one unit running until it is stopped. ``run`` is its task."""

    def __init__(self, unit: Unit, around: Around) -> None:
        self.unit = unit
        self.state: State = "starting"
        self.digest = unit.digest
        self.started: float | None = None
        self.restarts = 0
        self.last_exit: int | None = None
        self.last_because = ""
        self.first_try = asyncio.Event()
        self._around = around
        self._held: Held | None = None
        self._look: NodeLook | None = None
        self._reporter = 0  # the child of ours that tells the exit status
        self.short_lives = 0
        self._asked_to_restart = False
        self._removed = False
        self._wake = asyncio.Event()
        self._judgement: asyncio.Task[None] | None = None
        self._fenced: LeadSeen | None = None  # the lead for which it was killed
        self._judging, self._starting = asyncio.Lock(), asyncio.Lock()

    @property
    def pid(self) -> int | None:
        held = self._held
        return held.pid if held is not None and not held.ended.is_set() else None

    @property
    def postmaster(self) -> int | None:
        return self._look.postmaster if self._look is not None and self.pid else None

    @property
    def pids(self) -> list[int]:
        """All of it: what a drill has to stop to stop the whole node."""
        return [self.pid, *sorted(descendants(self.pid))] if self.pid else []

    # -- its life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        while not self._removed:
            try:
                if self._held is None:
                    await self._begin()
                if self._held is not None:
                    await self._held.ended.wait()
                    await self._has_ended()
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not leave a unit unwatched
                self._tell("mistaken", f"of an error in the keeper itself: {error!r}")
                await asyncio.sleep(1.0)
        self.state = "stopped"
        self.first_try.set()

    def adopt(self, found: Found) -> bool:
        """Take over what runs already; false: it has ended meanwhile."""
        if found.isolated != self.unit.isolate or not self._take(found.pid):
            return False
        self.digest = found.digest
        self._tell("adopted", f"it runs (process {found.pid})")
        self.first_try.set()
        return True

    async def _begin(self) -> None:
        yielded = await self._yield_the_lead()  # before any pause: its shard waits for it, not for us
        pause = max(pause_before_start(self.short_lives), ELECTION if yielded else 0.0)
        if pause and not self._removed:
            self.state = "backoff"
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
        self.state = "starting"
        async with self._starting:
            if not self._removed:
                await self._start()
        self.first_try.set()

    async def _start(self) -> None:
        began, unit = time.monotonic(), self.unit
        try:
            pid = await self._around.launcher.start(unit)
        except LockHeld:
            # Somebody is in there: a child of a keeper that died, or a namespace that the kernel is still emptying.
            found = (await asyncio.to_thread(find_units, self._around.launcher.folder)).get(unit.name)
            if found is None or not self.adopt(found):
                self.short_lives += 1
                self._tell("waits", "a process of an earlier life of it has not ended yet")
            return
        except LaunchFailed as failed:
            self.short_lives += 1
            self._tell("failed to start", str(failed))
            return
        self.digest = unit.digest
        self._reporter = self._around.launcher.parent_of(pid)
        if not self._take(pid):
            self.short_lives += 1
            self._tell("ended", "it ended as soon as it was started")
            return
        why = self.last_because or "it is in units.json and did not run"
        self._tell("started", why, took=time.monotonic() - began)
        self.last_because = why

    def _take(self, pid: int) -> bool:
        held = Held.take(pid)
        if held is None:
            return False
        seen = look_at(pid)
        self._held, self.state, self._reporter = held, "running", self._reporter
        self.started = seen.started if seen is not None else time.time()
        if self.unit.node is not None:
            self._look = NodeLook(self.unit.node, pid, self._postmaster_killed)
        return True

    async def _has_ended(self) -> None:
        """The pidfd said so: of a node, nothing is left (see runtime.process.Held.ended)."""
        self._held = None
        if self._look is not None:
            self._look.close()
            self._look = None
        lived = time.time() - (self.started or 0.0)
        asked, self._asked_to_restart = self._asked_to_restart, False
        self.short_lives = 0 if asked or lived >= LONG_LIFE else self.short_lives + 1
        if self._removed:
            self._tell("ended", self.last_because)
            return
        self.restarts += 1
        self.state = "starting"
        if not asked:
            self.last_because = "it had ended"
        self._tell("ended", self.last_because if asked else f"it was killed or gave up; it lived {lived:.1f} s")

    # -- a node's lead -----------------------------------------------------------------------------------------------

    async def _yield_the_lead(self) -> bool:
        """Before a node is started: if it led when it ended, the others elect now and not when its lease is over.

        True: it led, and they do.
        """
        node = self.unit.node
        if node is None:
            return False
        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAD_DEADLINE):
                lead, self._fenced = self._fenced or await self._who_leads(node), None
                rule = decide(NodeSeen(node.member, ended=True, lead=lead))
                if rule.deed is Deed.REVOKE and lead is not None and await self._around.leads.revoke(lead):
                    self._tell("revoked its lease", rule.because, took=time.monotonic() - began)
                    return True
        return False

    async def _who_leads(self, node: NodeUnit) -> LeadSeen | None:
        lead = await self._around.leads.look(node.shard)
        # Their keys outlive them by a ttl: those that this keeper knows to be dead are no candidates.
        return None if lead is None else LeadSeen(lead.leader, lead.lease, lead.candidates - self._around.down(node.shard))

    def _postmaster_killed(self) -> None:
        self._judgement = asyncio.create_task(self.judge())

    def look(self) -> None:
        """Once a second: 0.1 ms, unless something is wrong, which is judged beside the caller."""
        if self._look is not None and not self._judging.locked() and self._look.seen().suspicious:
            self._judgement = asyncio.create_task(self.judge())

    async def judge(self) -> None:
        """End a node that lives and must not."""
        look, held = self._look, self._held
        if look is None or held is None or self._judging.locked() or self._removed:
            return
        async with self._judging:
            seen, began, lead = look.seen(), time.monotonic(), None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAD_DEADLINE):
                    lead = await self._who_leads(look.node)
            if held.ended.is_set():
                return
            rule = decide(replace(seen, lead=lead))
            look.postgres_killed = False  # judged; when another postmaster is killed that is another story
            if rule.deed is not Deed.FENCE:
                return
            self._fenced = lead
            held.send(signal.SIGKILL)
            confirmed = await held.ends_within(KILL_LIMIT)
            if not confirmed:
                self._fenced = None  # who could be elected then, need not be able to when it ends at last
            what = "fenced" if confirmed else "killed, but it has not ended"
            self._tell(what, rule.because, took=time.monotonic() - began)

    # -- what others ask for -----------------------------------------------------------------------------------------

    async def restart(self, because: str) -> None:
        """End it in good order; ``run`` starts it again."""
        self._wake.set()
        async with self._starting:  # one that is just being started is ended then
            if self._held is not None:
                self.last_because, self._asked_to_restart = because, True
        await self._end()

    def reload(self, because: str) -> None:
        if self._held is not None and self._held.send(signal.Signals[f"SIG{self.unit.reload_signal}"]):
            self.digest = self.unit.digest
            self._tell("reloaded", because)

    async def stop(self, because: str) -> bool:
        """End it and leave it so. False: it did not end by itself and was killed."""
        self.last_because, self._removed = because, True
        self._wake.set()
        async with self._starting:
            pass
        return await self._end()

    async def _end(self) -> bool:
        held = self._held
        if held is None:
            return True
        async with asyncio.timeout(STOP_LIMIT + 2 * KILL_LIMIT):
            for _ in range(int(STOP_LIMIT)):
                held.send(signal.SIGTERM)
                # The first process of a namespace ignores a signal that it has no handler for yet: say it again. Other
                # programs take a second SIGTERM for impatience.
                if await held.ends_within(1.0 if self.unit.isolate else STOP_LIMIT):
                    return True
                if not self.unit.isolate:
                    break
            held.send(signal.SIGKILL)
            if not await held.ends_within(KILL_LIMIT):
                self._tell("killed, but it has not ended", f"it did not end within {STOP_LIMIT:g} s of being asked to")
            else:
                self._tell("killed", f"it did not end within {STOP_LIMIT:g} s of being asked to")
            return False

    def reaped(self, exits: dict[int, int]) -> None:
        if self._reporter in exits:
            self.last_exit = exits[self._reporter]

    def _tell(self, what: str, because: str, took: float | None = None) -> None:
        self._around.told.tell(self.unit.name, what, because, took)
