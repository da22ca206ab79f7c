"""The FastAPI example, as its callers meet it: what one request wrote, the next one sees by its token."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.adapters.stage import Bank, bank

pytestmark = [pytest.mark.engines, pytest.mark.timeout(120)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEW = {"stem": "What is float?", "choices": ["slack", "a boat"], "answer": 0}
HEADER = "X-Pgfleet-Token"


def example() -> Any:
    spec = importlib.util.spec_from_file_location("fastapi_example", EXAMPLES / "fastapi" / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pydantic looks types up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def servers() -> Iterator[Bank]:
    with bank(1, arts=True) as made:
        for node in (made.primary, next(name for name in made.nodes if name.shard != made.primary.shard)):
            made.psql("drop table questions", node)
            for name in ("0001_uuidv7.sql", "0002_questions.sql"):
                text = (EXAMPLES / "question-bank" / "schema" / name).read_text()
                made.psql(f"set role pgfleet_owner; {text}", node)
        yield made


@pytest.fixture
async def http(servers: Bank) -> AsyncIterator[httpx.AsyncClient]:
    app = example().make_app(servers.folder, region="us-west")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app)
        yield await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://bank"))


async def post(http: httpx.AsyncClient, stem: str, subject: str = "PMP", **more: str) -> httpx.Response:
    return await http.post(f"/subjects/{subject}/questions", json=NEW | {"stem": stem}, headers=more)


async def test_what_was_written_is_read_by_its_token_from_a_replica_that_lags(http: httpx.AsyncClient, servers: Bank) -> None:
    with servers.standing_still():
        written = await post(http, "by token")
        assert written.status_code == 201
        path = f"/subjects/PMP/questions/{written.json()['id']}"
        without = await http.get(path)
        assert without.status_code == 404, without.text  # the replica has not come that far
        read = await http.get(path, headers={HEADER: written.headers[HEADER]})
        assert (read.status_code, read.json()["stem"]) == (200, "by token")
        assert read.headers[HEADER] == written.headers[HEADER]


async def test_an_answers_token_contains_the_requests(http: httpx.AsyncClient) -> None:
    first = await post(http, "first of two")
    second = await post(http, "second of two", "Art", **{HEADER: first.headers[HEADER]})
    for subject, number in (("PMP", first.json()["id"]), ("Art", second.json()["id"])):
        read = await http.get(f"/subjects/{subject}/questions/{number}", headers={HEADER: second.headers[HEADER]})
        assert read.status_code == 200


async def test_a_caller_who_has_written_nothing_has_no_token(http: httpx.AsyncClient) -> None:
    read = await http.get("/subjects/PMP/questions")
    assert read.status_code == 200
    assert HEADER not in read.headers


@pytest.mark.parametrize("token", ["pgf1.AAAA", "nonsense", "pgf9.x", "é"])
async def test_a_token_that_cannot_be_read_is_said(http: httpx.AsyncClient, token: str) -> None:
    read = await http.get("/subjects/PMP/questions", headers=[(HEADER.encode(), token.encode())])
    assert (read.status_code, read.json()["code"]) == (400, "PGF-F204")


async def test_errors_say_what_they_are(http: httpx.AsyncClient) -> None:
    assert (await post(http, "twice")).status_code == 201
    assert (await post(http, "twice")).status_code == 409
    assert (await http.get("/subjects/Alchemy/questions")).json()["code"] == "PGF-F220"
    assert (await http.get("/subjects/Alchemy/questions")).status_code == 404
    assert (await http.post("/subjects/PMP/questions", json=NEW | {"answer": 7})).status_code == 422


@pytest.mark.parametrize("wrong", ["nul \\u0000", "lone surrogate \\ud800"])
async def test_what_cannot_be_stored_is_the_callers_mistake(http: httpx.AsyncClient, wrong: str) -> None:
    json = {"Content-Type": "application/json"}
    good = '{"stem": "stored", "choices": ["slack", "boat"], "answer": 0}'
    for word in ("stored", "boat", "stem"):
        said = await http.post("/subjects/PMP/questions", content=good.replace(word, wrong), headers=json)
        assert said.status_code == 422, said.text
    for content in (good.replace('"stored"', "NaN"), good.replace("0}", "99999999999}")):
        assert (await http.post("/subjects/PMP/questions", content=content, headers=json)).status_code == 422
    assert (await http.get("/subjects/a%00b/questions")).status_code == 422


async def test_everything_is_counted_and_explained(http: httpx.AsyncClient) -> None:
    await post(http, "counted", "Art")
    counts = {row["subject"]: row["questions"] for row in (await http.get("/subjects")).json()}
    assert counts["Art"] >= 1
    assert (await http.get("/subjects/Art/route")).json()["shard"] == "arts"
