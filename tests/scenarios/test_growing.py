"""A shard that grows from one node to three and shrinks again, its primary among what goes, whatever is interrupted meanwhile."""

from __future__ import annotations

import subprocess
import time

import pytest
from tests.scenarios.conftest import make_stage, take_down
from tests.scenarios.fleet_stage import kill

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

ONE = """
fleet: {name}
regions: {{here: {{provider: local}}, there: {{provider: local}}}}
shards: {{main: {{home: here, voters: {{here: 1}}, promises: {{crash: none, silent: none}}}}}}
tables: {{questions: {{key: subject, place: {{main: [AWS]}}, elsewhere: refuse}}}}
"""


def test_a_shard_grows_and_shrinks_and_its_rows_stay() -> None:
    stage = make_stage(ONE)

    def declare(shape: str) -> None:
        text = ONE.format(name=stage.name)
        stage.file.write_text(text.replace("home: here, voters: {here: 1}, promises: {crash: none, silent: none}", shape))

    def nodes() -> set[str]:
        shard = stage.shard("main")
        return {node["node"] for node in [shard["primary"], *shard["replicas"]]}

    def rows() -> str:
        return stage.run("sql", "-c", "select count(*) from questions", "--", "-At").strip()

    try:
        stage.run("apply")
        stage.run("sql", "-c", "create table questions as select 'AWS' as subject, n as id from generate_series(1, 1000) n")

        # One more that can be elected, so that commits wait for it from now on: it has to be there before they can.
        declare("home: here, voters: {here: 1, there: 1}, promises: {region: none}")
        stage.run("apply")
        assert nodes() == {"here-1", "there-1"}
        stage.whole()

        # Nothing waits for a commit any more; a planned change of the primary is possible all the same, and so is a restart.
        declare("home: here, sync: 0, voters: {here: 1, there: 1}, promises: {region: none, crash: none, silent: none}")
        stage.run("apply")
        stage.run("switchover", "main", "--to", "there-1")
        assert stage.shard("main")["primary"]["node"] == "there-1"
        stage.run("switchover", "main")
        assert stage.shard("main")["primary"]["node"] == "here-1"

        # The primary goes, and its region with it; the apply is killed before it has gone.
        declare("home: there, voters: {there: 1}, promises: {crash: none, silent: none}")
        assert "it is the primary" in stage.run("plan")
        for lives in (1.0, 2.5):
            with subprocess.Popen(
                stage.command("apply", "--yes"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as attempt:
                time.sleep(lives)
                kill(attempt.pid)
        stage.run("apply", "--yes")
        assert nodes() == {"there-1"}
        assert not (stage.folder / "nodes" / "main" / "here-1").exists()
        assert stage.json("apply")["steps"] == []
        assert rows() == "1000"
    finally:
        take_down(stage)
