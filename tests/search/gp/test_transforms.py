import numpy as np
import pytest
from scipy.stats import yeojohnson, yeojohnson_normmax

from sharpen.search.gp.transforms import OutputTransform


def skewed(seed: int = 0) -> np.ndarray:
    return np.exp(2 * np.random.default_rng(seed).normal(size=60)) + 5


def test_transformed_values_are_standardized_and_keep_their_order() -> None:
    values = skewed()
    for bend in (False, True):
        got = OutputTransform.fit(values, bend=bend)(values)
        assert got.mean() == pytest.approx(0, abs=1e-12)
        assert got.std() == pytest.approx(1)
        assert (np.argsort(got) == np.argsort(values)).all()


def test_power_and_values_are_those_of_scipy() -> None:
    values = skewed(1)
    z = (values - values.mean()) / values.std()
    transform = OutputTransform.fit(values, bend=True)
    assert transform.power == pytest.approx(max(yeojohnson_normmax(z), -2.0), abs=0.06)
    bent = yeojohnson(z, transform.power)
    np.testing.assert_allclose(transform(values), (bent - bent.mean()) / bent.std(), atol=1e-10)


@pytest.mark.parametrize("power", [-1.5, 0.0, 0.4, 1.0, 2.0, 3.5])
def test_inverse_and_slope(power: float) -> None:
    transform = OutputTransform(3.0, 2.0, power, 0.2, 0.7)
    values = np.linspace(-3, 9, 25)
    np.testing.assert_allclose(transform.inverse(transform(values)), values, atol=1e-9)
    numeric = (transform(values + 1e-6) - transform(values - 1e-6)) / 2e-6
    np.testing.assert_allclose(transform.slope(values), numeric, rtol=1e-6)


def test_symmetric_values_are_not_bent_and_equal_ones_give_zeros() -> None:
    assert OutputTransform.fit(np.linspace(-1, 1, 30), bend=True).power == 1
    np.testing.assert_array_equal(
        OutputTransform.fit(np.full(6, 7.0), bend=True)(np.full(6, 7.0)), 0
    )
    huge = 1e12 + np.linspace(0, 1e-3, 8)
    assert np.isfinite(OutputTransform.fit(huge, bend=True)(huge)).all()


@pytest.mark.parametrize("exponent", [-900, -40, 40, 1000])
def test_the_unit_of_the_values_does_not_matter(exponent: int) -> None:
    values = skewed(2)
    other = np.ldexp(values, exponent)
    got = OutputTransform.fit(other, bend=True)
    np.testing.assert_array_equal(got(other), OutputTransform.fit(values, bend=True)(values))
