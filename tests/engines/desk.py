"""The place of somebody who has two DSNs: a file, an environment, a state folder, and a database on both servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.engines.outside import Outside, dsn
from tests.engines.scratch import binaries

FILE = """\
fleet: shop
regions: {cloud: {provider: existing}, near: {provider: existing}}
shards: {main: {home: cloud, primary: env:MAIN_DSN, replicas: {near: env:REPLICA_DSN}}}
tables: {questions: {key: subject}}
"""
SCHEMA = "create table questions (id bigint primary key, subject text not null, stem text not null);\n"


@dataclass
class Desk:
    """An operator's place: a file, an environment, a state folder; and a database of its own on both servers."""

    pair: Outside
    place: Path
    database: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.place / "state" / "shop"

    def argv(self, *words: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "pgfleet",
            "-f",
            str(self.place / "fleet.yaml"),
            "--state",
            str(self.place / "state"),
            *words,
        ]

    def variables(self, **more: str) -> dict[str, str]:
        return os.environ | {"PATH": f"{binaries()}:{os.environ['PATH']}"} | self.environment | more

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words), env=self.variables(**more), input="", text=True, capture_output=True, check=False, timeout=120
        )

    def said(self, *words: str, **more: str) -> str:
        done = self.run(*words, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def document(self, *words: str, **more: str) -> Any:
        return json.loads(self.said("--json", *words, **more))

    def error(self, *words: str, **more: str) -> dict[str, Any]:
        done = self.run("--json", *words, **more)
        assert done.returncode != 0, done.stdout
        error: dict[str, Any] = json.loads(done.stdout)["error"]
        return error | {"status": done.returncode}


def make_desk(pair: Outside, place: Path) -> Desk:
    database = pair.database()
    (place / "fleet.yaml").write_text(FILE)
    (place / "schema").mkdir()
    (place / "schema" / "0001_questions.sql").write_text(SCHEMA)
    environment = {"MAIN_DSN": dsn(pair.primary, database), "REPLICA_DSN": dsn(pair.replica, database)}
    return Desk(pair, place, database, environment)
