"""Partial aggregates of several shards, made those of all rows, as PostgreSQL's own would be. NULLs are passed over.

Whole numbers stay whole numbers of any size. ``numeric`` (Decimal) is exact, however many digits, and keeps the larger
scale. ``float8`` is added exactly and rounded once, so the last digits may differ from PostgreSQL's, which depend on the
order of its rows; ``float4`` is added as float8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_UP, Context, Decimal
from fractions import Fraction
from functools import reduce
from typing import Any

from pgfleet.client.order import standing

#: Every digit that a numeric can have: 131,072 before the point and 16,383 after it (PostgreSQL docs, 8.1.2), and room.
_EXACT = Context(prec=160_000, Emax=MAX_EMAX, Emin=MIN_EMIN, rounding=ROUND_HALF_UP, traps=[])
#: Enough digits to see where a quotient begins.
_NEARLY = Context(prec=20, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
#: Significant digits of an average, at least; what numeric division gives.
_DIGITS = 16
_MICROSECOND = timedelta(microseconds=1)


def added(values: Sequence[Any]) -> Any:
    """Their sum; None where none is left.

    :raises TypeError: what cannot be added. :raises OverflowError: a sum that no float can hold.
    """
    there = [value for value in values if value is not None]
    kinds = {type(value) for value in there}
    if kinds == {float}:
        return _float_sum(there)
    if not (kinds <= {int, Decimal} or kinds == {timedelta}):
        raise TypeError(f"{' and '.join(sorted(kind.__name__ for kind in kinds))} cannot be added")
    return reduce(_plus, there) if there else None


def counted(values: Sequence[Any]) -> Any:
    """The sum of counts; 0 where there are none.

    :raises TypeError: a count that is no whole number.
    """
    for value in values:
        if value is not None:
            _whole(value)
    summed = added(values)
    return 0 if summed is None else summed


def least(values: Sequence[Any]) -> Any:
    """The smallest; NaN is greater than every number, and infinity than every instant. :raises TypeError: no common order."""
    return min((value for value in values if value is not None), key=standing, default=None)


def greatest(values: Sequence[Any]) -> Any:
    """The greatest; likewise. :raises TypeError: no common order."""
    return max((value for value in values if value is not None), key=standing, default=None)


def averaged(means: Sequence[Any], counts: Sequence[Any]) -> Any:
    """The mean of all, from means and the counts of what each is the mean of; None where nothing was averaged.

    The weighted mean of Decimals is worked out exactly and rounded once, half up, to 16 significant digits or the
    largest scale among them. (Each shard's mean was rounded so already: where the last digit matters, ask for the sum
    and the count.)

    :raises TypeError: what cannot be averaged. :raises ValueError: a mean without a count, or a count without a mean.
    """
    pairs: list[tuple[Any, int]] = []
    for mean, count in zip(means, counts, strict=True):
        if mean is None and not count:
            continue
        if mean is None or not count or count < 0:
            raise ValueError(f"{_shown(mean)} is no mean of {_shown(count)} values: weigh avg(x) by count(x)")
        pairs.append((mean, _whole(count)))
    if not pairs:
        return None
    kinds = {type(mean) for mean, _ in pairs}
    total = sum(count for _, count in pairs)
    if kinds == {float}:
        return _mean_of_floats(pairs, total)
    if kinds == {timedelta}:
        return _MICROSECOND * round(Fraction(sum((mean // _MICROSECOND) * count for mean, count in pairs), total))
    if kinds <= {Decimal, int}:
        return _mean_of_decimals([(Decimal(mean), count) for mean, count in pairs], total)
    raise TypeError(f"{', '.join(sorted(kind.__name__ for kind in kinds))} cannot be averaged")


def _plus(one: Any, other: Any) -> Any:
    if isinstance(one, Decimal) or isinstance(other, Decimal):
        return _EXACT.add(Decimal(one), Decimal(other))
    return one + other


def _float_sum(values: Sequence[float]) -> float:
    try:
        return math.fsum(values)
    except ValueError:  # infinity and minus infinity
        return math.nan


def _mean_of_floats(pairs: Sequence[tuple[float, int]], total: int) -> float:
    if not all(math.isfinite(mean) for mean, _ in pairs):
        return _float_sum([mean for mean, _ in pairs if not math.isfinite(mean)])
    return float(sum((Fraction(mean) * count for mean, count in pairs), Fraction()) / total)


def _mean_of_decimals(pairs: Sequence[tuple[Decimal, int]], total: int) -> Decimal:
    summed = reduce(_EXACT.add, (_EXACT.multiply(mean, Decimal(count)) for mean, count in pairs))
    if not summed.is_finite():
        return summed
    scale = max(-int(mean.as_tuple().exponent) for mean, _ in pairs)
    first = _NEARLY.divide(summed, Decimal(total)).adjusted() if summed else 0
    digits = max(scale, _DIGITS - 1 - first, 0)
    exact = Fraction(summed) / total
    rounded = math.floor(abs(exact) * 10**digits + Fraction(1, 2))
    return Decimal(-rounded if exact < 0 else rounded).scaleb(-digits, _EXACT)


def _whole(count: Any) -> int:
    if isinstance(count, bool) or not isinstance(count, (int, Decimal)) or count != (whole := int(count)):
        raise TypeError(f"a count is a whole number, not {type(count).__name__} {count}")
    return whole


def _shown(value: Any) -> str:
    return "NULL" if value is None else str(value)
