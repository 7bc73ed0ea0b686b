"""Numbers as strict JSON can hold them: whatever is one number becomes one, the three others become texts.

numpy, torch and the like are recognised by what they can do, never imported.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from numbers import Real
from typing import Any

# Integers beyond 64 bits are rounded or refused by many JSON readers.
INT_RANGE = range(-(2**63), 2**64)
# What the methods of a foreign array raise where its number cannot be fetched.
_CANNOT_FETCH = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

_TEXT_OF_NONFINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
_NUMBER_OF_TEXT = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class NotANumber(ValueError):
    """A value that was to be a number is none; the text says what it is."""


def number_text(value: float) -> float | str:
    """Return *value* as it stands where a number is expected: itself, or the text for a non-finite one."""
    if math.isfinite(value):
        return value
    return _TEXT_OF_NONFINITE.get(value, "NaN")


def as_number(value: Any) -> float | None:
    """Read a number of a payload back; None if it is none."""
    if isinstance(value, (int, float)):
        return value
    return _NUMBER_OF_TEXT.get(value) if isinstance(value, str) else None


def clean_number(value: Any) -> int | float | str:
    """Turn anything that is one number into a JSON number (or the text of a non-finite one).

    Raises:
        NotANumber: it is text, None, complex, an array of more than one element or something else.
    """
    if isinstance(value, int):
        # First made a plain int: a range looks for one of a derived class by counting.
        value = int(value)
        return value if value in INT_RANGE else number_text(_float(value))
    if isinstance(value, float):
        return number_text(float(value))
    if isinstance(value, (Decimal, Fraction)):
        return number_text(_float(value))
    if value is None or isinstance(value, (str, bytes, complex)):
        raise NotANumber(f"is {described(value)}, and a number was expected")
    return clean_number(_single_element(value))


def _float(value: Any) -> float:
    if isinstance(value, Decimal) and value.is_nan():
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number) and number != value:
        raise NotANumber("is too large for a floating-point number")
    return number


def _single_element(value: Any) -> Any:
    """Take the one element out of a numpy scalar, a 0-d tensor or an array with one element."""
    item = getattr(value, "item", None)
    if callable(item) and element_kind(value) not in ("M", "m"):
        if (count := element_count(value)) not in (None, 1):
            raise NotANumber(f"has {count} elements, and one number was expected")
        try:
            element = item()
        except _CANNOT_FETCH as error:
            raise NotANumber(f"is {described(value)} that gives no number ({error})") from error
        if type(element) is not type(value):
            return element
        # numpy's long double gives itself.
        if isinstance(value, Real):
            return _float(value)
    raise NotANumber(f"is {described(value)}, and a number was expected")


def described(value: Any) -> str:
    """Say what *value* is, as part of a sentence."""
    if value is None:
        return "None"
    if isinstance(value, str):
        return "text"
    return f"of type {type(value).__name__}"


def element_count(value: Any) -> int | None:
    """Return how many elements an array-like *value* has; None if it has no shape."""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, (tuple, list)):
        return None
    return math.prod(int(extent) for extent in shape)


def element_kind(value: Any) -> str | None:
    """Return numpy's letter for the kind of an array's elements: ``M`` moments, ``m`` durations, ``O`` objects."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    return kind if isinstance(kind, str) else None
