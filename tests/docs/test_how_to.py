"""The how-to pages: what stands in them is run, from top to bottom, against real servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.adapters.stage import Bank, bank

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "how-to"
#: `existing` makes a fleet of its own: test_howto_existing.py follows it.
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.stem != "existing")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

#: Runs a file in which ``await`` may stand outside of a function, as in ``python -m asyncio``.
RUN = """
import ast, asyncio, inspect, sys
with open(sys.argv[1]) as page:
    code = compile(page.read(), sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
made = eval(code, globals())
if inspect.iscoroutine(made):
    asyncio.run(made)
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[Bank]:
    with bank(1, arts=True) as made:
        yield made


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_does_what_it_says(page: Path, servers: Bank, tmp_path: Path) -> None:
    code = "\n".join(BLOCK.findall(page.read_text()))
    assert code
    (tmp_path / "fleet.yaml").write_text(f"fleet: {servers.folder.name}\n")
    (tmp_path / "page.py").write_text(code)
    for node in servers.nodes:
        if node == servers.primary or node.shard != "stem":
            servers.psql("delete from questions", node)
    argv = [sys.executable, "-W", "error", "-c", RUN, "page.py"]
    state = os.environ | {"PGFLEET_STATE": str(servers.folder.parent)}
    done = subprocess.run(argv, cwd=tmp_path, env=state, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_page_is_there() -> None:
    assert {"psycopg", "sqlalchemy", "fastapi", "observe"} <= {page.stem for page in PAGES}
