"""A connection that is cut off in the middle of a statement says so, by an error that everybody knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from tests.engines.replicated import Replicated, replicated

from pgfleet.runtime.sql import Connection, connect

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def stage() -> Iterator[Replicated]:
    with replicated(regions=("us-east",)) as made:
        yield made


@pytest.mark.parametrize("call", ["fetch", "execute", "own"])
async def test_cut_off_between_preparing_a_statement_and_sending_it(
    stage: Replicated, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another task drops the pool that the connection is lent from."""
    async with stage.client() as fleet:
        router = fleet._open.router
        node = next(iter(router.addresses.values()))
        connection = await connect(node.host, node.port, router._opened.login_of(node), settings={})
    prepare = Connection._get_statement

    async def cut(self: Connection, *args: Any, **more: Any) -> Any:
        statement = await prepare(self, *args, **more)
        self.terminate()
        return statement

    monkeypatch.setattr(Connection, "_get_statement", cut)
    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await getattr(connection, call)("select $1::int", 1)
    assert connection.is_closed()
