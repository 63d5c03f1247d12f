import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stream.core.digits import FLUSH_BELOW, LARGEST, round_significant, significant

magnitudes = st.floats(FLUSH_BELOW, LARGEST, exclude_max=True)
# A half in the seventh digit, written in decimal: sometimes an exact tie, mostly a double a hair beside one.
near_ties = st.builds(
    lambda mantissa, exponent: float(f"{mantissa}5e{exponent}"), st.integers(10**5, 10**6 - 1), st.integers(-17, 18)
)
rounded = st.builds(
    lambda mantissa, exponent: float(f"{mantissa}e{exponent}"), st.integers(10**5, 10**6 - 1), st.integers(-17, 18)
)


def rounded_one(value: float) -> float:
    return float(round_significant([value])[0])


@given(magnitudes | near_ties | rounded, st.sampled_from([1.0, -1.0]))
def test_rounding_is_that_of_the_decimal_text(magnitude: float, sign: float) -> None:
    assert rounded_one(sign * magnitude) == float(f"{sign * magnitude:.6g}")


@given(magnitudes | near_ties)
def test_rounding_twice_changes_nothing(magnitude: float) -> None:
    once = rounded_one(magnitude)
    assume(once < LARGEST)  # the last magnitudes below it round up to it
    assert rounded_one(once) == once


@given(magnitudes | near_ties)
def test_mantissa_and_exponent_write_the_same_number(magnitude: float) -> None:
    mantissa, exponent = significant(magnitude)
    assert 10**5 <= mantissa < 10**6
    assert float(f"{mantissa}e{exponent}") == float(f"{magnitude:.6g}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (123456.5, 123456.0),  # an exact tie goes to the even digit
        (123457.5, 123458.0),
        (1.0000005, 1.0),  # the double is 1.00000049999999991773
        (1.2345675, 1.23457),
        (999999.5, 1000000.0),
        (np.nextafter(999999.5, 0.0), 999999.0),
        (0.9999996, 1.0),
        (67543.123, 67543.1),
        (-67543.16, -67543.2),
        (1e12, 1e12),
        (1e22, 1e22),
    ],
)
def test_hand_worked_roundings(value: float, expected: float) -> None:
    assert rounded_one(value) == expected


def test_every_power_of_ten_and_its_neighbours() -> None:
    powers = np.array([float(f"1e{k}") for k in range(-11, 27)])
    values = np.concatenate([powers, np.nextafter(powers, 0.0), np.nextafter(powers, np.inf)])
    np.testing.assert_array_equal(round_significant(values), np.tile(powers, 3))


@pytest.mark.parametrize("value", [0.0, -0.0, 9.99e-13, -9.99e-13, 5e-324, np.nextafter(FLUSH_BELOW, 0.0)])
def test_what_is_too_small_becomes_positive_zero(value: float) -> None:
    result = rounded_one(value)
    assert result == 0.0
    assert not np.signbit(result)


def test_smallest_kept_magnitude() -> None:
    assert rounded_one(FLUSH_BELOW) == FLUSH_BELOW


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, LARGEST, -1e300])
def test_what_six_digits_cannot_say_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="1e27"):
        round_significant([0.5, value])


def test_a_negative_magnitude_is_refused() -> None:
    with pytest.raises(ValueError, match="1e27"):
        significant(-1.0)


def test_shape_is_kept_and_out_may_be_the_input() -> None:
    values = np.array([[1.23456789, -0.000123456789], [3e-13, 98765432.1]])
    expected = np.array([[1.23457, -0.000123457], [0.0, 98765400.0]])
    result = round_significant(values, out=values)
    assert result is values
    np.testing.assert_array_equal(result, expected)


def test_a_strided_input_is_read_right() -> None:
    values = np.array([[1.23456789, 2.0], [3.45678912, 4.0]])[:, 0]
    np.testing.assert_array_equal(round_significant(values), [1.23457, 3.45679])


def test_no_values_give_no_values() -> None:
    assert round_significant(np.empty((0, 28))).shape == (0, 28)


@pytest.mark.parametrize("out", [np.empty(3), np.empty(2, np.float32), np.empty(4)[::2]])
def test_an_out_that_does_not_fit_is_refused(out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="out must be"):
        round_significant([1.0, 2.0], out=out)
