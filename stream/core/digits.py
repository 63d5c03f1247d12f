"""Six significant digits: the precision of every number that leaves the worker.

A forecast is good to two or three digits, so seventeen are noise, twice the bytes and twice the time. The pipeline
rounds its columns once, here, to the double that the decimal text of six digits parses to. From then on the column
of a Parquet file, the JSON of a record and what its reader decodes are the same number, bit for bit.
"""

from typing import Final

import numba as nb
import numpy as np
from numpy.typing import ArrayLike, NDArray

SIGNIFICANT_DIGITS: Final = 6
FLUSH_BELOW: Final = 1e-12
"""Magnitudes below this become 0: a log return or a probability of 1e-12 is one of rounding errors."""
LARGEST: Final = 1e27
"""Magnitudes from here on are refused: their scaling would need a power of ten beyond 10**22, the last exact one."""

_LOW: Final = 10 ** (SIGNIFICANT_DIGITS - 1)  # the smallest mantissa
_HIGH: Final = 10**SIGNIFICANT_DIGITS
_POWERS: Final = np.array([float(f"1e{k}") for k in range(23)])  # exact: 5**22 < 2**53
_SPLITTER: Final = 134_217_729.0  # 2**27 + 1 cuts a double into two halves of 26 bits (Veltkamp)


@nb.njit(inline="always")
def _product_error(a: float, b: float, product: float) -> float:
    """What rounding took from `product` = a * b, exactly (Dekker 1971, eq. 5.14)."""
    c = _SPLITTER * a
    a_high = c - (c - a)
    a_low = a - a_high
    c = _SPLITTER * b
    b_high = c - (c - b)
    b_low = b - b_high
    return a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


@nb.njit
def _rounds_up(magnitude: float, shift: int, floor: int) -> bool:
    """Whether `magnitude * 10**shift`, which a double shows as exactly `floor` + 1/2, belongs to `floor` + 1.

    The scaled double was itself rounded, so the half may stand for a little more or less: look at what was cut off.
    A true half goes to the even mantissa, as in Python's own formatting.
    """
    scaled = floor + 0.5
    if shift >= 0:
        error = _product_error(magnitude, _POWERS[shift], scaled)
    else:
        power = _POWERS[-shift]
        product = scaled * power
        error = (magnitude - product) - _product_error(scaled, power, product)
    return error > 0.0 or (error == 0.0 and floor % 2 == 1)


@nb.njit(inline="always")
def _decimal_exponent(magnitude: float) -> int:
    """Power of ten of the first digit, at most one too small."""
    binary = (int(np.float64(magnitude).view(np.int64)) >> 52) - 1023
    return (binary * 78_913) >> 18  # floor(binary * log10(2)): 78913 / 2**18 is log10(2) to 6 digits


@nb.njit
def significant(magnitude: float) -> tuple[int, int]:
    """Six significant digits of a number, as compiled code wants them.

    Parameters
    ----------
    magnitude : float
        Not negative, below `LARGEST`.

    Returns
    -------
    mantissa : int
        100000 to 999999, or 0 where `magnitude` is below `FLUSH_BELOW`.
    exponent : int
        `mantissa * 10**exponent` is the nearest number of six digits; exact ties go to the even mantissa, as in
        `format(x, ".6g")`.

    Raises
    ------
    ValueError
        If `magnitude` is negative, not a number, or `LARGEST` and more.
    """
    if not 0.0 <= magnitude < LARGEST:
        raise ValueError("six digits need a finite number of magnitude below 1e27")
    if magnitude < FLUSH_BELOW:
        return 0, 0
    shift = SIGNIFICANT_DIGITS - 1 - _decimal_exponent(magnitude)
    scaled = magnitude * _POWERS[shift] if shift >= 0 else magnitude / _POWERS[-shift]
    if scaled >= _HIGH:  # the exponent was one too small
        shift -= 1
        scaled = magnitude * _POWERS[shift] if shift >= 0 else magnitude / _POWERS[-shift]
    mantissa = int(scaled)
    remainder = scaled - mantissa
    if remainder > 0.5 or (remainder == 0.5 and _rounds_up(magnitude, shift, mantissa)):
        mantissa += 1
    if mantissa == _HIGH:
        return _LOW, 1 - shift
    return mantissa, -shift


@nb.njit(cache=True, nogil=True)
def _round_all(values: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    for i in range(values.shape[0]):
        mantissa, exponent = significant(abs(values[i]))
        magnitude = mantissa * _POWERS[exponent] if exponent >= 0 else mantissa / _POWERS[-exponent]
        out[i] = -magnitude if values[i] < 0.0 and mantissa else magnitude


def round_significant(values: ArrayLike, out: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Round every number to six significant digits.

    Each result is the double nearest to the decimal text of those digits: `float(format(x, ".6g"))`, to the bit, for
    every |x| from `FLUSH_BELOW` to `LARGEST`. Mantissa and power of ten are both exact doubles, so the one operation
    that joins them rounds correctly (Clinger 1990). Rounding twice changes nothing.

    Parameters
    ----------
    values : float64[...]
        Of any shape.
    out : float64[...], optional
        Of the same shape, C-contiguous; may be `values` itself.

    Returns
    -------
    float64[...]
        `out`, or a new array. Magnitudes below `FLUSH_BELOW`, and -0.0, are 0.0.

    Raises
    ------
    ValueError
        If a value is NaN, infinite, or `LARGEST` and more in magnitude, or if `out` does not fit. A model that
        says so is broken: its numbers must not be published as others.
    """
    source = np.ascontiguousarray(values, dtype=np.float64)
    if out is None:
        out = np.empty_like(source)
    elif out.shape != source.shape or out.dtype != np.float64 or not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous float64 of shape {source.shape}: {out.dtype} {out.shape}")
    _round_all(source.reshape(-1), out.reshape(-1))
    return out
