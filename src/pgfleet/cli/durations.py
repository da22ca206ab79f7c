"""Durations on the command line: ``--patience "5 min"``, and ``5min`` for those who do not like quotes."""

from __future__ import annotations

from pgfleet.errors import WrongUsage
from pgfleet.units import parse_duration

DURATION = "DURATION"


def duration(text: str, option: str) -> float:
    """Seconds in ``text``.

    :raises WrongUsage: it is not a duration; the message names ``option``.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise WrongUsage(f"{option}: {error}") from None
