"""The question bank over HTTP: FastAPI on a fleet, with each caller's token carried in a header.

    pgfleet -f examples/question-bank.yaml apply && pgfleet -f examples/question-bank.yaml migrate examples/question-bank/schema
    QUESTION_BANK=examples/question-bank.yaml uvicorn --app-dir examples/fastapi app:app

What this file shows: reads from near replicas, writes whose outcome is known, errors that say what to do, and that what
was posted can be read back at once from any process, by the token in the answer's ``X-Pgfleet-Token`` header.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import asyncpg
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, Field

import pgfleet
from pgfleet.adapters.asgi import TokenMiddleware


def storable(text: str) -> str:
    """:raises ValueError: PostgreSQL's ``text`` cannot hold it."""
    if "\0" in text:
        raise ValueError("there is a NUL character in it")
    text.encode()  # JSON can name half of a surrogate pair, which is no character: UnicodeEncodeError is a ValueError
    return text


Text = Annotated[str, AfterValidator(storable)]


class NewQuestion(BaseModel):
    stem: Annotated[Text, Field(min_length=1)]
    choices: Annotated[list[Text], Field(min_length=2, max_length=26)]
    answer: Annotated[int, Field(ge=0, lt=26)]
    difficulty: Annotated[int, Field(ge=1, le=5)] = 3


class Question(NewQuestion):
    subject: str
    id: UUID


COLUMNS = "subject, id, stem, choices, answer, difficulty"
ONE = f"select {COLUMNS} from questions where subject = $1 and id = $2"
SOME = f"select {COLUMNS} from questions where subject = $1 order by id desc limit $2"
ADD = f"""insert into questions (subject, stem, choices, answer, difficulty) values ($1, $2, $3, $4, $5) returning {COLUMNS}"""
COUNTS = "select subject, count(*) as questions from questions group by subject"


def make_app(where: str | Path, **how: Any) -> FastAPI:
    """:param where: the fleet's file. :param how: as ``pgfleet.connect`` takes it: region, state, deadline, …"""
    fleet = pgfleet.connect(where, **how)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with fleet:
            yield

    app = FastAPI(title="Question bank", lifespan=life)
    app.add_middleware(TokenMiddleware, fleet=fleet)

    @app.post("/subjects/{subject}/questions", status_code=201)
    async def add(subject: Text, new: NewQuestion) -> Question:
        if new.answer >= len(new.choices):
            raise HTTPException(422, f"answer {new.answer} is none of {len(new.choices)} choices")
        try:
            async with fleet.write("questions", key=subject) as conn:
                row = await conn.fetchrow(ADD, subject, new.stem, new.choices, new.answer, new.difficulty)
        except asyncpg.UniqueViolationError:
            raise HTTPException(409, "this question is there already") from None
        assert row is not None
        return Question(**row)

    @app.get("/subjects/{subject}/questions")
    async def newest(subject: Text, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> list[Question]:
        return [Question(**row) for row in await fleet.fetch("questions", SOME, subject, limit, key=subject)]

    @app.get("/subjects/{subject}/questions/{number}")
    async def one(subject: Text, number: UUID) -> Question:
        row = await fleet.fetchrow("questions", ONE, subject, number, key=subject)
        if row is None:
            raise HTTPException(404, "no such question")
        return Question(**row)

    @app.get("/subjects")
    async def counts() -> Sequence[dict[str, Any]]:
        return [dict(row) for row in await fleet.everywhere("questions", COUNTS, order_by="subject")]

    @app.get("/subjects/{subject}/route")
    async def route(subject: Text) -> dict[str, Any]:
        return fleet.explain("questions", key=subject).to_json()

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        """As FastAPI's own, without what was sent: that need not be anything that JSON can hold."""
        return JSONResponse({"detail": [{name: one[name] for name in ("loc", "msg", "type")} for one in error.errors()]}, 422)

    @app.exception_handler(pgfleet.PgfleetError)
    async def say(request: Request, error: pgfleet.PgfleetError) -> JSONResponse:
        """Our errors say what they are and what to do; the status says whether to come again."""
        match error:
            case pgfleet.PlacementError():
                status = 404
            case pgfleet.OutcomeUnknown():
                status = 500  # it may have happened: nobody may repeat it blindly, so no 503 that invites to
            case _:
                status = 503
        return JSONResponse(error.to_json(), status, {"Retry-After": "1"} if status == 503 else None)

    return app


def __getattr__(name: str) -> FastAPI:
    """``app:app`` for uvicorn; made when it is asked for, so that importing this file opens nothing."""
    if name != "app":
        raise AttributeError(name)
    return make_app(os.environ.get("QUESTION_BANK", "fleet.yaml"), region=os.environ.get("REGION"))
