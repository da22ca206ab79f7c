"""One statement on one shard or on many at once, for a person: what it answers, as plain values."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import asyncpg

from pgfleet.control.connect import Wanted, connect
from pgfleet.errors import CommitUnanswered, PgfleetError, StatementFailed
from pgfleet.facts.addresses import AddressBook
from pgfleet.plan.migrations import needs_no_transaction
from pgfleet.plan.statements import split
from pgfleet.runtime.commit import commit
from pgfleet.runtime.sql import Connection

#: Seconds for COMMIT's answer, and beyond the server's own limit for a statement's.
COMMIT_SECONDS = 60.0
GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one shard said.

    :param status: the server's word for what was done: ``SELECT 3``, ``UPDATE 1``.
    :param error: why there are no rows.
    """

    shard: str
    node: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    status: str = ""
    error: PgfleetError | None = None

    def to_json(self) -> dict[str, object]:
        """Rows as objects; columns of one name keep the last, as any JSON object does, and ``columns`` has them all."""
        return {
            "shard": self.shard, "node": self.node, "columns": list(self.columns),
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows], "status": self.status,
            "error": self.error.to_json() if self.error else None,
        }  # fmt: skip


async def ask(
    book: AddressBook, shards: Sequence[str], role: str, wanted: Wanted, sql: str, *, seconds: float
) -> tuple[Answer, ...]:
    """The answers of ``shards`` to ``sql``, in their order; a shard that fails has its error in its answer.

    :param sql: one statement.
    :param seconds: for the statement on each shard.
    """
    return tuple(await asyncio.gather(*(_ask(book, shard, role, wanted, sql, seconds) for shard in shards)))


async def _ask(book: AddressBook, shard: str, role: str, wanted: Wanted, sql: str, seconds: float) -> Answer:
    settings = {"application_name": "pgfleet sql", "statement_timeout": f"{seconds:.3f}s"}
    node = ""
    try:
        connected = await connect(book, shard, role, wanted=wanted, settings=settings)
        node = str(connected.node.name)
        try:
            columns, rows, status = await _answer(connected.connection, sql, seconds)
        finally:
            connected.connection.terminate()
        return Answer(shard, node, columns, rows, status)
    except PgfleetError as error:
        return Answer(shard, node, error=error)
    except asyncpg.PostgresError as error:
        seen = [line for line in (getattr(error, "detail", None), f"SQLSTATE {error.sqlstate}") if line]
        failed = StatementFailed(str(error).split("\n")[0], seen=seen, hint=getattr(error, "hint", None) or "")
        return Answer(shard, node, error=failed)
    except TimeoutError:
        return Answer(shard, node, error=CommitUnanswered(f"{node} did not answer in {seconds + GRACE_SECONDS:g} s"))
    except (OSError, asyncpg.InterfaceError) as error:
        return Answer(shard, node, error=CommitUnanswered(f"the connection to {node} ended: {error}"))


async def _answer(
    connection: Connection, sql: str, seconds: float
) -> tuple[tuple[str, ...], tuple[tuple[object, ...], ...], str]:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    statements = split(sql)
    alone = bool(statements) and needs_no_transaction(statements[0])
    async with asyncio.timeout(seconds + GRACE_SECONDS):
        if not alone:
            await connection.execute("begin")
        prepared = await connection.prepare(sql)
        records = await prepared.fetch()
    columns = tuple(attribute.name for attribute in prepared.get_attributes())
    rows = tuple(tuple(plain(value) for value in record) for record in records)
    if not alone:
        # The server's limit is for the statement; a COMMIT that it cut short would be a COMMIT without its replicas.
        await connection.execute("set local statement_timeout = 0")
        await commit(connection, COMMIT_SECONDS)
    return columns, rows, prepared.get_statusmsg() or ""


def plain(value: object) -> object:
    """``value`` as JSON can say it: what JSON has no type for becomes the text that PostgreSQL would read back."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value == value and abs(value) != float("inf") else str(value)
        case bytes():
            return f"\\x{value.hex()}"
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {str(name): plain(item) for name, item in value.items()}
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return f"{value.total_seconds():g} s"
        case Decimal() | uuid.UUID() | ipaddress.IPv4Address() | ipaddress.IPv6Address():
            return str(value)
        case _:
            return str(value)
