"""Statistics against closed forms, brute force and scipy, and their rates by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import DataError
from sharpen.serve.drift import (
    jensen_shannon,
    kolmogorov_smirnov,
    quantile_counts,
    resampled_limit,
    stability_index,
)

VALUES = st.lists(st.integers(-5, 5), min_size=1, max_size=30)


def test_the_stability_index_is_its_formula():
    p, q = (20.5 / 61, 40.5 / 61), (0.5 / 11, 10.5 / 11)
    expected = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert stability_index([20, 40], [0, 10]) == pytest.approx(expected)
    assert stability_index([20, 40], [20, 40]) == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=8))
def test_both_divergences_are_symmetric_and_zero_only_for_equal_shares(pairs):
    r, q = zip(*pairs, strict=True)
    if not sum(r) or not sum(q):
        with pytest.raises(DataError, match="without counts"):
            jensen_shannon(r, q)
        return
    for distance in (stability_index, jensen_shannon):
        assert distance(r, q) == pytest.approx(distance(q, r), abs=1e-9)
        assert distance(r, q) >= -1e-12
        assert distance(r, r) == pytest.approx(0, abs=1e-9)
    assert jensen_shannon(r, q) <= 1


def test_jensen_shannon_of_halves_is_its_closed_form():
    # (1, 0) and (1/2, 1/2): H(3/4, 1/4) - (0 + 1) / 2.
    mixed = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert jensen_shannon([7, 0], [2, 2]) == pytest.approx(mixed - 0.5)


@given(VALUES, VALUES)
def test_the_largest_distance_of_the_distributions_is_found(a, b):
    def share(values, x):
        return sum(v <= x for v in values) / len(values)

    brute = max(abs(share(a, x) - share(b, x)) for x in {*a, *b})
    distance, p_value = kolmogorov_smirnov(a, b)
    assert distance == pytest.approx(brute)
    assert 0 <= p_value <= 1


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_values_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    distance = pytest.importorskip("scipy.spatial.distance")
    random = np.random.default_rng(0)
    for size, shift in ((20, 0.0), (60, 0.3), (200, 0.2), (500, 0.0)):
        a, b = random.normal(size=300), random.normal(shift, size=size)
        found, p_value = kolmogorov_smirnov(a, b)
        exact = stats.ks_2samp(a, b, method="exact")
        assert found == pytest.approx(exact.statistic)
        # Stephens' form against the exact distribution.
        assert p_value == pytest.approx(exact.pvalue, rel=0.1, abs=2e-3)
    r, q = random.integers(0, 30, 50), random.integers(0, 30, 50)
    peer = distance.jensenshannon(r, q, base=2) ** 2
    assert jensen_shannon(r, q) == pytest.approx(peer)


def test_equal_samples_are_no_surprise_and_disjoint_ones_are_one():
    assert kolmogorov_smirnov([1, 2, 3], [1, 2, 3]) == (0.0, 1.0)
    distance, p_value = kolmogorov_smirnov(range(100), range(100, 200))
    assert distance == 1
    assert p_value < 1e-20


def test_the_test_rejects_as_often_as_it_says():
    random = np.random.default_rng(1)
    rejected = sum(
        kolmogorov_smirnov(random.normal(size=150), random.normal(size=80))[1] < 0.05
        for _ in range(2000)
    )
    # Mean 100, standard deviation 10; the discrete statistic may reject a little less.
    assert 50 <= rejected <= 140


def test_windows_of_whole_requests_exceed_the_limit_as_often_as_it_says():
    random = np.random.default_rng(2)

    def requests(count):
        topics = random.dirichlet(np.full(20, 0.3), size=5)[random.integers(0, 5, count)]
        return np.stack([random.multinomial(30, topic) for topic in topics]).astype(float)

    rates = []
    for _ in range(20):
        population = requests(3000)
        reference, others, live = np.split(population, [1200, 2400])
        expected = reference.sum(0)
        limit = resampled_limit(expected, others, 40, alpha=0.05, resamples=400)
        windows = [live[random.choice(len(live), 40, replace=False)].sum(0) for _ in range(50)]
        rates.append(np.mean([jensen_shannon(expected, w) > limit for w in windows]))
    assert 0.02 <= np.mean(rates) <= 0.1
    # As many independent tokens would seem to differ far less.
    population = requests(2000)
    flat = np.repeat(np.eye(20), population.sum(0).astype(int), axis=0)
    naive = resampled_limit(population.sum(0), flat[::20], 40 * 30, alpha=0.05, resamples=200)
    assert naive < 0.5 * resampled_limit(population.sum(0), population, 40, alpha=0.05)


def test_bins_hold_equal_shares_of_the_reference():
    a, b = quantile_counts(np.arange(1000), [5, 1500, -3])
    assert a.tolist() == [100] * 10
    assert b.tolist() == [2, *[0] * 8, 1]
    tied, other = quantile_counts([3] * 50, [1, 3, 9])
    assert tied.sum() == 50
    assert len(tied) == len(other) == 2


@pytest.mark.parametrize("call", [stability_index, jensen_shannon])
def test_counts_of_other_bins_are_refused(call):
    with pytest.raises(DataError, match="not in the same bins"):
        call([1, 2], [1, 2, 3])


def test_an_empty_sample_is_refused():
    with pytest.raises(DataError, match="at least one value"):
        kolmogorov_smirnov([], [1])
