"""The keeper with cheap stand-ins for engines: what dies is started again, what runs is adopted, nothing runs twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.engines.keeper_stage import Stage, alive, keepers, kill, node, pid, sleeper, stage, units_of

from pgfleet.errors import KeeperFailed, KeeperUnreachable
from pgfleet.providers.local.keeper.control import start_keeper
from pgfleet.providers.local.keeper.launch import check_namespaces
from pgfleet.providers.local.units import write_units
from pgfleet.runtime.process import namespace_pids

pytestmark = pytest.mark.engines


@pytest.fixture
async def here(fleet_root: Path) -> AsyncIterator[Stage]:
    folder = fleet_root / "fleet"
    folder.mkdir()
    async with stage(folder) as started:
        yield started


async def test_what_dies_is_started_again_at_once(here: Stage) -> None:
    seen = await here.begin(sleeper(here.folder), node(here.folder))
    assert [unit.state for unit in seen.units] == ["running", "running"]
    first = pid(seen.unit("haproxy/us-east"))
    began = time.monotonic()
    kill(first)
    again = await here.running("haproxy/us-east", but=first)
    assert time.monotonic() - began < 2
    assert again.restarts == 1
    assert again.last_exit == -signal.SIGKILL
    assert (await here.running("node/stem/us-east-1")).restarts == 0


async def test_the_kernel_ends_a_node_with_its_first_process_and_says_so_only_afterwards(here: Stage) -> None:
    await here.begin(node(here.folder))
    seen = await here.until(lambda k: k.units[0].postmaster)
    init, postmaster, pids = seen.units[0].pid, seen.units[0].postmaster, seen.units[0].pids
    assert init is not None
    assert postmaster is not None
    assert {init, postmaster} < set(pids)
    assert namespace_pids(init)[-1] == 1
    assert os.getsid(postmaster) != os.getsid(init)  # it left its session, as PostgreSQL does
    fd = os.pidfd_open(init)
    kill(init)
    await asyncio.get_running_loop().run_in_executor(None, _wait_readable, fd)
    assert not [number for number in pids if alive(number)]
    os.close(fd)
    await here.running("node/stem/us-east-1", but=init)


def _wait_readable(fd: int) -> None:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(10_000)


async def test_a_node_has_its_own_shared_memory_and_processes_and_a_user_without_rights(here: Stage) -> None:
    report = "ls /proc | grep -c '^[0-9]'; touch /dev/shm/left; df --output=fstype /dev/shm | tail -1; id -un; ulimit -n"
    user = "nobody" if os.geteuid() == 0 else None
    unit = replace(node(here.folder), argv=("sh", "-c", report + "; grep CapEff /proc/self/status; sleep 100"), user=user)
    await here.begin(unit)
    said: list[str] = []
    for _ in range(200):
        said = Path(unit.log).read_text().split()
        if len(said) == 6:
            break
        await asyncio.sleep(0.02)
    assert int(said[0]) < 8
    assert said[1] == "tmpfs"
    assert said[2] == (user or subprocess.check_output(["id", "-un"], text=True).strip())
    assert said[3] == "512"
    assert int(said[5], 16) == 0
    assert not Path("/dev/shm/left").exists()  # noqa: S108 - not ours: that is the point
    assert stat.S_IMODE(Path(unit.log).stat().st_mode) == 0o640
    assert stat.S_IMODE((here.folder / "run" / "keeper.sock").stat().st_mode) == 0o600


async def test_the_twin_takes_over_at_once_and_nothing_is_interrupted(here: Stage) -> None:
    await here.begin(sleeper(here.folder), node(here.folder), node(here.folder, "us-west-1"))
    seen = await here.twin()
    before = {unit.name: unit.pid for unit in seen.units}
    began = time.monotonic()
    kill(seen.keeper)
    after = await here.until(lambda k: k.keeper != seen.keeper and k.ready)
    took = time.monotonic() - began
    assert after.keeper == seen.twin
    assert {unit.name: unit.pid for unit in after.units} == before
    assert [unit.restarts for unit in after.units] == [0, 0, 0]
    print(f"take-over: {took * 1000:.0f} ms")  # noqa: T201 - a figure that -s shows
    assert took < 2
    third = await here.twin()
    assert third.twin not in (seen.keeper, seen.twin)
    assert len(keepers(here.folder)) == 2


async def test_a_node_that_died_with_the_keeper_is_started_by_the_twin(here: Stage) -> None:
    seen = await here.begin(node(here.folder))
    seen = await here.twin()
    kill(seen.keeper)
    kill(seen.units[0].pid)
    after = await here.running("node/stem/us-east-1", but=seen.units[0].pid)
    assert alive(pid(after))


async def test_the_active_keeper_gets_itself_a_new_twin(here: Stage) -> None:
    await here.begin()
    seen = await here.twin()
    kill(seen.twin)
    assert (await here.twin(but=seen.twin)).keeper == seen.keeper


async def test_a_keeper_that_starts_after_both_were_killed_adopts_what_runs(here: Stage) -> None:
    await here.begin(sleeper(here.folder), node(here.folder))
    seen = await here.twin()
    kill(seen.twin)
    kill(seen.keeper)
    while keepers(here.folder) and any(alive(number) for number in keepers(here.folder)):
        await asyncio.sleep(0.01)
    with pytest.raises(KeeperUnreachable, match="does not answer"):
        await here.client.status()
    await start_keeper(here.folder)
    after = await here.until(lambda k: k.ready)
    assert {u.name: u.pid for u in after.units} == {u.name: u.pid for u in seen.units}


async def test_many_keepers_at_once_start_nothing_twice_and_two_remain(here: Stage) -> None:
    write_units(here.folder, "fleet", [sleeper(here.folder), node(here.folder)])
    await asyncio.gather(*(start_keeper(here.folder) for _ in range(4)))
    await here.until(lambda k: k.ready)
    await here.twin()
    ends = time.monotonic() + 10
    while len([n for n in keepers(here.folder) if alive(n)]) > 2 and time.monotonic() < ends:
        await asyncio.sleep(0.05)
    assert len([n for n in keepers(here.folder) if alive(n)]) == 2
    assert len(here.told("started")) == 2


async def test_what_cannot_live_is_tried_ever_more_seldom(here: Stage) -> None:
    await here.begin(sleeper(here.folder, argv=("sh", "-c", "echo no; exit 3")))
    await asyncio.sleep(1.5)
    seen = await here.until(lambda k: k.units[0].state == "backoff")
    assert 2 <= seen.units[0].restarts <= 4  # 0, 0.2, 0.6, 1.4 s
    assert seen.units[0].last_exit == 3


async def test_a_program_that_is_not_there_is_said_and_tried_again(here: Stage) -> None:
    seen = await here.begin(sleeper(here.folder, argv=("/nowhere/etcd",)), sleeper(here.folder, "etcd/1"))
    assert seen.unit("etcd/1") is not None
    assert pid(seen.unit("etcd/1"))
    await here.until(lambda k: k.units[0].state == "backoff")
    assert "not found" in Path(sleeper(here.folder).log).read_text()
    bad_user = sleeper(here.folder, user="no-such-user")
    here.write(bad_user)
    await here.client.sync()
    await here.until(lambda k: any("no-such-user" in e["because"] for e in k.events))


async def test_sync_does_what_differs_and_nothing_else(here: Stage) -> None:
    kept, changed = sleeper(here.folder, "etcd/1"), sleeper(here.folder, "pgbouncer/a")
    reread, gone = node(here.folder, digest="1", on_change="reload"), sleeper(here.folder, "gone/b")
    before = await here.begin(kept, changed, reread, gone)
    await _until_logged(
        reread.log, "listening"
    )  # the first process of a namespace does not get a signal that it has no handler for
    assert await here.client.sync() == ()
    here.write(kept, replace(changed, digest="2"), replace(reread, digest="2"), sleeper(here.folder, "new/c"))
    actions = await here.client.sync()
    assert [(a.unit, a.act) for a in actions] == [
        ("gone/b", "stop"), ("pgbouncer/a", "restart"), ("node/stem/us-east-1", "reload"), ("new/c", "start"),
    ]  # fmt: skip
    await here.running("new/c")
    await here.running("pgbouncer/a", but=pid(before.unit("pgbouncer/a")))
    after = await here.until(lambda k: k.unit("gone/b") is None)
    assert not alive(pid(before.unit("gone/b")))
    for same in ("etcd/1", "node/stem/us-east-1"):
        assert pid(after.unit(same)) == pid(before.unit(same))
    await _until_logged(reread.log, "reloaded")
    assert await here.client.sync() == ()


async def _until_logged(log: str, words: str) -> None:
    for _ in range(3000):
        if words in Path(log).read_text():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{words!r} is not in {log}")


async def test_a_unit_that_comes_back_while_it_is_stopping_runs(here: Stage) -> None:
    slow = sleeper(here.folder, argv=("sh", "-c", "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done"))
    first = pid((await here.begin(slow)).units[0])
    here.write()
    await here.client.sync()
    here.write(slow)
    await here.client.sync()
    assert pid(await here.running(slow.name, but=first)) != first


async def test_one_unit_can_be_restarted_and_an_unknown_one_cannot(here: Stage) -> None:
    before = await here.begin(node(here.folder))
    await here.client.restart("node/stem/us-east-1", "of a test")
    after = await here.running("node/stem/us-east-1", but=before.units[0].pid)
    assert after.last_because == "of a test"
    with pytest.raises(KeeperFailed, match="no unit node/stem/us-east-9"):
        await here.client.restart("node/stem/us-east-9")


async def test_what_runs_but_is_no_longer_wanted_is_stopped_by_the_next_keeper(here: Stage) -> None:
    seen = await here.begin(sleeper(here.folder), node(here.folder))
    await here.client.leave()
    assert all(alive(pid(unit)) for unit in seen.units)
    here.write()
    await start_keeper(here.folder)
    await here.until(lambda k: k.ready and not k.units)
    assert not units_of(here.folder)


async def test_stop_all_leaves_nothing_behind(here: Stage) -> None:
    stubborn = sleeper(here.folder, "pgbouncer/a", argv=("sh", "-c", "trap '' TERM; exec sleep 1000"))
    await here.begin(sleeper(here.folder), sleeper(here.folder, "etcd/1"), stubborn, node(here.folder))
    await here.twin()
    began = time.monotonic()
    stopped, killed = await here.client.stop_all()
    assert stopped == ["haproxy/us-east", "node/stem/us-east-1", "etcd/1"]  # in this order
    assert killed == ["pgbouncer/a"]
    assert time.monotonic() - began < 13
    assert not units_of(here.folder)
    for _ in range(200):
        if not [number for number in keepers(here.folder) if alive(number)]:
            break
        await asyncio.sleep(0.01)
    assert not [number for number in keepers(here.folder) if alive(number)]
    assert not (here.folder / "run" / "keeper.sock").exists()


async def test_a_terminated_keeper_takes_its_twin_along_and_leaves_the_units(here: Stage) -> None:
    await here.begin(node(here.folder))
    seen = await here.twin()
    kill(seen.keeper, signal.SIGTERM)
    for _ in range(500):
        if not [number for number in keepers(here.folder) if alive(number)]:
            break
        await asyncio.sleep(0.01)
    assert not [number for number in keepers(here.folder) if alive(number)]
    assert alive(pid(seen.units[0]))


async def test_a_broken_list_of_units_changes_nothing(here: Stage) -> None:
    seen = await here.begin(sleeper(here.folder))
    (here.folder / "units.json").write_text("{")
    with pytest.raises(KeeperFailed, match="cannot be read"):
        await here.client.sync()
    assert (await here.client.status()).units[0].pid == seen.units[0].pid


async def test_a_keeper_that_cannot_begin_says_why(here: Stage) -> None:
    (here.folder / "units.json").write_text("[]")
    with pytest.raises(KeeperUnreachable, match="not a list of units"):
        await start_keeper(here.folder)


async def test_a_folder_may_be_deeper_than_a_sockets_path(fleet_root: Path) -> None:
    folder = fleet_root / ("deep" * 20) / ("er" * 20) / "fleet"
    folder.mkdir(parents=True)
    async with stage(folder) as here:
        await here.begin(sleeper(folder))


async def test_every_deed_is_written_down_with_its_reason(here: Stage) -> None:
    await here.begin(sleeper(here.folder))
    events = [json.loads(line) for line in (here.folder / "keeper-events.jsonl").read_text().splitlines()]
    assert [(e["unit"], e["what"]) for e in events][-1] == ("haproxy/us-east", "started")
    assert all(set(e) == {"at", "unit", "what", "because", "took"} and e["because"] for e in events)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_an_ordinary_user_has_nodes_too(fleet_root: Path) -> None:
    check_namespaces()
    folder = fleet_root / "fleet"
    (folder / "logs").mkdir(parents=True)
    write_units(folder, "fleet", [node(folder)])
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    python = next((p for p in ("/usr/bin/python3.12", "/usr/bin/python3") if Path(p).exists()), sys.executable)
    paths = [str(Path(__file__).resolve().parents[2] / "src"), *(p for p in sys.path if p.endswith("site-packages"))]
    argv = [python, "-P", "-m", "pgfleet.providers.local.keeper", "--folder", str(folder)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    with (folder / "logs" / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen(argv, user=65534, group=65534, extra_groups=[], stdout=log, stderr=log, env=environment)
    try:
        for _ in range(1000):
            if (folder / "nodes" / "us-east-1" / "postmaster.pid").exists():
                break
            await asyncio.sleep(0.01)
        first = [n for n in units_of(folder) if namespace_pids(n)[-1:] == (1,)]
        assert len(first) == 1, (folder / "logs" / "keeper.log").read_text()
        status = Path(f"/proc/{first[0]}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "CapBnd:\t0000000000000000" in status
        kill(first[0])
        again: list[int] = []
        for _ in range(500):
            again = [n for n in units_of(folder) if namespace_pids(n)[-1:] == (1,) and n not in first]
            if again:
                break
            await asyncio.sleep(0.01)
        assert again
    finally:
        for number in {*keepers(folder), keeper.pid}:
            if alive(number):
                kill(number)
        keeper.wait()
        for number in units_of(folder):
            if alive(number):
                kill(number)
