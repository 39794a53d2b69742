import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sharpen.search.moments import deviation, exponent, mean

values = arrays(
    np.float64, st.tuples(st.integers(1, 20), st.integers(1, 3)), elements=st.floats(-1e6, 1e6)
)


@given(values)
def test_moments_are_those_of_numpy(x: np.ndarray) -> None:
    np.testing.assert_allclose(mean(x), x.mean(axis=0), rtol=1e-15, atol=1e-300)
    np.testing.assert_allclose(deviation(x), x.std(axis=0), rtol=1e-12, atol=1e-12)
    assert (np.abs(x) <= np.ldexp(1.0, exponent(x))).all()


@pytest.mark.parametrize("unit", [-1010, 1020])
def test_squares_beyond_a_float_do_not_matter(unit: int) -> None:
    x = np.random.default_rng(0).normal(size=(30, 2))
    other = np.ldexp(x, unit)
    np.testing.assert_array_equal(mean(other), np.ldexp(x.mean(axis=0), unit))
    np.testing.assert_array_equal(deviation(other), np.ldexp(x.std(axis=0), unit))


def test_equal_values_have_no_deviation() -> None:
    assert deviation(np.zeros(5)) == 0
    assert mean(np.zeros(5)) == 0
    assert deviation(np.full(5, 1e308)) == 0
