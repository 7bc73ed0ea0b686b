"""What the standard library's own types, arrays and tensors become, so that JSON can hold them.

numpy, torch and the like are recognised by what they can do, never imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from numbers import Complex, Integral, Real
from typing import Any
from uuid import UUID

from lezea_mlops.events.numeric import INT_RANGE, element_kind, number_text

MAX_ARRAY_ELEMENTS = 10_000


def digits(value: int) -> str:
    """Write an integer as text; in hexadecimal where Python may refuse to write so many decimal digits at once."""
    return int.__repr__(value) if value.bit_length() < 2_000 else hex(value)


def _decimal(value: Decimal) -> Any:
    """Return a number if it is exactly one, else the text."""
    if not value.is_finite():
        return {"$num": "NaN" if value.is_nan() else number_text(math.copysign(math.inf, value))}
    if abs(value.adjusted()) > 400:
        return str(value)
    if value == value.to_integral_value():
        return int(value) if int(value) in INT_RANGE else str(value)
    return float(value) if Decimal(float(value)) == value else str(value)


def _fraction(value: Fraction) -> str:
    return f"{digits(value.numerator)}/{digits(value.denominator)}".removesuffix("/1")


def _moment(value: datetime) -> str:
    """Return ISO 8601 in UTC; a time without a zone is taken as local time."""
    try:
        return value.astimezone(timezone.utc).isoformat()
    except (OverflowError, ValueError):
        # In the first or the last hours of the calendar UTC may lie outside it.
        return value.isoformat()


def _complex(value: complex) -> dict[str, Any]:
    return {"$complex": [number_text(float(value.real)), number_text(float(value.imag))]}


CONVERSIONS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (datetime, _moment),
    (date, date.isoformat),
    (time, time.isoformat),
    (timedelta, timedelta.total_seconds),
    (Decimal, _decimal),
    (Fraction, _fraction),
    (complex, _complex),
    (UUID, str),
)

# What numpy's scalars say of themselves; its long double and its kin come out of ``tolist`` as they went in.
NUMBER_KINDS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Integral, int),
    (Real, float),
    (Complex, complex),
)


# Below microseconds numpy gives integers for moments and durations.
_TOO_FINE = ("[ns]", "[ps]", "[fs]", "[as]")


def is_long_range(value: Any) -> bool:
    return isinstance(value, range) and value[MAX_ARRAY_ELEMENTS:] != range(0)


def listed(array: Any) -> Any:
    """Return an array as nested lists; numpy's moments are in UTC, and those too fine for Python are rounded."""
    kind = element_kind(array) if callable(getattr(array, "tobytes", None)) else None
    if kind not in ("M", "m"):
        return array.tolist()
    if array.dtype.str.endswith(_TOO_FINE):
        array = array.astype(f"{kind}8[us]")
    return _in_utc(array.tolist())


def _in_utc(moments: Any) -> Any:
    if isinstance(moments, list):
        return [_in_utc(moment) for moment in moments]
    return moments.replace(tzinfo=timezone.utc) if isinstance(moments, datetime) else moments


def host_array(value: Any) -> Any:
    """Return a tensor as an array in this machine's memory, an array as it is; None for what has no such form."""
    if callable(getattr(value, "tobytes", None)):
        return value
    if callable(getattr(value, "detach", None)):
        tensor = value.detach().cpu()
        try:
            return tensor.numpy()
        except TypeError:
            # numpy knows no bfloat16; float32 holds all its values.
            return tensor.float().numpy()
    return value.to_numpy() if callable(getattr(value, "to_numpy", None)) else None
