"""What a block sends when it begins and when it ends, each as one message, and what the answers mean. Nothing is sent here.

Ordinary borrowers get transaction semantics: what a block leaves in its session does not reach the next one. The reset
rides on the message that ends the transaction, so it costs no round trip.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from pgfleet.client.committing import QUESTION, WaitsFor, waits_for
from pgfleet.client.guide import Aim
from pgfleet.errors import BlockRolledBack, WriteInRead
from pgfleet.routing.route import Route

#: After a transaction, outside of any. SQL's own PREPARE cannot be undone without undoing psycopg's prepared statements
#: too, so it is only looked for: a session with such names ends.
_RESET = (
    "set session authorization default; close all; unlisten *; select pg_advisory_unlock_all(); reset all; discard temp; "
    "discard sequences; select name from pg_prepared_statement() where from_sql"
)
#: Where a statement has failed, which PostgreSQL answers by a rollback.
COMMIT_AFTER_ERROR = f"commit; {_RESET}".encode()
#: Asked before it: whether it will wait for the replicas, and whether this is the transaction that was begun for the block.
COMMIT = f"{QUESTION}; ".encode() + COMMIT_AFTER_ERROR
ROLLBACK = f"rollback; {_RESET}".encode()
#: Where the caller's own SQL ended the transaction.
RESET = _RESET.encode()

#: Seconds for a rollback with its reset; a server that cannot do this quickly is not one to keep a connection to.
RESET_SECONDS = 2.0
#: The share of what is left that one node may take to begin a read, while another could.
SHARE = 0.5

#: SQLSTATEs by which a server says that it is no primary (any more): 25006 a write in recovery, 0A000 BEGIN READ WRITE
#: in recovery (PostgreSQL's check_transaction_read_only).
NOT_WRITABLE = frozenset({"25006", "0A000"})


def begin(route: Route, mark: UUID | None) -> bytes:
    """The message that begins a block. :param mark: the id of the row that it leaves.

    A read's second statement takes a snapshot, after which PostgreSQL refuses to make the transaction READ WRITE. A
    write's says which key it is for and under which epoch, to the shard's guards.
    """
    if route.role == "read":
        return b"begin read only; select null"
    claims = {"pgfleet.key": route.claim} | ({"pgfleet.epoch": str(route.epoch)} if route.epoch else {})
    said = ", ".join(f"set_config({_literal(name)}, {_literal(value)}, true)" for name, value in claims.items() if value)
    leaves = f"; insert into pgfleet.outcome (id) values ('{mark}')" if mark is not None else ""
    return f"begin read write; select {said or 'null'}{leaves}".encode()


def exchange(pgconn: PGconn, message: bytes) -> Generator[Any, Any, list[PGresult]]:
    """psycopg's generator that sends ``message`` as it is and collects its answers, refusals among them."""
    pgconn.send_query(message)
    return (yield from generators.execute(pgconn))  # type: ignore[no-any-return] # untyped in its C half


@dataclass(frozen=True, slots=True)
class Answer:
    """:param tag: of the first statement: COMMIT may be answered by ROLLBACK. :param error: the server's refusal of it.
    :param clean: the session may be lent again."""

    tag: str
    error: psycopg.Error | None
    clean: bool


def read_answer(results: Sequence[PGresult]) -> Answer:
    """What the server said to :data:`COMMIT`, :data:`ROLLBACK` or :data:`RESET`."""
    first, last = results[0], results[-1]
    tag = (first.command_status or b"").decode()
    error = psycopg.errors.error_from_result(first) if first.status == ExecStatus.FATAL_ERROR else None
    clean = last.status == ExecStatus.TUPLES_OK and last.ntuples == 0
    return Answer(tag, error, clean)


def waited_for(results: list[PGresult]) -> WaitsFor:
    """What the server said to the question that :data:`COMMIT` begins with, which is taken off ``results``."""
    if results[0].status != ExecStatus.TUPLES_OK:
        return "disk"
    asked = results.pop(0)
    return waits_for((asked.get_value(0, 0) or b"").decode(), (asked.get_value(0, 1) or b"").decode())


def refused(results: Sequence[PGresult]) -> psycopg.Error | None:
    """Why a block did not begin; None: it did."""
    last = results[-1]  # nothing is executed after what was refused
    return psycopg.errors.error_from_result(last) if last.status == ExecStatus.FATAL_ERROR else None


def rolled_back(aim: Aim) -> BlockRolledBack:
    """COMMIT was answered by a rollback."""
    return BlockRolledBack(f"a statement of the block on {aim.shard} had failed, so PostgreSQL rolled it back")


def write_in_read(aim: Aim, error: psycopg.Error) -> WriteInRead:
    """A read block was used to write."""
    message = f"a statement that writes to {aim.table} was sent to read on {aim.shard}"
    return WriteInRead(message, seen=[str(error)], hint="a write block")


def _literal(text: str) -> str:
    # standard_conforming_strings may be off in a database; E'' is read the same either way.
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
