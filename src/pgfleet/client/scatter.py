"""One question to all shards at once: what is sent to each, who did not answer, and what it all comes to.

How a question is bounded: with an order or a limit, each shard is sent ``select * from (SQL) order by ... limit
LIMIT + OFFSET``, so that none sends more rows than could be needed, and the planner sees through it to an index. What is
combined is bounded by nothing but the number of groups: every shard sends all of its own. Around both stands a condition on the
types of what is compared (:mod:`pgfleet.client.comparing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pgfleet.client.combine import Combination
from pgfleet.client.comparing import condition, refusal
from pgfleet.client.gather import Rows, merge
from pgfleet.client.order import Order, OrderBy
from pgfleet.errors import CannotMerge, ShardsSilent, Unreachable

T = TypeVar("T")

#: What LIMIT takes: a bigint.
_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Question:
    """One reading statement for every shard, and how the answers become one.

    :param sql: what is sent to each shard, with ``args``.
    :param asked: rows that a shard gives at most; None: all.
    """

    sql: str
    args: tuple[Any, ...]
    order: Order
    limit: int | None
    offset: int
    combination: Combination | None
    asked: int | None

    @classmethod
    def of(
        cls, sql: str, args: Sequence[Any] = (), *, order_by: OrderBy | None = None, descending: bool = False,
        limit: int | None = None, offset: int = 0, combine: Mapping[str, str] | None = None,
        group_by: str | Sequence[str] | None = None,
    ) -> Question:  # fmt: skip
        """:raises CannotMerge, CannotCombine: the arguments are wrong; nothing was sent."""
        order = Order.parse(order_by, descending=descending)
        bounds = {"offset": offset, **({} if limit is None else {"limit": limit})}
        for name, number in bounds.items():
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise CannotMerge(f"{name} is a whole number from 0, not {number!r}")
        if sum(bounds.values()) > _MOST:
            raise CannotMerge(f"{' and '.join(bounds)} come to {sum(bounds.values())} rows; PostgreSQL counts to {_MOST}")
        if combine is not None:
            combination = Combination.parse(combine, group_by)
            return cls(compared(sql, order, combination), tuple(args), order, limit, offset, combination, None)
        if group_by is not None:
            raise CannotMerge("group_by is for what is combined", hint="combine={'n': 'count'}")
        asked = None if limit is None else limit + offset
        if not order and asked is None:
            return cls(sql, tuple(args), order, limit, offset, None, None)
        text, more = bounded(sql, len(args), order, asked)
        return cls(text, (*args, *more), order, limit, offset, None, asked)

    def answer(self, answers: Mapping[str, Sequence[Any]], missing: Mapping[str, str] | None = None) -> Rows[Any]:
        """:param answers: of the shards that answered. :param missing: those that did not, and why.
        :raises CannotMerge, CannotCombine: what came cannot be put together so.
        """
        if self.combination is not None:
            answers = {"all": self.combination(answers.values())}
        return Rows(merge(answers, self.order, limit=self.limit, offset=self.offset, asked=self.asked), missing)


def bounded(sql: str, args: int, order: Order, rows: int | None) -> tuple[str, tuple[int, ...]]:
    """``sql`` in the order that is merged by, and no more than ``rows`` of it; and the arguments that this adds.

    The limit is an argument: pages are one statement, prepared once.
    """
    text = f"select * from (\n{_inside(sql)}\n) as of_one_shard"
    if not order:
        return (text, ()) if rows is None else (f"{text} limit ${args + 1}", (rows,))
    # What is cut off is cut off by the shard's order, which has to be ours; what comes whole is sorted again, or found out.
    text += f" order by {order} " + ("offset 0" if rows is None else f"limit ${args + 1}")
    compares = condition((term.column, rows is not None and not term.collate_c) for term in order.terms)
    return f"select * from ({text}) as in_order where {compares}", () if rows is None else (rows,)


def compared(sql: str, order: Order, combination: Combination) -> str:
    """``sql``, failing where what is combined cannot be compared as the shards have compared it, or cannot be ordered here."""
    ordered = [(term.column, False) for term in order.terms if not combination.combines(term.column)]
    least = [(column, True) for column, how in combination.folds.items() if how in ("min", "max")]
    conditions = [text for text in (condition(ordered), condition(least, combine=True)) if text]
    if not conditions:
        return sql
    # OFFSET keeps the conditions from being asked of every row that is aggregated.
    text = f"select * from (\n{_inside(sql)}\n) as of_one_shard offset 0"
    return f"select * from ({text}) as in_order where {' and '.join(conditions)}"


def _inside(sql: str) -> str:
    """``sql`` as it can stand in parentheses."""
    return sql.rstrip("; \t\r\n")


async def ask_all(
    shards: Sequence[str], ask: Callable[[str], Awaitable[T]], *, what: str, partial: bool = False
) -> tuple[dict[str, T], dict[str, str]]:
    """Ask every shard at once. Who answered what, in the order of ``shards``; and who did not, with the reason.

    :param what: of what the shards are, for messages: the table.
    :param partial: shards that did not answer are told instead of raising.
    :raises ShardsSilent: some did not answer.
    :raises CannotMerge, CannotCombine: a shard has the answers' columns in an order that is not known here.
    :raises Exception: what one shard refused; the others' answers are not waited for.
    """
    tasks = {shard: asyncio.ensure_future(ask(shard)) for shard in shards}
    try:
        while pending := {task for task in tasks.values() if not task.done()}:
            await asyncio.wait(pending, return_when=asyncio.FIRST_EXCEPTION)
            for shard, task in tasks.items():
                if task.done() and (error := task.exception()) is not None and not isinstance(error, Unreachable):
                    if (refused := refusal(error, shard)) is not None:
                        raise refused from error
                    error.add_note(f"said by shard {shard}")
                    raise error
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    missing = {shard: reason(error) for shard, task in tasks.items() if isinstance(error := task.exception(), Unreachable)}
    if missing and not partial:
        raise silent(missing, len(shards), what)
    return {shard: task.result() for shard, task in tasks.items() if shard not in missing}, missing


def reason(error: Unreachable) -> str:
    """Why there was no answer, and what was waited for."""
    return f"{error.message} ({'; '.join(error.seen)})" if error.seen else error.message


def silent(missing: Mapping[str, str], shards: int, what: str) -> ShardsSilent:
    """The error that names them."""
    return ShardsSilent(
        f"{len(missing)} of {shards} shards of {what} did not answer",
        seen=[f"{shard}: {why}" for shard, why in missing.items()], hint="partial=True",
    )  # fmt: skip
