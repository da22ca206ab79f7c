"""Running one of this room's programs to its exit status: what is under way is taken down on the way out, whether it
failed, was interrupted, or was told to end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from pgfleet.errors import PgfleetError
from pgfleet.prove.show import Show


def first_of_ours(error: BaseException) -> BaseException:
    """Of errors that happened side by side: one of ours before any other."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    flat = [first_of_ours(inner) for inner in error.exceptions]
    return next((one for one in flat if isinstance(one, PgfleetError)), flat[0])


def run_to_exit(program: Coroutine[Any, Any, None], show: Show, *, as_json: bool = False) -> int:
    """The exit status: an error's own (errors/), 130 when interrupted, 143 when ended by SIGTERM.

    :param as_json: an error is the document on stdout, unless ``program`` has shown one before it failed.
    """
    ended = []

    async def to_end() -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - in a coroutine there is one

        def end() -> None:
            ended.append(True)
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
        await program

    try:
        asyncio.run(to_end())
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:
        if ended:
            return 128 + signal.SIGTERM
        raise
    except (PgfleetError, BaseExceptionGroup) as error:
        first = first_of_ours(error)
        if not isinstance(first, PgfleetError):
            raise
        if as_json and not show.documented:
            show.document({"error": first.to_json() | {"exit_status": first.exit_status}})
        print(first, file=sys.stderr)
        return first.exit_status
    return 0
