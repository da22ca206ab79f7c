"""Noticing that a node hangs: statements wait, and nothing is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

#: Seconds without any answer, while statements wait for one, after which the node is looked at.
SILENCE = 0.5


class Silence:
    """One timer a pool while anything is lent, not one a statement: answers to any of them show that the node lives.

    :param waits: whether anything is lent. :param stuck: told when nothing was answered for :data:`SILENCE`.
    """

    def __init__(self, waits: Callable[[], bool], stuck: Callable[[], None]) -> None:
        self._waits, self._stuck = waits, stuck
        self._timer: asyncio.TimerHandle | None = None
        self._before = 0
        #: How much was answered so far.
        self.answers = 0

    def lent(self) -> None:
        if self._timer is None:
            self._before = self.answers
            self._timer = asyncio.get_running_loop().call_later(SILENCE, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._waits():
            return
        if self.answers == self._before:
            self._stuck()
        self.lent()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
