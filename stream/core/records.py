"""Kafka records of JSON or MessagePack values, written by one compiled kernel straight into the body of a record batch.

It knows no topic and no field: a layout of literal pieces and the columns between them (`encoding.py` makes it from
the structs of `messages`) says what to write.
"""

from typing import Final, NamedTuple

import numba as nb
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from stream.core.digits import SIGNIFICANT_DIGITS, significant

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]

HEADER_BYTES: Final = 61
"""Of a record batch, magic 2; the records follow."""
MAX_RECORD_BYTES: Final = 8191
"""The largest length that a varint says in two bytes, see `_put_length`."""
MAX_VALUE_BYTES: Final = 20
"""A whole number of 16 digits with sign and `.0`; an int64 takes 19."""
MAX_FRAME_BYTES: Final = 12
"""Around key and value of a record: three lengths of 2, attributes, timestamp, offset of 3 in the batch, headers."""
SLACK_BYTES: Final = 16
"""What the kernel may write, and overwrite, behind the end of a number."""

END: Final = 0
INTEGER: Final = 1
NUMBER: Final = 2
NAME: Final = 3
PACKED_INTEGER: Final = 4
PACKED_NUMBER: Final = 5


class Layout(NamedTuple):
    """How the records of one topic and partition are written."""

    head: Bytes  # before the instrument's part
    text: Bytes  # literal pieces and names, end to end
    steps: Integers  # [steps, 6] piece start and size; kind of value, its column; of a name: first span and count
    spans: Integers  # [names, 2] start and size of each name in `text`
    max_bytes: int  # of a record, less the instrument's part


class Instruments(NamedTuple):
    """The parts of a record that an instrument gives: its key, and what its values begin with."""

    text: Bytes  # keys and beginnings, end to end
    bounds: Integers  # [slots, 3] start of the key, its size, size of the beginning behind it; 0 where there is none
    max_bytes: int  # of the largest part


class Columns(NamedTuple):
    """What the records of a chunk say."""

    slots: Integers  # [n] instrument
    integers: Integers  # [integers, n] not negative
    numbers: NDArray[np.float64]  # [n, numbers] finite, magnitude below digits.LARGEST
    codes: NDArray[np.int8]  # [names, n] which name of the step's table


# The next two reach past numba's own array code: a slice assignment takes 12 ns for 13 bytes, a memcpy 2.5 ns.


@intrinsic
def _copy(context, out, position, source, start, size):  # type: ignore[no-untyped-def]
    """memcpy(&out[position], &source[start], size)."""
    signature = types.void(out, types.intp, source, types.intp, types.intp)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        target = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        origin = context.make_array(signature.args[2])(context, builder, arguments[2]).data
        target, origin = builder.gep(target, [arguments[1]]), builder.gep(origin, [arguments[3]])
        cgutils.raw_memcpy(builder, target, origin, arguments[4], 1)

    return signature, generate


@intrinsic
def _store(context, out, position, word):  # type: ignore[no-untyped-def]
    """Write eight characters at once; the first is the lowest byte of `word`."""
    signature = types.void(out, types.intp, types.int64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        target = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        target = builder.bitcast(builder.gep(target, [arguments[1]]), ir.IntType(64).as_pointer())
        builder.store(arguments[2], target, align=1)

    return signature, generate


def _word(text: str) -> int:
    return int.from_bytes(text.encode(), "little")


_MINUS: Final = ord("-")
_POINT: Final = ord(".")
_ZERO: Final = ord("0")
_EXPONENT: Final = ord("e")
_UNSIGNED: Final = 0xCC  # MessagePack's mark of one byte; of 2, 4 and 8 the next ones
_DOUBLE: Final = 0xCB
_ZEROS: Final = _word("00000000")
_ZERO_POINT: Final = _word("0.000000")
_MILLION: Final = 10**SIGNIFICANT_DIGITS
# Where msgspec (and JavaScript, at the small end) change to the form with an exponent.
_FIRST_SCIENTIFIC: Final = 16
_LAST_SCIENTIFIC: Final = -6
_TRIPLES: Final = np.array([_word(f"{k:03d}") for k in range(1000)])
_KEPT: Final = np.array([len(f"{k:03d}".rstrip("0")) for k in range(1000)])  # digits up to the last that is not 0


@nb.njit(inline="always")
def _six_digits(value: int) -> int:
    """Eight characters: six digits and two zeros."""
    return _TRIPLES[value // 1000] | (_TRIPLES[value % 1000] << 24) | (_ZEROS << 48)


@nb.njit(inline="always")
def _with_point(digits: int, before: int) -> int:
    """Put a point behind the first `before` of eight characters; the last one falls out."""
    mask = (1 << (8 * before)) - 1
    return (digits & mask) | (_POINT << (8 * before)) | ((digits & ~mask) << 8)


@nb.njit
def _put_integer(out: Bytes, end: int, value: int) -> int:
    if value >= _MILLION:
        end = _put_integer(out, end, value // _MILLION)
        _store(out, end, _six_digits(value % _MILLION))
        return end + 6
    leading = 5
    power = 10
    while value >= power:
        power *= 10
        leading -= 1
    _store(out, end, _six_digits(value) >> (8 * leading))
    return end + 6 - leading


@nb.njit(inline="always")
def _put_scientific(out: Bytes, end: int, digits: int, kept: int, exponent: int) -> int:
    _store(out, end, _with_point(digits, 1))
    end += kept + 1 if kept > 1 else 1
    out[end] = _EXPONENT
    if exponent < 0:
        end += 1
        out[end] = _MINUS
    return _put_integer(out, end + 1, abs(exponent))


@nb.njit(inline="always")
def _put_whole(out: Bytes, end: int, digits: int, exponent: int) -> int:
    """A number of 7 to 16 digits before its point."""
    _store(out, end, digits)
    _store(out, end + 8, _ZEROS)
    end += exponent + 1
    out[end] = _POINT
    out[end + 1] = _ZERO
    return end + 2


@nb.njit
def _put_number(out: Bytes, end: int, value: float) -> int:
    """Write a number in the form of msgspec; return the new end."""
    mantissa, exponent = significant(abs(value))
    if mantissa == 0:
        _store(out, end, _ZERO_POINT)
        return end + 3
    out[end] = _MINUS
    end += value < 0.0
    digits = _six_digits(mantissa)
    kept = 3 + _KEPT[mantissa % 1000] if mantissa % 1000 else _KEPT[mantissa // 1000]
    exponent += SIGNIFICANT_DIGITS - 1
    if 0 <= exponent < SIGNIFICANT_DIGITS:
        _store(out, end, _with_point(digits, exponent + 1))
        return end + max(kept, exponent + 2) + 1
    if _LAST_SCIENTIFIC < exponent < 0:
        _store(out, end, _ZERO_POINT)
        end += 1 - exponent
        _store(out, end, digits)
        return end + kept
    if SIGNIFICANT_DIGITS <= exponent < _FIRST_SCIENTIFIC:
        return _put_whole(out, end, digits, exponent)
    return _put_scientific(out, end, digits, kept, exponent)


@nb.njit(inline="always")
def _put_big_endian(out: Bytes, end: int, value: int, size: int) -> int:
    """The low `size` bytes of a number, the highest first."""
    for at in range(size):
        out[end + at] = (value >> (8 * (size - 1 - at))) & 255
    return end + size


@nb.njit(inline="always")
def _put_packed_integer(out: Bytes, end: int, value: int) -> int:
    """A number >= 0 in the shortest form of MessagePack."""
    if value < 1 << 7:
        out[end] = value
        return end + 1
    width = 0
    while width < 3 and value >> (8 << width):
        width += 1
    out[end] = _UNSIGNED + width
    return _put_big_endian(out, end + 1, value, 1 << width)


@nb.njit(inline="always")
def _put_packed_number(out: Bytes, end: int, value: float) -> int:
    significant(abs(value))  # refuses what JSON could not say
    out[end] = _DOUBLE
    return _put_big_endian(out, end + 1, np.float64(value).view(np.int64), 8)


@nb.njit(inline="always")
def _put_varint(out: Bytes, end: int, value: int) -> int:
    """A number >= 0, zigzag and base 128 as Kafka's records have it."""
    rest = value << 1
    while rest >= 128:
        out[end] = (rest & 127) | 128
        rest >>= 7
        end += 1
    out[end] = rest
    return end + 1


@nb.njit(inline="always")
def _put_length(out: Bytes, start: int, end: int) -> None:
    """Fill the two bytes at `start` with the number of bytes from behind them to `end`, 64 to 8191, as a varint.

    A length stands before what it measures; two reserved bytes spare writing each record twice.
    """
    length = (end - start - 2) << 1
    out[start] = (length & 127) | 128
    out[start + 1] = length >> 7


@nb.njit(inline="always")
def _put_name(out: Bytes, end: int, code: int, first: int, count: int, layout: Layout) -> int:
    if not 0 <= code < count:
        raise IndexError("a code lies outside its table of names")
    size = layout.spans[first + code, 1]
    _copy(out, end, layout.text, layout.spans[first + code, 0], size)
    return end + size


@nb.njit(inline="always")
def _put_values(out: Bytes, end: int, row: int, columns: Columns, layout: Layout) -> int:
    for step in layout.steps:
        _copy(out, end, layout.text, step[0], step[1])
        end += step[1]
        if step[2] == NUMBER:
            end = _put_number(out, end, columns.numbers[row, step[3]])
        elif step[2] == INTEGER:
            end = _put_integer(out, end, columns.integers[step[3], row])
        elif step[2] == NAME:
            end = _put_name(out, end, columns.codes[step[3], row], step[4], step[5], layout)
        elif step[2] == PACKED_NUMBER:
            end = _put_packed_number(out, end, columns.numbers[row, step[3]])
        elif step[2] == PACKED_INTEGER:
            end = _put_packed_integer(out, end, columns.integers[step[3], row])
    return end


@nb.njit(inline="always")
def _put_record(
    out: Bytes, start: int, row: int, delta: int, instruments: Instruments, columns: Columns, layout: Layout
) -> int:
    slot = columns.slots[row]
    if not 0 <= slot < instruments.bounds.shape[0] or instruments.bounds[slot, 2] == 0:
        raise IndexError("a result has a slot that was never added")
    key_start, key_size, beginning_size = instruments.bounds[slot]
    out[start + 2] = 0  # attributes
    out[start + 3] = 0  # milliseconds after the batch's timestamp
    end = _put_varint(out, start + 4, delta)
    end = _put_varint(out, end, key_size)
    _copy(out, end, instruments.text, key_start, key_size)
    value = end + key_size
    _copy(out, value + 2, layout.head, 0, layout.head.shape[0])
    end = value + 2 + layout.head.shape[0]
    _copy(out, end, instruments.text, key_start + key_size, beginning_size)
    end = _put_values(out, end + beginning_size, row, columns, layout)
    _put_length(out, value, end)
    out[end] = 0  # headers
    _put_length(out, start, end + 1)
    return end + 1


@nb.njit(cache=True, nogil=True)
def write_records(
    out: Bytes, limit: int, first: int, instruments: Instruments, columns: Columns, layout: Layout
) -> tuple[int, int]:
    """Write the rows from `first` on as records behind the header, as many as fit.

    Parameters
    ----------
    out : uint8[>= limit + SLACK_BYTES]
    limit : int
        Bytes that the batch may have, header included. No record is begun that could pass it.
    first : int
        Row to begin with; it becomes offset 0 of the batch.
    instruments, columns, layout
        What to write.

    Returns
    -------
    row : int
        The first row not written.
    end : int
        Bytes of the batch.

    Raises
    ------
    IndexError
        If a slot has no instrument, or a code no name.
    ValueError
        If a number is one that six digits cannot say, see `digits.significant`.
    """
    end = HEADER_BYTES
    for row in range(first, columns.slots.shape[0]):
        if end + instruments.max_bytes + layout.max_bytes > limit:
            return row, end
        end = _put_record(out, end, row, row - first, instruments, columns, layout)
    return columns.slots.shape[0], end
