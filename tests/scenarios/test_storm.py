"""A storm of two faults: its processes, their ledgers, and the reckoning, on real engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgfleet.prove.fleets import SCHEMA
from pgfleet.prove.runs.storm import page, placed
from pgfleet.prove.show import Show
from pgfleet.prove.stage import staged
from pgfleet.prove.storm import storm
from pgfleet.prove.strikes import Strike

pytestmark = [
    pytest.mark.engines,
    pytest.mark.timeout(240),
    # On a busy host a connection attempt may be given up in the very turn of the loop that makes its socket, and asyncio leaves
    # the socket to the collector. This process only looks after the fleet; what is tested runs in processes of its own.
    pytest.mark.filterwarnings("default:Exception ignored in. <(function _SelectorTransport|socket.socket)"),
]

FILE = """
fleet: storm
regions: {east: {provider: local}, west: {provider: local}}
shards:
  one: {home: east, voters: {east: 2, west: 1}, sync: 1, promises: {region: none}}
  two: {home: west, voters: {west: 2, east: 1}, sync: 1, promises: {region: none}}
tables:
  questions: {key: subject, place: {one: [PMP], two: [GRE]}, elsewhere: {hash: 16, over: [one, two]}}
"""


async def test_two_faults_at_once_lose_nothing_and_everything_is_accounted_for(tmp_path: Path) -> None:
    strikes = [(Strike("one", "crash"), Strike("two", "switchover"))]
    async with staged(FILE) as stage:
        await stage.apply()
        await stage.whole(["one", "two"])
        await stage.migrate(SCHEMA)
        found = await storm(stage, strikes, placed(stage), tmp_path, Show(), callers=2, seed=1, every=0.05)
    reckoning = found.reckoning
    assert found.broken == ()
    assert (reckoning.lost, reckoning.twice, reckoning.wrong, reckoning.denied, reckoning.strangers) == ((), (), (), (), ())
    assert (found.behind, found.told_lost) == ([], [])
    assert (found.writers_at_once, found.late) == (1, 0)
    assert len(found.heard) == 2
    assert all(one.summary.reads > 20 and one.summary.read_back > 5 for one in found.heard)
    assert reckoning.said["acknowledged"] > 100
    for blow in found.blows:
        assert len(found.reigns(blow.strike.shard)) == 2, "its primary changed once"
        assert 0.05 < found.gap(blow) <= found.slowest(blow) < 30
    assert page(found, 1).n == 2
