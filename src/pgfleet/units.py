"""Units: durations in seconds and sizes in bytes, read from and written as people write them."""

from __future__ import annotations

import re

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h|d|seconds?|minutes?|hours?|days?|milliseconds?)\s*")
_SECONDS = {
    "ms": 0.001, "millisecond": 0.001, "s": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0,
    "h": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0,
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|TB)\s*")
_BYTES = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}  # PostgreSQL's units: powers of 1024


def parse_duration(text: str) -> float:
    """Seconds in ``text``: ``"50 ms"``, ``"1 s"``, ``"5 min"``, ``"2 h"``, ``"30 d"``; ``"0"`` alone is zero.

    :raises ValueError: no number, no unit, or a unit not in that list.
    """
    if text.strip() == "0":
        return 0.0
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration (such as 50 ms, 1 s, 5 min, 2 h, 30 d)")
    unit = match[2] if match[2] in _SECONDS else match[2].removesuffix("s")
    return float(match[1]) * _SECONDS[unit]


def format_duration(seconds: float) -> str:
    """``seconds`` in the largest unit that keeps it at 1 or more, with at most three significant digits."""
    if seconds == 0:
        return "0"
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= size and (unit in ("s", "min") or seconds % size == 0):
            if unit == "min" and seconds % 60:
                continue
            return f"{seconds / size:.3g} {unit}" if seconds / size < 1000 else f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1000:.3g} ms"


def parse_size(text: str) -> int:
    """Bytes in ``text``: ``"64 MB"``, ``"1 GB"``; units are powers of 1024, as PostgreSQL's are.

    :raises ValueError: no number, or a unit other than B, kB, MB, GB, TB.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size (such as 64 MB, 1 GB)")
    return int(float(match[1]) * _BYTES[match[2]])


def format_size(size: float) -> str:
    """``size`` bytes in the largest unit that keeps it at 1 or more."""
    for unit in ("TB", "GB", "MB", "kB"):
        if size >= _BYTES[unit]:
            return f"{size / _BYTES[unit]:.3g} {unit}"
    return f"{size:.0f} B"
