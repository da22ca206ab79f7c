"""A fleet's routing for code without an event loop: it lives on a loop of its own, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from pgfleet.client.fleet import Fleet
from pgfleet.errors import FleetClosed

T = TypeVar("T")


class Background:
    """:param fleet: not open yet; it is opened on the thread's loop, and closed there."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        # A daemon: a program that forgets to close the fleet ends all the same.
        self._thread = threading.Thread(target=self._loop.run_forever, name="pgfleet", daemon=True)

    def open(self) -> None:
        """:raises PgfleetError: as opening the fleet does."""
        self._thread.start()
        try:
            self.run(self._fleet.__aenter__())
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        if self._process != os.getpid():
            return  # the thread stayed behind in the parent
        try:
            self.run(self._fleet.__aexit__(None, None, None))
        finally:
            self._stop()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it there, and wait for it. Interrupted here, it is cancelled there."""
        try:
            self.alive()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except CancelledError:
            raise FleetClosed("this fleet was closed") from None
        except BaseException:
            future.cancel()
            raise

    def say(self, word: Callable[[], object]) -> None:
        """Call it there, some time soon."""
        self.alive()
        self._loop.call_soon_threadsafe(word)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have it done there until it ends or the fleet is closed."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def alive(self) -> None:
        """:raises FleetClosed: nobody follows the fleet in this process."""
        if self._process != os.getpid():
            raise FleetClosed(
                "this fleet was opened before the process forked, and nobody follows it here", hint="open one in each process"
            )
        if not self._loop.is_running():
            raise FleetClosed("this fleet is not open")

    def _stop(self) -> None:
        async def cancel_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
